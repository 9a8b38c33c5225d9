"""Does order matter in these data? What a simple model loses when it reads histories in random order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from reaemb_bench.artifacts import Corpus, Ranks, Sequences, Signal
from reaemb_bench.evaluation.metrics import hit_rate, ndcg
from reaemb_bench.evaluation.ranking import rank_targets
from reaemb_bench.evaluation.significance import Metric, bootstrap_interval, differences, judged
from reaemb_bench.floors.item_knn import LastItemKNN

K = 10
SHUFFLES = 5
MOST_SCORES = 1 << 31
"""Scores of one pass over the users, at most: with more items than these allow, fewer users are asked."""
METRICS: dict[str, Metric] = {f"ndcg@{K}": partial(ndcg, k=K), f"hr@{K}": partial(hit_rate, k=K)}


@dataclass(frozen=True)
class Loss:
    """One metric with histories in order, and in random order as the mean over shuffles and its standard deviation.

    low, high: 95 % bootstrap interval over users of the difference between the two.
    """

    ordered: float
    shuffled: float
    sd: float
    low: float
    high: float

    @property
    def share(self) -> float | None:
        """What is lost of the ordered value, 1 being all of it, below 0 where shuffling helps; None where that is 0."""
        return 1 - self.shuffled / self.ordered if self.ordered else None


@dataclass(frozen=True)
class Sequentiality:
    """users: how many validation targets were ranked, of `of`. by_metric: the loss in each."""

    users: int
    of: int
    shuffles: int
    by_metric: dict[str, Loss]


def sequentiality(
    corpus: Corpus, signal: Signal, seed: int, shuffles: int = SHUFFLES, most_scores: int = MOST_SCORES
) -> Sequentiality | None:
    """What `last-item-knn` loses on the validation targets, ranked in the whole catalogue; None below two targets.

    The model is counted once, on the training sequences as they are; only what it reads to predict is shuffled. So a
    loss of 0 says that the last item tells no more than any other of the history. Test targets are never read.
    Source of the idea: Klenitskiy et al., Does It Look Sequential?, RecSys 2024, who train neural models for it.
    """
    rng = np.random.default_rng(seed)
    asked = _asked(signal, max(2, most_scores // corpus.items), rng)
    if len(asked.users) < 2:
        return None
    scorer = LastItemKNN().fit(corpus)
    histories = corpus.training.select(asked.users)

    def rank(read: Sequences) -> Ranks:
        everyone = np.arange(read.users)
        return rank_targets(scorer, read, everyone, asked.targets, asked.candidates, popularity=corpus.popularity)

    ordered = rank(histories)
    shuffled = [rank(in_random_order(histories, rng)) for _ in range(shuffles)]
    losses = {name: _loss(ordered, shuffled, metric) for name, metric in METRICS.items()}
    return Sequentiality(len(asked.users), len(signal.users), shuffles, losses)


def in_random_order(sequences: Sequences, rng: np.random.Generator) -> Sequences:
    """The same items of the same users, each user's in an order drawn anew."""
    order = np.lexsort((rng.random(len(sequences.items)), sequences.owners))
    return replace(sequences, items=sequences.items[order])


def _asked(signal: Signal, most: int, rng: np.random.Generator) -> Signal:
    """At most so many of the targets, drawn at random where there are more; without candidates."""
    places = np.arange(len(signal.users))
    if len(places) > most:
        places = np.sort(rng.choice(places, size=most, replace=False))
    return Signal(signal.users[places], signal.targets[places], signal.candidates[places, :0])


def _loss(ordered: Ranks, shuffled: list[Ranks], metric: Metric) -> Loss:
    first, second = judged("in order", [ordered], metric), judged("shuffled", shuffled, metric)
    each = [float(metric(ranks.better, ranks.tied).mean()) for ranks in shuffled]
    sd = float(np.std(each, ddof=1)) if len(each) > 1 else 0.0
    return Loss(first.mean, second.mean, sd, *bootstrap_interval(differences(first, second)))
