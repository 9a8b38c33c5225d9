"""LLM2Vec's masked next-token prediction: a bidirectional model learns to restore masked tokens of item texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from pydantic import Field

from reaemb_bench.core.artifacts import Corpus, Encoder
from reaemb_bench.core.component import Context
from reaemb_bench.core.errors import UserError
from reaemb_bench.encoder.finetune import Question, Task, token_loss, tuned
from reaemb_bench.encoder.lora import LoraSettings
from reaemb_bench.encoder.lrcl import batches
from reaemb_bench.encoder.thought_model import ThoughtModel


class MaskedNextToken(LoraSettings):
    """Tune LoRA to predict a masked token from the state one position before it.

    The model reads whole prompts bidirectionally; only tokens of the item's own text are masked, not those of the
    template. Source: LLM2Vec, arXiv 2404.05961, masked next-token prediction.
    """

    batch_size: int = Field(default=64, ge=1)
    """Item texts per step; at most as many as there are items."""
    share: float = Field(default=0.2, gt=0, le=1)
    """Probability that a token of the item's text is masked; at least one is."""
    mask: str = "_"
    """Text in place of a masked token; only its first token is used."""

    def run(self, corpus: Corpus, encoder: Encoder, context: Context) -> Encoder:
        """The encoder with one more adapter. Raises UserError if its attention is causal."""
        return tuned(encoder, self, context, lambda model: self._task(model, corpus, context.seed))

    def _task(self, model: ThoughtModel, corpus: Corpus, seed: int) -> Task[Question]:
        if not model.bidirectional:
            raise UserError('masked tokens need both sides: say llm.backbone = {use = "bidirectional", of = ...}')
        questions = self._questions(model, corpus, seed)
        return Task(questions, lambda batch: token_loss(model, batch, bidirectional=True), ())

    def _questions(self, model: ThoughtModel, corpus: Corpus, seed: int) -> Iterator[Sequence[Question]]:
        bare, *rows = model.tokenize(["", *corpus.texts])
        places = [own_places(row, bare) for row in rows]
        mask = model.tokenizer(self.mask, add_special_tokens=False)["input_ids"][0]
        # A text without a token of its own has nothing to mask.
        with_text = [item for item in range(corpus.items) if places[item]]
        if not with_text:
            raise UserError("no item has a text to hide tokens of; raise llm.max_length or give items texts")
        for epoch, drawn in batches(len(with_text), min(self.batch_size, len(with_text)), seed):
            questions = []
            for item in (with_text[number] for number in drawn):
                draw = np.random.default_rng([seed, epoch, item])
                questions.append(masked([*rows[item], model.eos_id], places[item], mask, self.share, draw))
            yield questions


def own_places(row: Sequence[int], bare: Sequence[int]) -> list[int]:
    """Positions of a prompt's own tokens: all that `bare`, the prompt of an empty text, does not begin or end with.

    Position 0 is left out, because nothing before it could predict its token.
    """
    first = 0
    while first < min(len(row), len(bare)) and row[first] == bare[first]:
        first += 1
    last = 0
    while last < min(len(row), len(bare)) - first and row[-1 - last] == bare[-1 - last]:
        last += 1
    return list(range(max(first, 1), len(row) - last))


def masked(ids: Sequence[int], places: Sequence[int], mask: int, share: float, draw: np.random.Generator) -> Question:
    """The sequence with some of `places` masked, each predicted from the position before it."""
    chosen = [position for position in places if draw.random() < share] or [places[int(draw.integers(len(places)))]]
    shown = list(ids)
    for position in chosen:
        shown[position] = mask
    return Question(
        tuple(shown), tuple(position - 1 for position in chosen), tuple(ids[position] for position in chosen)
    )
