"""Attention for models in which several query heads share keys and values: nothing is copied once a head."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

PACKED = "sdpa-packed"
"""Transformers' name of the implementation."""
_ELSEWHERE = ("softcap", "position_bias", "cache")


def pack(model: Any) -> None:
    """Let a transformers model that attends by `sdpa` do so without copies of keys and values; numbers stay."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, sdpa_mask)
    model.set_attn_implementation(PACKED)


def packed_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """Outputs (n, queries, heads, head size) of query (n, heads, queries, head size) and fewer heads of key and value.

    Under a mask, transformers' `sdpa` copies keys and values for every query head, which costs more than attending
    where a few tokens follow a long prompt. Here the queries of all heads that share keys and values stand behind each
    other, as if they were more tokens, each under its token's mask.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    shared = query.shape[1] // key.shape[1]
    elsewhere = any(settings.get(name) is not None for name in _ELSEWHERE)
    if attention_mask is None or attention_mask.shape[1] != 1 or shared == 1 or elsewhere:
        made: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        return made
    count, heads, queries, size = query.shape
    outputs = nn.functional.scaled_dot_product_attention(
        query.reshape(count, heads // shared, shared * queries, size),
        key,
        value,
        attn_mask=attention_mask.repeat(1, 1, shared, 1),
        dropout_p=settings.get("dropout", 0.0),
        scale=settings.get("scaling"),
    )
    return outputs.reshape(count, heads, queries, -1).transpose(1, 2).contiguous(), None
