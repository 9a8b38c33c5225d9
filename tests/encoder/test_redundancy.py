"""Nothing is computed twice, and what is left out changes no number. Which test proves which claim:

passes         one pass and a continuation are two passes: `test_encoding.test_the_cached_path_equals_two_passes`,
               `test_encoding.test_forward_and_backward_are_those_of_the_authors`; gradients here
items          what all prompts begin with is read once: `test_encoding.test_a_shared_beginning_changes_nothing`;
               gradients and counted tokens here
rollouts       thoughts side by side behind one prompt: here; a whole step against released code's numbers:
               `test_policies.test_a_paper_step_has_the_released_codes_numbers`
candidates     each is completed once a step, each prompt is read once a stage: `test_prompt_cache`, `test_reinforce`
padding        `test_encoding.test_padding_does_not_change_a_vector`; which rows stand together, and that what is read
               in groups is one batch behind them: here
heads          keys and values that several query heads share are not copied: `test_attention`
LM head        nobody asks it but the paper's policy, which asks at thoughts and EOS alone: here
micro-batches  losses and gradients of LRCL in micro-batches of 1, 3 and 16 are the plain full batch's: here; kept or
               recomputed graphs give the same bits: `test_contrast.test_memory_for_graphs_changes_no_bit`
everything     each step against the plain way through the model: `test_benchmarks_encoder`
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.encoder import stages
from benchmarks.encoder.run import agreement
from reaemb_bench.core.machine import Machine
from reaemb_bench.encoder.folder import open_encoder
from reaemb_bench.encoder.memory import by_length, in_turn
from reaemb_bench.encoder.thought_model import ThoughtModel
from tests.helpers.encoders import corpus, encoder, two_pass

CPU = Machine(device="cpu", precision="float32")
SOUND: dict[str, Any] = {}
PAPER = {"reasoner": "latent-thought-paper"}
MANY = {"reasoner": {"use": "latent-thought", "thoughts": 3, "window": 9}, "pooling": "thought"}


def opened(folder: Path, **settings: Any) -> ThoughtModel:
    return open_encoder(encoder(folder, **settings), CPU)


def gradients(model: ThoughtModel, vectors: Tensor) -> list[Tensor]:
    """Of all weights, for one and the same direction of the vectors."""
    direction = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
    wanted = [weight for name, weight in model.named_parameters() if "lm_head" not in name]
    return list(torch.autograd.grad((vectors * direction).sum(), wanted))


def assert_alike(mine: list[Tensor], others: list[Tensor]) -> None:
    for one, two in zip(mine, others, strict=True):
        assert (one - two).norm() <= 1e-4 * two.norm() + 1e-6


@contextmanager
def counted_tokens(model: ThoughtModel) -> Iterator[list[int]]:
    """How many tokens pass through the first block, call by call, padding included."""
    seen: list[int] = []
    first = model.causal_lm.get_decoder().layers[0].mlp
    handle = first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[:2].numel()))
    yield seen
    handle.remove()


@pytest.mark.parametrize("settings", [SOUND, PAPER, MANY], ids=["sound", "paper", "many thoughts"])
def test_gradients_of_one_pass_are_those_of_two(tmp_path: Path, settings: dict[str, Any]) -> None:
    model = opened(tmp_path, **settings).requires_grad_(True)
    tokens = model.tokens(model.tokenize(corpus().texts[:6]))
    assert_alike(gradients(model, model.embed(tokens)), gradients(model, two_pass(model, tokens)))


@pytest.mark.parametrize("settings", [SOUND, PAPER], ids=["sound", "paper"])
def test_a_beginning_set_apart_gathers_the_gradients_of_all_prompts(tmp_path: Path, settings: dict[str, Any]) -> None:
    model = opened(tmp_path, **settings).requires_grad_(True)
    rows = model.tokenize(corpus().texts[:6])
    tokens, beginning = model.tokens(rows), model.begin(rows)
    assert beginning is not None
    at_once = gradients(model, model.embed(tokens, beginning))
    apart = beginning.detached_copy()
    vectors = model.embed(tokens, apart)
    direction = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
    wanted = [weight for name, weight in model.named_parameters() if "lm_head" not in name]
    again = model.begin(rows)
    assert again is not None
    behind = torch.autograd.grad(
        (vectors * direction).sum(), [*wanted, *apart.tensors], retain_graph=True, materialize_grads=True
    )
    before = torch.autograd.grad(again.tensors, wanted, behind[len(wanted) :], allow_unused=True)
    both = [one if two is None else one + two for one, two in zip(behind, before, strict=False)]
    assert_alike(both, at_once)


def test_each_token_passes_once(tmp_path: Path) -> None:
    model = opened(tmp_path)
    rows = model.tokenize(corpus().texts[:6])
    tokens = model.tokens(rows)
    with counted_tokens(model) as seen:
        beginning = model.begin(rows)
        assert beginning is not None
        common, length = len(beginning.ids), tokens.ids.shape[1]
        prefix = model.prefix(tokens, beginning)
        model.complete(prefix, model.think(prefix).repeat_interleave(4, dim=0))
    assert seen == [common, 6 * (length - common), 6 * 4 * 2]


@pytest.mark.parametrize("shared", [True, False], ids=["behind a beginning", "each as a whole"])
@pytest.mark.parametrize(
    "settings", [SOUND, PAPER | {"padding": "right"}, MANY], ids=["sound", "paper", "many thoughts"]
)
def test_prompts_read_in_groups_are_one_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], shared: bool
) -> None:
    model = opened(tmp_path, **settings).requires_grad_(True)
    tokens = model.tokens(model.tokenize(corpus().texts[:9]))
    lengths = tokens.mask.sum(dim=1).tolist()
    assert len(set(lengths)) > 3 and lengths != sorted(lengths, reverse=True)

    def read() -> tuple[list[int], Tensor, list[Tensor]]:
        with counted_tokens(model) as seen:
            prefix = model.prefix(tokens, share=shared)
            vectors = model.complete(prefix, model.think(prefix))
        assert prefix.ids.shape == tokens.ids.shape
        assert [ids[real].tolist() for ids, real in zip(prefix.ids, prefix.mask.bool(), strict=True)] == tokens.rows
        return seen, vectors, gradients(model, vectors)

    monkeypatch.setattr(ThoughtModel, "start", 100_000)
    _, expected, wanted = read()
    monkeypatch.setattr(ThoughtModel, "start", 0)
    seen, vectors, found = read()
    torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=1e-5)
    assert_alike(found, wanted)
    beginning = model.begin(tokens.rows) if shared else None
    common = 0 if beginning is None else len(beginning.ids)
    # No padding is read, and what follows the prompts is computed at once.
    assert sum(seen[:-1]) == common + sum(length - common for length in lengths)
    assert seen[-1] == 9 * (model.thoughts + 1)


@pytest.mark.parametrize("window", [40, 4000])
def test_a_window_shorter_than_a_prompt_changes_nothing(tmp_path: Path, window: int) -> None:
    made = encoder(tmp_path)
    (config,) = made.folder.rglob("config.json")
    settings = json.loads(config.read_text(encoding="utf-8"))
    windowed = {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 0}
    settings |= windowed | {"layer_types": ["sliding_attention"] * settings["num_hidden_layers"]}
    config.write_text(json.dumps(settings), encoding="utf-8")
    model = open_encoder(made, CPU)
    tokens = model.tokens(model.tokenize(corpus().texts[:9]))
    assert (model.begin(tokens.rows) is None) == (window == 40)
    torch.testing.assert_close(model.embed(tokens), two_pass(model, tokens), atol=1e-5, rtol=1e-5)
    prefix = model.prefix(tokens)
    thoughts = torch.randn(9 * 4, model.thoughts, model.width, generator=torch.Generator().manual_seed(1))
    expected = model.complete(prefix.repeat(4), thoughts)
    torch.testing.assert_close(model.complete(prefix, thoughts), expected, atol=1e-5, rtol=1e-5)


def test_where_attention_goes_both_ways_groups_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = {"use": "bidirectional", "of": {"use": "tiny", "vocabulary": 400}}
    model = opened(tmp_path, reasoner="none", backbone=backbone)
    tokens = model.tokens(model.tokenize(corpus().texts[:9]))
    monkeypatch.setattr(ThoughtModel, "start", 100_000)
    expected = model.embed(tokens)
    monkeypatch.setattr(ThoughtModel, "start", 0)
    torch.testing.assert_close(model.embed(tokens), expected, atol=1e-5, rtol=1e-5)
    assert (expected[0] - expected[1]).abs().max() > 1e-3


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("settings", [SOUND, PAPER, MANY], ids=["sound", "paper", "many thoughts"])
def test_thoughts_side_by_side_are_thoughts_apart(tmp_path: Path, settings: dict[str, Any], attention: str) -> None:
    backbone = {"use": "tiny", "vocabulary": 400, "attention": attention}
    model = opened(tmp_path, **settings, backbone=backbone)
    prefix = model.prefix(model.tokens(model.tokenize(corpus().texts[:5])))
    drawn = torch.randn(5 * 4, model.thoughts, model.width, generator=torch.Generator().manual_seed(1))
    together, alone = drawn.clone().requires_grad_(), drawn.clone().requires_grad_()
    vectors = model.complete(prefix, together)
    expected = model.complete(prefix.repeat(4), alone)
    torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=1e-5)
    logprobs = model.tail_logprobs(prefix, together)
    others = model.tail_logprobs(prefix.repeat(4), alone)
    torch.testing.assert_close(logprobs, others, atol=1e-5, rtol=1e-5)
    ((vectors**2).sum() + logprobs.sum()).backward()
    ((expected**2).sum() + others.sum()).backward()
    assert together.grad is not None and alone.grad is not None
    assert_alike([together.grad], [alone.grad])


@given(st.lists(st.integers(1, 60), max_size=50), st.integers(1, 9), st.integers(0, 100))
def test_groups_hold_every_row_once_and_cost_no_more_than_full_ones(lengths: list[int], size: int, start: int) -> None:
    groups = [group.tolist() for group in by_length(lengths, size, start)]
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    assert all(1 <= len(group) <= size for group in groups)
    longest = sorted(lengths, reverse=True)
    full = sum(start + longest[first] * len(longest[first : first + size]) for first in range(0, len(longest), size))
    assert sum(start + len(group) * max(lengths[place] for place in group) for group in groups) <= full


def test_groups_are_split_where_lengths_jump_and_starting_is_cheap() -> None:
    lengths = [50, 3, 49, 3, 2]
    assert [group.tolist() for group in by_length(lengths, 8, 10)] == [[0, 2], [1, 3, 4]]
    assert [group.tolist() for group in by_length(lengths, 8, 1000)] == [[0, 2, 1, 3, 4]]
    assert by_length([], 8, 10) == []


def test_micro_batches_hold_every_prompt_once_and_the_longest_first() -> None:
    assert [part.tolist() for part in in_turn([3, 9, 3, 5, 7], 2)] == [[1, 4], [3, 0], [2]]
    assert in_turn([], 2) == []


def test_the_head_is_asked_at_thoughts_and_eos_alone(tmp_path: Path) -> None:
    model = opened(tmp_path)
    asked: list[int] = []
    head = model.causal_lm.get_output_embeddings()
    head.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[0].shape[:-1].numel()))
    prefix = model.prefix(model.tokens(model.tokenize(corpus().texts[:5])))
    thoughts = model.think(prefix).repeat_interleave(3, dim=0)
    model.complete(prefix, thoughts)
    assert not asked
    model.tail_logprobs(prefix, thoughts)
    assert sum(asked) == 5 * 3 * 2


@pytest.mark.parametrize("micro_batch", [1, 3, 16])
@pytest.mark.parametrize("settings", [SOUND, PAPER | {"padding": "right"}], ids=["sound", "paper"])
def test_a_contrastive_step_in_micro_batches_is_the_plain_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], micro_batch: int
) -> None:
    monkeypatch.setattr("reaemb_bench.encoder.lrcl.graphs_that_fit", lambda *_: 1)
    machine = CPU.model_copy(update={"micro_batch": micro_batch})
    agreement(stages.lrcl(opened(tmp_path, **settings), corpus(), machine, 16))
