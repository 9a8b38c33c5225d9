"""The two sides of the comparison, each able to train and to evaluate, and what they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from benchmarks.measuring import Spent, clocked
from benchmarks.recommenders import ours
from benchmarks.recommenders.data import Prepared
from benchmarks.recommenders.plain import Plain, Settings
from benchmarks.recommenders.plain_networks import Head
from reaemb_bench.core.artifacts import Ranker

Side = Literal["plain", "same", "sound"]
SIDES: tuple[Side, ...] = ("plain", *ours.VARIANTS)
NAMES: dict[Side, str] = {
    "plain": "plain loop",
    "same": "ours, same function",
    "sound": "ours, softmax",
}


@dataclass(frozen=True)
class Timed:
    """Seconds for all rows or users, and the share of them that was run; below 1 the seconds are extrapolated."""

    wall: float
    cpu: float
    share: float


@dataclass(frozen=True)
class Runner:
    """train: one epoch, or a part of it. evaluate: all test users, or a part of them."""

    train: Callable[[], Timed]
    evaluate: Callable[[], Timed]


def runner(side: Side, head: Head, data: Prepared, settings: Settings, steps: int, users: int) -> Runner:
    """A side of a head. steps and users: how much of an epoch and of an evaluation the plain loop is given."""
    if side == "plain":
        return _plain(head, data, settings, steps, users)
    return _ours(side, head, data, settings)


def _plain(head: Head, data: Prepared, settings: Settings, steps: int, users: int) -> Runner:
    corpus, _, test_targets = data
    plain = Plain(head, corpus, settings)
    judged = min(users, len(test_targets.users))

    def train() -> Timed:
        with clocked() as spent:
            plain.train(steps)
        return _scaled(spent, min(steps * settings.batch_size, plain.rows) / plain.rows)

    def evaluate() -> Timed:
        with clocked() as spent:
            plain.evaluate(test_targets, judged)
        return _scaled(spent, judged / len(test_targets.users))

    return Runner(train, evaluate)


def _ours(variant: ours.Variant, head: Head, data: Prepared, settings: Settings) -> Runner:
    corpus, validation_targets, test_targets = data
    step = ours.training(
        head,
        variant,
        shared={"hidden": settings.hidden, "max_length": settings.max_length, "dropout": settings.dropout},
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        epochs=1,
    )
    trained: list[Ranker] = []

    def train() -> Timed:
        with clocked() as spent:
            ranker = ours.train(step, corpus, validation_targets)
        trained[:] = [ranker]
        return _scaled(spent, 1.0)

    def evaluate() -> Timed:
        with clocked() as spent:
            ours.evaluate(corpus, test_targets, trained[0])
        return _scaled(spent, 1.0)

    return Runner(train, evaluate)


def _scaled(spent: Spent, share: float) -> Timed:
    return Timed(spent.wall / share, spent.cpu / share, share)
