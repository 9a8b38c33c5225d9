"""A causal language model with bidirectional attention."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reaemb_bench.core.artifacts import Corpus
from reaemb_bench.core.component import Component
from reaemb_bench.core.machine import Machine
from reaemb_bench.encoder.kinds import AnyBackbone
from reaemb_bench.encoder.language_model import Loaded


class Bidirectional(Component):
    """Another backbone without its causal mask: each token of an item's prompt sees all of it (LLM2Vec, arXiv
    2404.05961). The weights are the same, and have to be trained for it. It has no thought: llm.reasoner = "none".
    """

    of: AnyBackbone
    """The language model, with attention 'sdpa' or 'eager' and no sliding window."""

    def prepare(self, corpus: Corpus, folder: Path, machine: Machine, seed: int) -> None:
        """Writes into `folder` what the model itself needs there."""
        self.of.prepare(corpus, folder, machine, seed)

    def load(self, folder: Path, machine: Machine) -> Loaded:
        """The model and its tokenizer, ready on the machine's device."""
        return replace(self.of.load(folder, machine), bidirectional=True)
