"""The sizes of a backbone, known before it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

from reaemb_bench.encoder.backbones.bidirectional import Bidirectional
from reaemb_bench.encoder.backbones.causal_lm import CausalLM
from reaemb_bench.encoder.backbones.smollm2 import SmolLM2
from reaemb_bench.encoder.backbones.tiny import Tiny
from reaemb_bench.encoder.memory import Shape

FLOAT32 = 4
"""Bytes of a number."""


def shape_of(backbone: object, kept: int = FLOAT32) -> Shape | None:
    """Sizes of a backbone whose numbers take `kept` bytes; None for a model of the hub or of a plug-in."""
    if isinstance(backbone, Bidirectional):
        return shape_of(backbone.of, kept)
    if isinstance(backbone, Tiny):
        width = backbone.hidden
        return Shape(width, 2 * width, backbone.layers, 4, 2, width // 4, backbone.vocabulary, True, kept)
    if isinstance(backbone, SmolLM2):
        return Shape(576, 1536, backbone.layers or 30, 9, 3, 64, 49_152, True, kept)
    if not isinstance(backbone, CausalLM):
        return None
    try:
        facts = json.loads((Path(backbone.model).expanduser() / "config.json").read_text("utf-8"))
        config = SimpleNamespace(**{"tie_word_embeddings": True, **facts})
        config.get_text_config = lambda: config
        config.num_hidden_layers = backbone.layers or config.num_hidden_layers
        return Shape.of(config, kept)
    except (OSError, ValueError, AttributeError):
        return None
