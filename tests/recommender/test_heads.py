"""What holds for every head: what a position may see, whose company changes nothing, what a question reads."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from reaemb_bench.core.registry import build
from reaemb_bench.recommender.attention import SelfAttentive, share_after_dropout
from reaemb_bench.recommender.heads.bert4rec import BERT4Rec
from reaemb_bench.recommender.heads.esasrec import ESASRec
from reaemb_bench.recommender.heads.gru4rec import GRU4Rec
from reaemb_bench.recommender.heads.hstu import HSTU
from reaemb_bench.recommender.heads.sasrec import SASRec
from reaemb_bench.recommender.kinds import Head
from reaemb_bench.recommender.packing import Packed, pack, windows
from tests.helpers.heads import CPU, everywhere, sequences

ITEMS = 20
ROWS = st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=20), min_size=1, max_size=9)
SMALL = {"hidden": 16, "max_length": 6, "dropout": 0.0}
HEADS = {
    "sasrec": {"use": "sasrec", **SMALL, "attention_heads": 2},
    "sasrec without masks": {"use": "sasrec", **SMALL, "causal": False, "attend_padding": True},
    "gru4rec": {"use": "gru4rec", **SMALL, "layers": 2},
    "gru4rec of the paper": {"use": "gru4rec", **SMALL, "bias": False, "projected": False, "read_padding": True},
    "esasrec": {"use": "esasrec", **SMALL, "attention_heads": 2},
    "hstu": {"use": "hstu", **SMALL, "attention_heads": 2},
    "bert4rec": {"use": "bert4rec", **SMALL},
    "bert4rec of its authors": {"use": "bert4rec", **SMALL, "attention_heads": 2, "block": "bert"},
    "bert4rec without masks": {"use": "bert4rec", **SMALL, "count_from": "oldest", "attend_padding": True},
}


def made(name: str) -> tuple[Head, nn.Module, Tensor]:
    head = build("head", HEADS[name])
    torch.manual_seed(0)
    return head, head.build(nn.Identity()).eval(), torch.randn(ITEMS, 16)  # type: ignore[attr-defined, return-value]


def asked(name: str, rows: list[list[int]]) -> Tensor:
    """The state (users, hidden) from which each row's next item is scored."""
    head, network, vectors = made(name)
    packed = head.scoring_input(sequences(rows), ITEMS, CPU)
    with torch.no_grad():
        answer: Tensor = network(packed, vectors, packed.last)
    return answer


