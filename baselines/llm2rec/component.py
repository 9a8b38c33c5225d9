"""LLM2Rec's first stage: a language model learns to write the title of what a user takes next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from pydantic import Field

from reaemb_bench.core.artifacts import Corpus, Encoder
from reaemb_bench.core.component import Context
from reaemb_bench.core.errors import UserError
from reaemb_bench.encoder.finetune import Question, Task, token_loss, tuned
from reaemb_bench.encoder.lora import LoraSettings
from reaemb_bench.encoder.thought_model import ThoughtModel


class NextTitle(LoraSettings):
    """Tune LoRA to continue the titles of a user's last items with the title of the next item, then EOS.

    Attention is causal here, even if the backbone reads items bidirectionally. Histories and next items come from
    training interactions. Source: LLM2Rec (KDD 2025), arXiv 2506.21579, collaborative supervised fine-tuning.
    """

    batch_size: int = Field(default=32, ge=1)
    """Histories per step, drawn from all positions of all users' sequences except the first."""
    history: int = Field(default=10, ge=1)
    """Most titles of a history, the latest."""
    instruction: str = "The user has chosen, one after the other: "
    """Text before the titles."""
    separator: str = ", "
    """Text between the titles."""
    question: str = "\nNext: "
    """Text between the last title and the one that is to be predicted."""

    def run(self, corpus: Corpus, encoder: Encoder, context: Context) -> Encoder:
        """The encoder with one more adapter. Raises UserError if no user has two training interactions."""
        return tuned(encoder, self, context, lambda model: self._task(model, corpus, context.seed))

    def _task(self, model: ThoughtModel, corpus: Corpus, seed: int) -> Task[Question]:
        questions = self._questions(model, corpus, seed)
        return Task(questions, lambda batch: token_loss(model, batch, bidirectional=False), ())

    def _questions(self, model: ThoughtModel, corpus: Corpus, seed: int) -> Iterator[Sequence[Question]]:
        training = corpus.training
        has_history = np.delete(np.arange(len(training.items)), training.offsets[:-1][training.lengths > 0])
        if not len(has_history):
            raise UserError("no user has two training interactions to learn an order from; loosen prepare.filters")
        step = 0
        while True:
            step += 1
            questions = []
            for index in np.random.default_rng([seed, step]).choice(has_history, size=self.batch_size).tolist():
                first = max(int(training.offsets[training.owners[index]]), index - self.history)
                titles = self.separator.join(corpus.titles[item] for item in training.items[first:index])
                text = f"{self.instruction}{titles}{self.question}"
                questions.append(continued(model, text, corpus.titles[training.items[index]]))
            yield questions


def continued(model: ThoughtModel, text: str, answer: str) -> Question:
    """The answer and EOS, predicted after the text, whose beginning is cut if both exceed the model's length."""
    limit = model.template.max_length
    before, after = model.tokenizer([text, answer], add_special_tokens=False)["input_ids"]
    after = [*after[: limit // 2], model.eos_id]
    before = before[-(limit - len(after)) :]
    ids = (*before, *after[:-1])
    return Question(ids, tuple(range(len(before) - 1, len(ids))), tuple(after))
