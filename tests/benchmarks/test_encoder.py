"""The plain way through the language model gives the released code's numbers, and ours gives the plain way's."""

from __future__ import annotations

import argparse
import json

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.encoder import run
from benchmarks.encoder.plain import Plain
from benchmarks.recommenders.data import simulated
from reaemb_bench.core.machine import Machine
from reaemb_bench.encoder.losses.soft_target import SoftTarget
from reaemb_bench.rl.crrl import ReinforceLeakyPaper
from tests.rl.test_policies import CANDIDATES, FIXTURES, GROUP, gradients_agree, paper_model, under

CPU = Machine(device="cpu", precision="float32")
FEW = {"items": 6, "pairs": 5, "groups": 2, "batch": 7, "layers": None, "vocabulary": None, "repeats": 1}


def rows(ids: Tensor, mask: Tensor) -> list[list[int]]:
    """The fixture's prompts without padding, thought and EOS."""
    return [row[real.bool()].tolist()[:-2] for row, real in zip(ids, mask, strict=True)]


def test_two_plain_passes_are_the_released_codes() -> None:
    tensors = load_file(FIXTURES / "two_pass_forward_tiny_qwen2.safetensors")
    thought_id = tensors["thought_token_id"]
    model = paper_model({**tensors, "input_ids": thought_id.reshape(1, 1).expand(1, 2)})
    made = Plain(model).two_passes(rows(tensors["input_ids"], tensors["attention_mask"]))
    torch.testing.assert_close(made.vectors, tensors["pooled_mean"], atol=1e-5, rtol=0)
    loss = SoftTarget().loss(made.vectors[:3], made.vectors[3:], torch.ones(1))
    torch.testing.assert_close(loss, tensors["soft_target_loss"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("positives", [1, 3])
def test_a_plain_reinforcement_step_has_the_released_codes_numbers(positives: int) -> None:
    tensors = load_file(FIXTURES / f"crrl_step_positives{positives}_tiny_qwen2.safetensors")
    model = paper_model(tensors)
    assert model.reasoner is not None
    model.reasoner.requires_grad_(True)
    settings = ReinforceLeakyPaper(
        group=GROUP, candidates=CANDIDATES, positives=positives, noise=1.5, rollouts_per_step=2 * GROUP
    )
    each = slice(None, None, GROUP)
    prompts = rows(tensors["input_ids"][each], tensors["attention_mask"][each])
    beside = [
        rows(ids, mask)
        for ids, mask in zip(
            tensors["candidate_input_ids"][each], tensors["candidate_attention_mask"][each], strict=True
        )
    ]
    counts = torch.zeros(2, CANDIDATES)
    counts[:, 0] = 1
    if positives > 1:
        counts = tensors["candidate_frequencies"][each].clamp(min=0).float()
    noise = tensors["noise"].unsqueeze(1)
    plain = Plain(model, batch=1000)
    judged = plain.reinforce(prompts, beside, counts / counts.sum(1, keepdim=True), noise, settings, 1.5)
    torch.testing.assert_close(judged.rewards.flatten(), tensors["rewards"], atol=1e-5, rtol=0)
    torch.testing.assert_close(judged.advantages.flatten(), tensors["advantages"], atol=1e-5, rtol=0)
    logprobs, real = plain.token_logprobs([row for row in prompts for _ in range(GROUP)], noise)
    torch.testing.assert_close(logprobs[real], tensors["old_logprobs"][real], atol=1e-5, rtol=0)
    loss = next(judged.losses)
    torch.testing.assert_close(loss.detach(), tensors["loss"], atol=1e-5, rtol=0)
    loss.backward()
    gradients_agree(model.reasoner, under("grad.latent_thought.", tensors))


@pytest.mark.slow
@pytest.mark.parametrize("stage", run.STAGES)
def test_both_ways_give_the_same_numbers_and_ours_computes_less(stage: run.Stage) -> None:
    corpus, _, _ = simulated(users=40, items=60, mean_length=6)
    made = run.row(stage, "tiny", corpus, CPU, argparse.Namespace(**FEW))
    assert made["apart"]["values"] < 1e-4
    assert made["plain"]["flops"] > 2 * made["ours"]["flops"]
    assert any("tiny" in cell for cell in run.cells(made))


def test_the_table_is_told_in_markdown_from_the_result() -> None:
    side = {"wall_seconds": 1.0, "flops": 10**10}
    apart = {"values": 1e-6, "gradients": None}
    row = {"stage": "encode", "model": "tiny", "data": "shop", "prompts": 6, "apart": apart}
    where = {"device": "cpu", "processor": "P", "threads": 1, "cores": 2, "torch": "2", "date": "today"}
    result = {
        "machine": where,
        "settings": {"repeats": 3, "layers": None, "precision": "float32"},
        "rows": [{**row, "plain": side, "ours": {"wall_seconds": 0.25, "flops": 10**9}}],
    }
    table = run.markdown(json.loads(json.dumps(result)))
    assert "| shop | tiny | encode | 6 | 1.00 | 0.250 | 4.0x | 10.0 | 1.00 | 10.0x |" in table
    assert "1 of 2 cores" in table
