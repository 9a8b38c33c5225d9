"""TSLRec's preference tuning: a language model predicts from titles how a history divides among latent categories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn import functional as F

from reaemb_bench.core.artifacts import Corpus, Encoder, Float32, Int64, Ranker
from reaemb_bench.core.component import Context
from reaemb_bench.core.errors import UserError
from reaemb_bench.encoder.finetune import Task, tuned
from reaemb_bench.encoder.lora import LoraSettings
from reaemb_bench.encoder.thought_model import ThoughtModel


@dataclass(frozen=True)
class History:
    """The prompt of a history, and the share of each latent category among its items, (categories,)."""

    ids: tuple[int, ...]
    shares: Float32

    @property
    def terms(self) -> int:
        """One: a distribution."""
        return 1


class LatentCategories(LoraSettings):
    """Tune LoRA and a classifier to predict from the titles of a history how it divides among latent categories.

    The categories are clusters of a trained recommender's item vectors, which the language model never sees. The loss
    is the Kullback-Leibler divergence from the true shares to the predicted ones; the classifier is not kept.
    Source: TSLRec, arXiv 2406.00333, information reconstruction.
    """

    version: ClassVar[int] = 3

    batch_size: int = Field(default=32, ge=1)
    """Histories per step, each of another user; at most as many as there are users with training interactions."""
    categories: int = Field(default=20, ge=2)
    """Number of latent categories; fewer than items."""
    history: int = Field(default=10, ge=1)
    """Most titles of a history: consecutive ones from a random position of the user's sequence."""
    instruction: str = "The user has chosen, one after the other: "
    """Text before the titles."""
    separator: str = ", "
    """Text between the titles."""
    question: str = "\nPreferences of the user: "
    """Text after the last title; the state at its last token is classified."""

    def run(self, corpus: Corpus, encoder: Encoder, ranker: Ranker, context: Context) -> Encoder:
        """The encoder with one more adapter. ranker: the recommender whose item vectors are clustered."""
        categories = latent_categories(ranker.tensors["vectors"], self.categories, context.seed)
        return tuned(encoder, self, context, lambda model: self._task(model, corpus, categories, context.seed))

    def _task(self, model: ThoughtModel, corpus: Corpus, categories: Int64, seed: int) -> Task[History]:
        classifier = nn.Linear(model.width, self.categories).to(model.device)
        batches = self._histories(model, corpus, categories, seed)
        return Task(batches, lambda batch: divergence(model, classifier, batch), list(classifier.parameters()))

    def _histories(
        self, model: ThoughtModel, corpus: Corpus, categories: Int64, seed: int
    ) -> Iterator[Sequence[History]]:
        users = np.flatnonzero(corpus.training.lengths)
        step = 0
        while True:
            step += 1
            draw = np.random.default_rng([seed, step])
            histories = []
            for user in draw.choice(users, size=min(self.batch_size, len(users)), replace=False):
                items = corpus.training.of(int(user))
                first = int(draw.integers(max(len(items) - self.history, 0) + 1))
                items = items[first : first + self.history]
                titles = self.separator.join(corpus.titles[item] for item in items)
                text = f"{self.instruction}{titles}{self.question}"
                ids = model.tokenizer(text, add_special_tokens=False)["input_ids"][-model.template.max_length :]
                counts = np.bincount(categories[items], minlength=self.categories)
                histories.append(History(tuple(ids), (counts / counts.sum()).astype(np.float32)))
            yield histories


def latent_categories(vectors: Float32, count: int, seed: int) -> Int64:
    """The cluster of each item, (items,), by k-means on the directions of its centred vector (items, hidden).

    Raises UserError if there are not more items than clusters.
    """
    if len(vectors) <= count:
        raise UserError(f"categories = {count}, but there are {len(vectors)} items; ask for fewer")
    centred = vectors - vectors.mean(axis=0)
    directions = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    clusters: Int64 = KMeans(count, n_init=10, random_state=seed).fit_predict(directions).astype(np.int64)
    return clusters


def divergence(model: ThoughtModel, classifier: nn.Module, histories: Sequence[History]) -> Tensor:
    """Sum over histories of the Kullback-Leibler divergence from their shares to the predicted ones, a scalar."""
    states = model.states(model.tokens([history.ids for history in histories]), bidirectional=False)
    predicted = classifier(states[:, -1].float()).log_softmax(dim=1)
    shares = torch.from_numpy(np.stack([history.shares for history in histories])).to(predicted.device)
    return F.kl_div(predicted, shares, reduction="sum")
