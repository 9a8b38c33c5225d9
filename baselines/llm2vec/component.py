"""Masked next-token prediction: a bidirectional model learns to restore hidden tokens of item texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from reaemb_bench.core.artifacts import Corpus, Encoder
from reaemb_bench.core.component import Context
from reaemb_bench.core.errors import UserError
from reaemb_bench.encoder.lora import LoraSettings

if TYPE_CHECKING:
    from numpy.random import Generator

    from reaemb_bench.encoder.finetune import Question, Task
    from reaemb_bench.encoder.thought_model import ThoughtModel


class MaskedNextToken(LoraSettings):
    """Tune LoRA so that a token that is hidden behind a mask is predicted from the state one place before it.

    The model reads whole prompts, both ways; only tokens of the item's own text are hidden, not those of the template.
    Source: LLM2Vec, arXiv 2404.05961, masked next-token prediction.
    """

    batch_size: int = Field(default=64, ge=1)
    """Item texts a step; at most as many as there are items."""
    share: float = Field(default=0.2, gt=0, le=1)
    """Probability of each token of the item's text to be hidden; at least one is."""
    mask: str = "_"
    """What is shown in place of a hidden token; the first token of it counts."""

    def run(self, corpus: Corpus, encoder: Encoder, context: Context) -> Encoder:
        """The encoder with one more adapter. Raises UserError where its attention is causal."""
        from reaemb_bench.encoder.finetune import tuned

        return tuned(encoder, self, context, lambda model: self._task(model, corpus, context.seed))

    def _task(self, model: ThoughtModel, corpus: Corpus, seed: int) -> Task[Question]:
        from reaemb_bench.encoder.finetune import Task, token_loss

        if not model.bidirectional:
            raise UserError('masked tokens need both sides: say llm.backbone = {use = "bidirectional", of = ...}')
        questions = self._questions(model, corpus, seed)
        return Task(questions, lambda batch: token_loss(model, batch, bidirectional=True), ())

    def _questions(self, model: ThoughtModel, corpus: Corpus, seed: int) -> Iterator[Sequence[Question]]:
        import numpy as np

        from reaemb_bench.encoder.lrcl import batches

        bare, *rows = model.tokenize(["", *corpus.texts])
        places = [own_places(row, bare) for row in rows]
        mask = model.tokenizer(self.mask, add_special_tokens=False)["input_ids"][0]
        # A text of no token of its own has nothing to hide.
        kept = [item for item in range(corpus.items) if places[item]]
        if not kept:
            raise UserError("no item has a text to hide tokens of; raise llm.max_length or give items texts")
        for epoch, drawn in batches(len(kept), min(self.batch_size, len(kept)), seed):
            items = [kept[place] for place in drawn]
            yield [
                hidden(
                    [*rows[item], model.eos_id],
                    places[item],
                    mask,
                    self.share,
                    np.random.default_rng([seed, epoch, item]),
                )
                for item in items
            ]


def own_places(row: Sequence[int], bare: Sequence[int]) -> list[int]:
    """Places of a prompt's tokens that the prompt of an empty text, `bare`, does not begin or end with, but not 0."""
    first = 0
    while first < min(len(row), len(bare)) and row[first] == bare[first]:
        first += 1
    last = 0
    while last < min(len(row), len(bare)) - first and row[-1 - last] == bare[-1 - last]:
        last += 1
    # Nothing stands before the first token that could predict it.
    return list(range(max(first, 1), len(row) - last))


def hidden(ids: Sequence[int], places: Sequence[int], mask: int, share: float, draw: Generator) -> Question:
    """The sequence with some of `places` masked, each asked for at the place before it."""
    from reaemb_bench.encoder.finetune import Question

    chosen = [place for place in places if draw.random() < share] or [places[int(draw.integers(len(places)))]]
    shown = list(ids)
    for place in chosen:
        shown[place] = mask
    return Question(tuple(shown), tuple(place - 1 for place in chosen), tuple(ids[place] for place in chosen))