@pytest.mark.parametrize("name", HEADS)
@settings(max_examples=25, deadline=None)
@given(ROWS)
def test_batch_mates_and_their_order_change_nothing(name: str, rows: list[list[int]]) -> None:
    together = asked(name, rows)
    alone = torch.cat([asked(name, [row]) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", HEADS)
def test_the_last_items_count_and_older_ones_do_not(name: str) -> None:
    # A mask takes the place of one item.
    read = 5 if "bert4rec" in name else 6
    row = [1, 2, 3, 4, 5, 6, 7]
    before = asked(name, [row])
    for place in range(len(row)):
        other = row.copy()
        other[place] = 11
        moved = (asked(name, [other]) - before).abs().max()
        assert moved > 1e-4 if place >= len(row) - read else moved < 1e-6


@pytest.mark.parametrize("name", ["sasrec", "gru4rec", "gru4rec of the paper", "esasrec", "hstu"])
def test_a_later_item_changes_no_earlier_state(name: str) -> None:
    _, network, vectors = made(name)
    first, second = (
        everywhere(network, pack(sequences([row]), 6, CPU), vectors) for row in ([3, 5, 7, 9], [3, 5, 7, 2])
    )
    torch.testing.assert_close(second[:3], first[:3], atol=1e-6, rtol=0)
    assert (second[3] - first[3]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "name", ["sasrec without masks", "bert4rec", "bert4rec of its authors", "bert4rec without masks"]
)
def test_without_a_causal_mask_every_position_sees_the_last(name: str) -> None:
    _, network, vectors = made(name)
    first, second = (
        everywhere(network, pack(sequences([row]), 6, CPU), vectors) for row in ([3, 5, 7, 9], [3, 5, 7, 2])
    )
    assert ((second - first).abs().amax(dim=1) > 1e-4).all()


@given(ROWS, st.integers(1, 8))
def test_next_items_are_the_ones_behind_each_input(rows: list[list[int]], max_length: int) -> None:
    rows = [row for row in rows if len(row) > 1] or [[1, 2]]
    made = SASRec(max_length=max_length).training_examples(sequences(rows), ITEMS, np.random.default_rng(0))
    last = GRU4Rec(max_length=max_length, targets="last").training_examples(
        sequences(rows), ITEMS, np.random.default_rng(0)
    )
    for user, row in enumerate(rows):
        short = row[-max_length - 1 :]
        assert made.inputs.of(user).tolist() == short[:-1]
        assert made.targets[made.rows == user].tolist() == short[1:]
        assert made.indices[made.rows == user].tolist() == list(range(*made.inputs.offsets[user : user + 2].tolist()))
    assert np.array_equal(last.inputs.items, made.inputs.items)
    assert last.targets.tolist() == [row[-1] for row in rows]
    assert last.inputs.items[last.indices].tolist() == [row[-2] for row in rows]


@given(ROWS, st.integers(2, 8), st.floats(0.01, 1.0), st.sampled_from(["none", "last", "prefix"]), st.integers(1, 3))
def test_masked_items_are_asked_for_where_they_stood(
    rows: list[list[int]], max_length: int, probability: float, copies: Any, prefixes: int
) -> None:
    head = BERT4Rec(
        max_length=max_length, mask_probability=probability, kept=0, replaced=0, copies=copies, prefixes=prefixes
    )
    again = {"none": 0, "last": 1, "prefix": prefixes}[copies]
    made = head.training_examples(sequences(rows), ITEMS, np.random.default_rng(len(rows)))
    assert (made.inputs.items[made.indices] == ITEMS).all()
    assert (made.inputs.items == ITEMS).sum() == len(made.indices)
    restored = made.inputs.items.copy()
    restored[made.indices] = made.targets
    wanted = [row[-max_length:] for row in rows] * (1 + again)
    assert made.inputs.users == len(wanted)
    for row, target in zip(made.rows, made.targets, strict=True):
        assert target in wanted[row]
    owners: list[int] = []
    for row, expected in enumerate(wanted):
        start, stop = made.inputs.offsets[row : row + 2]
        if row >= len(rows) and copies == "prefix":
            expected = wanted[made.rows[made.indices == stop - 1].item()]
            assert min(2, len(expected)) <= stop - start <= len(expected)
            expected = expected[: stop - start]
        assert restored[start:stop].tolist() == expected
        chosen = made.indices[(made.indices >= start) & (made.indices < stop)] - start
        assert len(chosen), "a sequence asks for nothing"
        if row >= len(rows):
            owners.append(made.rows[made.indices == stop - 1].item())
            assert chosen.tolist() == [len(expected) - 1]
    assert sorted(owners) == sorted(list(range(len(rows))) * again)


def test_shares_of_masked_kept_and_replaced_items() -> None:
    head = BERT4Rec(max_length=50, mask_probability=0.4, kept=0.3, replaced=0.2, copies="none")
    rows = [[7] * 50] * 400
    made = head.training_examples(sequences(rows), ITEMS, np.random.default_rng(0))
    shown = made.inputs.items[made.indices]
    assert len(made.indices) / 20_000 == pytest.approx(0.4, abs=0.02)
    assert (shown == ITEMS).mean() == pytest.approx(0.5, abs=0.03)
    # A random item is the own one once in 20.
    assert (shown == 7).mean() == pytest.approx(0.3 + 0.2 / ITEMS, abs=0.03)


@given(ROWS, st.integers(1, 9))
def test_a_packed_batch_holds_the_last_items_and_their_positions(rows: list[list[int]], max_length: int) -> None:
    packed = pack(sequences(rows), max_length, CPU)
    kept = [row[-max_length:] for row in rows]
    assert packed.items.tolist() == [item for row in kept for item in row]
    assert packed.positions.tolist() == [place + 1 for row in kept for place in range(len(row))]
    assert packed.items[packed.last].tolist() == [row[-1] for row in kept]
    assert _through_grids(packed) == list(range(len(packed.items)))


def _through_grids(packed: Packed) -> list[int]:
    places: list[int] = []
    for bucket in packed.buckets:
        flat = bucket.grid.view(-1)
        places += (flat if bucket.slots is None else flat[bucket.slots]).tolist()
    return places


def test_users_sorted_by_length_share_few_grids() -> None:
    packed = pack(sequences([[1] * length for length in range(1, 65)]), 64, CPU)
    assert len(packed.buckets) < 14
    slots = sum(bucket.grid.numel() for bucket in packed.buckets)
    assert slots < 1.3 * len(packed.items)


def test_attended_padding_equals_zeros_that_are_really_there() -> None:
    """Values and gradients of the packed network against plain attention over left-padded histories."""
    rows = [[1, 2, 3], [4, 5, 6, 7, 8, 9], [10], [11, 12, 13]]
    network = SASRec(**SMALL, causal=False, attend_padding=True).build(nn.Identity()).eval()
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(ITEMS, 16, generator=generator)
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    weight = torch.randn(sum(map(len, rows)), 16, generator=generator)
    ours = everywhere(network, pack(sequences(rows), 6, CPU), vectors)
    gradients = torch.autograd.grad((ours * weight).sum(), list(network.parameters()), allow_unused=True)
    theirs = _padded(network, vectors, rows)
    expected = torch.autograd.grad((theirs * weight).sum(), list(network.parameters()), allow_unused=True)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    for got, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def _padded(network: SelfAttentive, vectors: Tensor, rows: list[list[int]]) -> Tensor:
    positions = torch.tensor([[0] * (6 - len(row)) + list(range(1, len(row) + 1)) for row in rows])
    items = torch.tensor([[0] * (6 - len(row)) + row for row in rows])
    real = (positions > 0)[..., None]
    states = (vectors[items] * 4 + network.position(positions)) * real
    for block in network.blocks:
        normed = block.attention_norm(states)
        key, value = block.key_value(states).chunk(2, dim=-1)
        weights = (block.query(normed) @ key.transpose(1, 2) / 4).softmax(dim=-1)
        normed = block.feed_forward_norm(normed + block.output(weights @ value))
        states = (normed + block.outer(F.relu(block.inner(normed)))) * real
    return network.norm(states)[real[..., 0]]


def test_ligr_blocks_gate_both_of_their_residuals() -> None:
    """The network against the formulas of LiGR (arXiv 2502.03417), with positions counted from the newest item."""
    network, vectors, rows = _random_weights(ESASRec(**SMALL, expansion=3))
    states = []
    for row in rows:
        x = vectors[row] + network.position(torch.arange(len(row), 0, -1))
        for block in network.blocks:
            query, key, value = block.projections(F.layer_norm(x, (16,), *_affine(block.attention_norm))).chunk(3, -1)
            later = torch.ones(len(row), len(row)).triu(1).bool()
            attention = (query @ key.T / 4).masked_fill(later, -torch.inf).softmax(-1) @ value
            x = x + torch.sigmoid(block.attention_gate(x)) * block.output(attention)
            normed = F.layer_norm(x, (16,), *_affine(block.feed_forward_norm))
            gate, linear = (normed @ weight.T for weight in block.inner.weight.split(3 * 16))
            swiglu = (gate * torch.sigmoid(gate) * linear) @ block.outer.weight.T
            x = x + torch.sigmoid(block.feed_forward_gate(x)) * swiglu
        states.append(x)
    ours = everywhere(network, pack(sequences(rows), 6, CPU), vectors)
    torch.testing.assert_close(ours, torch.cat(states), atol=1e-5, rtol=0)


def test_hstu_sums_earlier_items_without_a_softmax() -> None:
    """The network against equations 1 to 3 of arXiv 2402.17152, position by position."""
    network, vectors, rows = _random_weights(HSTU(**SMALL, attention_heads=2))
    states = []
    for row in rows:
        x = 4 * vectors[row] + network.position(torch.arange(1, len(row) + 1))
        for block in network.blocks:
            normed = F.layer_norm(x, (16,), *_affine(block.norm))
            gate, query, key, value = F.silu(normed @ block.projections.weight.T).split(16, dim=1)
            attended = torch.zeros(len(row), 16)
            for i, j, part in itertools.product(range(len(row)), range(len(row)), (slice(0, 8), slice(8, 16))):
                if j <= i:
                    logit = query[i, part] @ key[j, part] + block.distance_bias[i - j]
                    attended[i, part] += F.silu(logit) * value[j, part] / 6
            x = x + block.output(F.layer_norm(attended, (16,), *_affine(block.attended_norm)) * gate)
        states.append(network.norm(x))
    ours = everywhere(network, pack(sequences(rows), 6, CPU), vectors)
    torch.testing.assert_close(ours, torch.cat(states), atol=1e-5, rtol=0)


def test_the_block_of_berts_authors_is_torchs_encoder_layer() -> None:
    network, vectors, rows = _random_weights(BERT4Rec(**SMALL, attention_heads=2, block="bert"))
    layer = nn.TransformerEncoderLayer(16, 2, 64, dropout=0, activation="gelu", batch_first=True, norm_first=False)
    names = {"self_attn.in_proj_": "projections.", "self_attn.out_proj.": "output.", "norm1.": "attention_norm."}
    names |= {"linear1.": "inner.", "linear2.": "outer.", "norm2.": "feed_forward_norm."}
    states = []
    for row in rows:
        x = (4 * vectors[row] + network.position(torch.arange(len(row), 0, -1)))[None]
        for block in network.blocks:
            weights = block.state_dict()
            parts = itertools.product(names.items(), ("weight", "bias"))
            layer.load_state_dict({theirs + part: weights[ours + part] for (theirs, ours), part in parts})
            x = layer.train(False)(x)
        states.append(network.norm(x[0]))
    ours = everywhere(network, pack(sequences(rows), 6, CPU), vectors)
    torch.testing.assert_close(ours, torch.cat(states), atol=1e-5, rtol=0)


@given(ROWS, st.integers(1, 8))
def test_windows_predict_every_item_but_the_first_exactly_once(rows: list[list[int]], max_length: int) -> None:
    whole = sequences(rows)
    cut, users = windows(whole, max_length + 1)
    assert cut.lengths.max() <= max_length + 1
    assert len(cut.items) <= sum(len(row) + len(row) // max_length for row in rows)
    for user, row in enumerate(rows):
        own = [cut.of(number).tolist() for number in np.flatnonzero(users == user)]
        assert [item for window in own for item in window[1:]] == row[1:]
        assert own[0][0] == row[0]
        assert own[-1] == row[-max_length - 1 :]
    if max(map(len, rows)) <= max_length + 1:
        assert np.array_equal(cut.items, whole.items)
        assert np.array_equal(cut.offsets, whole.offsets)


def _random_weights(head: Head) -> tuple[nn.Module, Tensor, list[list[int]]]:
    """A network whose every weight matters, item vectors, and histories."""
    generator = torch.Generator().manual_seed(1)
    network = head.build(nn.Identity()).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return network, torch.randn(ITEMS, 16, generator=generator), [[1, 2, 3], [4, 5, 6, 7, 8, 9], [10], [11, 12, 13]]


def _affine(norm: nn.LayerNorm) -> tuple[Tensor, Tensor, float]:
    return norm.weight, norm.bias, norm.eps


def test_dropout_on_equal_padding_keys_has_the_mean_and_spread_of_single_ones() -> None:
    torch.manual_seed(0)
    share = share_after_dropout(torch.tensor([4]), torch.zeros(1, 1, 20_000, 1), 0.5)
    assert share.mean().item() == pytest.approx(1, abs=0.02)
    # The mean of four draws that are 0 or 2 with equal chance.
    assert share.std().item() == pytest.approx(math.sqrt(1 / 4), abs=0.02)


def test_prefixes_end_at_every_item_in_turn() -> None:
    head = BERT4Rec(max_length=9, mask_probability=0.01, copies="prefix")
    made = head.training_examples(sequences([[1, 2, 3, 4, 5]] * 2000), ITEMS, np.random.default_rng(0))
    lengths = made.inputs.lengths[2000:]
    assert (np.diff(lengths) >= 0).all(), "prefixes of unequal length side by side cost a grid each"
    ends = np.bincount(lengths, minlength=6)
    assert ends[:2].sum() == 0
    assert np.allclose(ends[2:] / 2000, 1 / 4, atol=0.05)


@pytest.mark.parametrize("bias", [True, False])
def test_gated_units_are_those_of_torch(bias: bool) -> None:
    head = GRU4Rec(**{**SMALL, "max_length": 20}, layers=2, bias=bias)
    torch.manual_seed(0)
    network = head.build(nn.Identity()).eval()
    vectors = torch.randn(ITEMS, 16, requires_grad=True)
    rows = [[1, 2, 3], [4, 5, 6, 7, 8, 9], [10], [11, 12, 13]]
    weight = torch.randn(sum(map(len, rows)), 16)
    ours = everywhere(network, pack(sequences(rows), 20, CPU), vectors)
    alone = [network.output(network.gru(vectors[row])[0]) for row in rows]
    trained = [vectors, *network.gru.parameters()]
    torch.testing.assert_close(ours, torch.cat(alone), atol=1e-6, rtol=0)
    got = torch.autograd.grad((ours * weight).sum(), trained)
    wanted = torch.autograd.grad((torch.cat(alone) * weight).sum(), trained)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)
