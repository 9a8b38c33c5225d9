"""Vectors of all items from an encoder."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from reaemb_bench.artifacts import Corpus, Encoder, Vectors
from reaemb_bench.component import Randomness, Step
from reaemb_bench.context import Context


class Encode(Step):
    """Embed every item's full text, without dropout."""

    randomness: ClassVar[Randomness] = "none"
    together: ClassVar[bool] = True

    with_instruction: bool = False
    """Put the corpus' instruction line before each text; training leaves it out, the authors' export keeps it."""
    padding: Literal["left", "right"] | None = None
    """Padding side in this stage, for `latent-thought-paper`; None takes the encoder's."""
    max_length: int | None = Field(default=None, ge=8)
    """Most tokens of a prompt in this stage; None takes the encoder's."""

    def run(self, corpus: Corpus, encoder: Encoder, context: Context) -> Vectors:
        """One vector an item, (items, hidden size)."""
        from reaemb_bench.encoding.export import embed_texts
        from reaemb_bench.encoding.folder import open_encoder

        model = open_encoder(encoder, context.machine)
        model.template = replace(model.template, padding=self.padding or model.template.padding)
        before = f"{corpus.instruction}\n" if self.with_instruction else ""
        return embed_texts(model, corpus.texts, context, before=before, max_length=self.max_length)
