"""Masks of dropout belong to step, row, token and layer, not to the batch in which the row is read."""

from __future__ import annotations

import torch
from torch import Tensor

from reaemb_bench.encoder.dropout import END, MaskKeys, RowDropout

SHARE = 0.1


def dropped(rows: list[int] | None = None, length: int = 40, layer: int = 0, step: int = 7, part: int = 1) -> Tensor:
    """Mask (16, length, 96), or of the given rows."""
    keys = MaskKeys(step=step, current=None if rows is None else torch.tensor(rows), part=part)
    return RowDropout(SHARE, layer, keys).dropped(torch.ones(16 if rows is None else len(rows), length, 96))


def test_a_share_of_entries_is_dropped_in_every_row_token_and_feature() -> None:
    mask = torch.stack([dropped(layer=layer) for layer in range(8)]).float()
    for dims in ((0, 2, 3), (0, 1, 3), (0, 1, 2), (1, 2, 3)):
        shares = mask.mean(dims)
        sigma = (SHARE * (1 - SHARE) * len(shares) / mask.numel()) ** 0.5
        assert ((shares - SHARE).abs() < 5 * sigma).all()


def test_other_steps_layers_rows_tokens_and_parts_have_other_masks() -> None:
    mask = dropped()
    others = [dropped(step=8), dropped(layer=1), dropped(part=END), mask.roll(1, 0), mask.roll(1, 1), mask.roll(1, 2)]
    for other in others:
        both = (mask & other).float().mean().item()
        # Independent masks share SHARE^2 of their entries, with a standard deviation of about 0.0004.
        assert abs(both - SHARE**2) < 0.002


def test_a_rows_mask_depends_neither_on_its_batch_nor_on_its_padding() -> None:
    mask = dropped()
    assert torch.equal(dropped([5, 3, 5]), mask[[5, 3, 5]])
    assert torch.equal(dropped([5, 3], length=25), mask[[5, 3], -25:])


def test_what_is_kept_is_scaled_and_nothing_is_dropped_in_use() -> None:
    layer = RowDropout(SHARE, 0, MaskKeys())
    inputs = torch.rand(4, 5, 6) + 1
    outputs = layer(inputs)
    kept = outputs != 0
    torch.testing.assert_close(outputs[kept], inputs[kept] / (1 - SHARE))
    assert torch.equal(layer.eval()(inputs), inputs)
