"""The usual research loop, written faithfully and without a trick: what our training and evaluation are compared with.

Every history is padded to one length, rows and negatives are made in Python one user at a time, attention reads all
positions, and evaluation draws its candidates in Python. The setting of ReaEmb's released code is the default: length
200, 1,024 users a batch, hidden 128, dropout 0.5, Adam at 1e-3, 100 candidates in addition to the target.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.recommenders.plain_data import Candidates, Histories, training_set
from benchmarks.recommenders.plain_networks import Head, build
from reaemb_bench.core.artifacts import Corpus, Int64, Sequences, TestTargets


@dataclass(frozen=True)
class Settings:
    """Those of ReaEmb's released code unless told otherwise."""

    max_length: int = 200
    batch_size: int = 1024
    hidden: int = 128
    dropout: float = 0.5
    learning_rate: float = 1e-3
    sample: int = 100
    workers: int = 0
    seed: int = 42


class Plain:
    """One head, its optimiser and its data."""

    def __init__(self, head: Head, corpus: Corpus, settings: Settings) -> None:
        random.seed(settings.seed)
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.items = corpus.items
        self.network: nn.Module = build(
            head,
            corpus.items,
            hidden=settings.hidden,
            max_length=settings.max_length,
            dropout=settings.dropout,
        )
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)
        rows = training_set(head, _histories(corpus.training, corpus.items, settings.max_length, at_least=2))
        self.loader: DataLoader[Any] = DataLoader(rows, settings.batch_size, shuffle=True, num_workers=settings.workers)

        self.rows = len(rows)
        """Rows of an epoch."""

    def train(self, steps: int | None = None) -> list[float]:
        """An epoch, or its first `steps` steps; the losses."""
        self.network.train()
        losses = []
        for sequence, positions, positive, negative in _first(self.loader, steps):
            self.optimiser.zero_grad()
            loss = self.network.loss(sequence, positions, positive, negative)  # type: ignore[operator]
            loss.backward()
            self.optimiser.step()
            losses.append(loss.item())
        return losses

    def evaluate(self, test_targets: TestTargets, users: int | None = None) -> Int64:
        """Ranks, 0 the best, of the first `users` test targets among the candidates; (users,)."""
        judged = test_targets.users[:users]
        histories = _histories(test_targets.histories.select(judged), self.items, self.settings.max_length)
        targets = (test_targets.targets[:users] + 1).tolist()
        for touched, target in zip(histories.touched, targets, strict=True):
            touched.add(target)
        loader = DataLoader(
            Candidates(histories, targets, self.settings.sample),
            self.settings.batch_size,
            num_workers=self.settings.workers,
        )
        self.network.eval()
        ranks = []
        with torch.no_grad():
            for sequence, positions, candidates in loader:
                scores = self.network.scores(sequence, positions, candidates)  # type: ignore[operator]
                ranks.append((-scores).argsort(dim=1).argsort(dim=1)[:, 0].numpy())
        return np.concatenate(ranks).astype(np.int64)


def _first(loader: DataLoader[Any], steps: int | None) -> Iterator[tuple[Tensor, ...]]:
    return islice(iter(loader), steps)


def _histories(sequences: Sequences, items: int, max_length: int, at_least: int = 0) -> Histories:
    lists = [(sequences.of(user) + 1).tolist() for user in range(sequences.users)]
    kept = [history for history in lists if len(history) >= at_least]
    return Histories(kept, [set(history) for history in kept], items, max_length)
