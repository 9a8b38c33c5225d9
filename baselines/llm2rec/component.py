"""Next-title tuning: a language model learns to write the title of what a user takes next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from reaemb_bench.core.artifacts import Corpus, Encoder
from reaemb_bench.core.component import Context
from reaemb_bench.core.errors import UserError
from reaemb_bench.encoder.lora import LoraSettings

if TYPE_CHECKING:
    from reaemb_bench.encoder.finetune import Question, Task
    from reaemb_bench.encoder.thought_model import ThoughtModel


class NextTitle(LoraSettings):
    """Tune LoRA so that the titles of a user's last items are continued by the title of the next, then EOS.

    Attention is causal here, whatever the backbone's is for items. Histories and next items come from training
    interactions. Source: LLM2Rec (KDD 2025), arXiv 2506.21579, collaborative supervised fine-tuning.
    """

    batch_size: int = Field(default=32, ge=1)
    """Histories a step, drawn from all places of all users' sequences but the first."""
    history: int = Field(default=10, ge=1)
    """Most titles of a history, the latest."""
    instruction: str = "The user has chosen, one after the other: "
    """What stands before the titles."""
    separator: str = ", "
    """What stands between them."""
    question: str = "\nNext: "
    """What stands between the last of them and the title that is to be predicted."""

    def run(self, corpus: Corpus, encoder: Encoder, context: Context) -> Encoder:
        """The encoder with one more adapter. Raises UserError where no user has two training interactions."""
        from reaemb_bench.encoder.finetune import tuned

        return tuned(encoder, self, context, lambda model: self._task(model, corpus, context.seed))

    def _task(self, model: ThoughtModel, corpus: Corpus, seed: int) -> Task[Question]:
        from reaemb_bench.encoder.finetune import Task, token_loss

        questions = self._questions(model, corpus, seed)
        return Task(questions, lambda batch: token_loss(model, batch, bidirectional=False), ())

    def _questions(self, model: ThoughtModel, corpus: Corpus, seed: int) -> Iterator[Sequence[Question]]:
        import numpy as np

        training = corpus.training
        asked = np.delete(np.arange(len(training.items)), training.offsets[:-1][training.lengths > 0])
        if not len(asked):
            raise UserError("no user has two training interactions to learn an order from; loosen prepare.filters")
        number = 0
        while True:
            number += 1
            drawn = np.random.default_rng([seed, number]).choice(asked, size=self.batch_size)
            yield [self._asked(model, corpus, int(place)) for place in drawn]

    def _asked(self, model: ThoughtModel, corpus: Corpus, place: int) -> Question:
        """What is asked about the interaction at a place of the flat training sequences."""
        first = max(int(corpus.training.offsets[corpus.training.owners[place]]), place - self.history)
        read, wanted = corpus.training.items[first:place], corpus.training.items[place]
        titles = self.separator.join(corpus.titles[item] for item in read)
        return continued(model, f"{self.instruction}{titles}{self.question}", corpus.titles[wanted])


def continued(model: ThoughtModel, text: str, answer: str) -> Question:
    """The answer and EOS, asked behind the text; what does not fit into the model's length is the text's beginning."""
    from reaemb_bench.encoder.finetune import Question

    limit = model.template.max_length
    before, after = model.tokenizer([text, answer], add_special_tokens=False)["input_ids"]
    after = [*after[: limit // 2], model.eos_id]
    before = before[-(limit - len(after)) :]
    ids = (*before, *after[:-1])
    return Question(ids, tuple(range(len(before) - 1, len(ids))), tuple(after))
