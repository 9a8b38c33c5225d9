"""Attention masks beside the causal one, as numbers that are added to attention scores: 0 where a token is seen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reaemb_bench.encoding.attention import PACKED


def takes_any_mask(config: Any) -> bool:
    """Whether a transformers model with this configuration takes masks (n, 1, queries, keys) of its caller's."""
    full = narrowest_window(config) is None and {"full_attention"} >= {*(getattr(config, "layer_types", None) or ())}
    return full and config._attn_implementation in ("sdpa", PACKED, "eager")


def narrowest_window(config: Any) -> int | None:
    """How many places, padding included, a token of such a model sees at least; None where it sees all before it."""
    text = config.get_text_config()
    windows = (getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size"))
    return min((window for window in windows if window), default=None)


def both_ways(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(n, 1, L, L): every token sees all real ones, before and behind it; `mask` (n, L) is 1 at real tokens."""
    count, length = mask.shape
    return _added(mask.bool().view(count, 1, 1, length).expand(-1, -1, length, -1), dtype)


def side_by_side(mask: Tensor, size: int, times: int, dtype: torch.dtype) -> Tensor:
    """(n, 1, times * size, L + times * size): each of `times` pieces of `size` tokens sees the prompt, whose real
    tokens `mask` (n, L) tells, and itself, causally.
    """
    causal = torch.ones(size, size, dtype=torch.long, device=mask.device).tril()
    pieces = torch.kron(torch.eye(times, dtype=torch.long, device=mask.device), causal).bool()
    shape = (len(mask), times * size, -1)
    allowed = torch.cat([mask.bool().unsqueeze(1).expand(shape), pieces.expand(shape)], dim=2).unsqueeze(1)
    return _added(allowed, dtype)


def _added(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)
