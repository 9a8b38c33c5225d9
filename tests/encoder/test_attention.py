"""Attention that shares keys and values among query heads gives what transformers' own implementations give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from reaemb_bench.core.machine import Machine
from reaemb_bench.encoder.folder import open_encoder
from reaemb_bench.encoder.language_model import PACKED, packed_attention, takes_any_mask
from tests.helpers.encoders import encoder

CPU = Machine(device="cpu", precision="float32")


def attended(attend: Callable[..., Any], mask: Tensor | None, heads: int, shared: int, queries: int) -> list[Tensor]:
    """Outputs, and gradients of query, key and value."""
    drawn = torch.Generator().manual_seed(heads * 100 + queries)
    length = 7 if mask is None else mask.shape[3]
    query = torch.randn(2, heads * shared, queries, 4, generator=drawn, requires_grad=True)
    key, value = (torch.randn(2, heads, length, 4, generator=drawn, requires_grad=True) for _ in range(2))
    module: Any = SimpleNamespace(num_key_value_groups=shared, is_causal=True)
    outputs, _ = attend(module, query, key, value, mask, scaling=0.3, dropout=0.0)
    (outputs**3).sum().backward()
    return [outputs.detach(), *(part.grad for part in (query, key, value) if part.grad is not None)]


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.booleans(), st.integers(0, 2**16))
def test_numbers_and_gradients_are_those_of_sdpa(heads: int, shared: int, queries: int, added: bool, seed: int) -> None:
    allowed = torch.rand(2, 1, queries, 7, generator=torch.Generator().manual_seed(seed)) < 0.6
    allowed[..., 0] = True
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min) if added else allowed
    ours = attended(packed_attention, mask, heads, shared, queries)
    theirs = attended(sdpa_attention_forward, mask, heads, shared, queries)
    assert len(ours) == len(theirs) == 4
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_without_a_mask_attention_is_causal() -> None:
    for one, two in zip(
        attended(packed_attention, None, 2, 3, 7), attended(sdpa_attention_forward, None, 2, 3, 7), strict=True
    ):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_a_model_that_caps_its_scores_is_refused_as_by_sdpa() -> None:
    module: Any = nn.Identity()
    query, key, mask = torch.zeros(1, 2, 2, 4), torch.zeros(1, 1, 3, 4), torch.ones(1, 1, 2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="softcap"):
        packed_attention(module, query, key, key, mask, softcap=30.0)


@pytest.mark.parametrize(("attention", "used"), [("sdpa", PACKED), ("eager", "eager")])
def test_a_backbone_shares_keys_where_it_attends_by_sdpa(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attention: str, used: str
) -> None:
    backbone = {"use": "tiny", "vocabulary": 400, "attention": attention}
    model = open_encoder(encoder(tmp_path, backbone=backbone), CPU)
    config = model.causal_lm.config
    assert config._attn_implementation == used and takes_any_mask(config)
    assert config.num_key_value_heads < config.num_attention_heads
    heads: list[int] = []
    plain = nn.functional.scaled_dot_product_attention

    def watched(query: Tensor, key: Tensor, value: Tensor, **settings: Any) -> Tensor:
        heads.append(key.shape[1])
        return plain(query, key, value, **settings)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", watched)
    model.embed(model.tokens([[5, 6, 7], [8, 9, 10, 11]]))
    assert set(heads) == ({config.num_key_value_heads} if used == PACKED else set())
