"""SASRec: the paper variant's fixed numbers, and what must hold for the sound one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reaemb_bench.artifacts import Sequences
from reaemb_bench.heads.batching import Padded, pad
from reaemb_bench.heads.sasrec import SASRec
from reaemb_bench.heads.sasrec_network import SASRecNetwork
from reaemb_bench.objectives.bce import BinaryCrossEntropy

FIXTURE = Path(__file__).parent / "fixtures" / "fidelity" / "srs_sasrec.safetensors"
CPU = torch.device("cpu")


def load_paper() -> tuple[SASRecNetwork, Tensor, dict[str, Tensor]]:
    """The paper's SASRec with the fixture's weights, the item vectors (row i = id i + 1), and the fixture."""
    from safetensors.torch import load_file

    fixture = load_file(FIXTURE)
    network = SASRec(hidden=16, max_length=12, dropout=0, causal=False, attend_padding=True).build(nn.Identity())
    theirs = {name.removeprefix("weight."): value for name, value in fixture.items() if name.startswith("weight.")}
    ours = {"position.weight": theirs["pos_emb.weight"][:13]}
    for norm in ("weight", "bias"):
        ours[f"norm.{norm}"] = theirs[f"backbone.last_layernorm.{norm}"]
    for block in range(2):
        attention = f"backbone.attention_layers.{block}"
        for part in ("weight", "bias"):
            projection = theirs[f"{attention}.in_proj_{part}"]
            ours[f"blocks.{block}.query.{part}"] = projection[:16]
            ours[f"blocks.{block}.key_value.{part}"] = projection[16:]
            ours[f"blocks.{block}.output.{part}"] = theirs[f"{attention}.out_proj.{part}"]
            ours[f"blocks.{block}.attention_norm.{part}"] = theirs[f"backbone.attention_layernorms.{block}.{part}"]
            ours[f"blocks.{block}.feed_forward_norm.{part}"] = theirs[f"backbone.forward_layernorms.{block}.{part}"]
            for conv, layer in (("conv1", "inner"), ("conv2", "outer")):
                value = theirs[f"backbone.forward_layers.{block}.{conv}.{part}"]
                ours[f"blocks.{block}.{layer}.{part}"] = value.squeeze(-1) if part == "weight" else value
    network.load_state_dict(ours)
    return network.eval(), theirs["item_emb.weight"][1:], fixture


def histories(rows: list[list[int]]) -> Sequences:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Sequences(np.array([item for row in rows for item in row], dtype=np.int32), offsets)


def states(network: SASRecNetwork, vectors: Tensor, rows: list[list[int]]) -> tuple[Tensor, Padded]:
    batch = pad(histories(rows), network.max_length, left=network.left_padded, device=CPU)
    return network(batch.items, batch.lengths, vectors), batch


def test_paper_variant_reproduces_the_fixed_scores_and_loss() -> None:
    network, vectors, fixture = load_paper()
    sequence = fixture["sequence"]
    made, _ = states(network, vectors, [[int(item) - 1 for item in row if item > 0] for row in sequence])
    scores = torch.einsum("uh,uch->uc", made[:, -1], vectors[fixture["candidates"] - 1])
    torch.testing.assert_close(scores, fixture["candidate_scores"], atol=1e-5, rtol=0)
    real = sequence > 0
    loss = BinaryCrossEntropy().loss(
        made[real], fixture["positive"][real] - 1, vectors, fixture["negative"][real][:, None] - 1
    )
    torch.testing.assert_close(loss, fixture["loss"], atol=1e-5, rtol=0)


def sound(causal: bool = True) -> tuple[SASRecNetwork, Tensor]:
    torch.manual_seed(0)
    network = SASRec(hidden=16, max_length=6, dropout=0, attention_heads=2, causal=causal).build(nn.Identity())
    return network.eval(), torch.randn(20, 16)


def test_a_later_item_changes_no_earlier_state() -> None:
    network, vectors = sound()
    before, _ = states(network, vectors, [[3, 5, 7, 9]])
    after, _ = states(network, vectors, [[3, 5, 7, 2]])
    torch.testing.assert_close(after[:, :3], before[:, :3], atol=1e-6, rtol=0)
    assert (after[:, 3] - before[:, 3]).abs().max() > 1e-3


def test_without_the_causal_mask_positions_see_their_own_answers() -> None:
    network, vectors = sound(causal=False)
    before, _ = states(network, vectors, [[3, 5, 7, 9]])
    after, _ = states(network, vectors, [[3, 5, 7, 2]])
    assert (after[:, 0] - before[:, 0]).abs().max() > 1e-3


@pytest.mark.parametrize("causal", [True, False])
def test_padding_and_batch_mates_change_nothing(causal: bool) -> None:
    network, vectors = sound(causal)
    alone, _ = states(network, vectors, [[3, 5]])
    beside, _ = states(network, vectors, [[3, 5], [1, 2, 3, 4, 5, 6]])
    torch.testing.assert_close(beside[:1, :2], alone, atol=1e-6, rtol=0)


def test_only_the_last_max_length_items_are_read() -> None:
    network, vectors = sound()
    long, _ = states(network, vectors, [[9, 9, 1, 2, 3, 4, 5, 6]])
    cut, _ = states(network, vectors, [[1, 2, 3, 4, 5, 6]])
    torch.testing.assert_close(long, cut)
