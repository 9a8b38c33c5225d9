"""Our training and evaluation, through the same steps that recipes run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal

from benchmarks.recommenders.data import context
from benchmarks.recommenders.plain_networks import Head
from reaemb_bench.core.artifacts import Corpus, Ranker, Ranks, TestTargets, ValidationTargets
from reaemb_bench.recommender.fit import TrainIds
from reaemb_bench.recommender.score import Rank

Variant = Literal["same", "sound"]
VARIANTS: tuple[Variant, ...] = ("same", "sound")
SAME: dict[Head, dict[str, Any]] = {
    "sasrec": {"causal": False, "attend_padding": True},
    # The plain network has one layer and no dropout.
    "gru4rec": {"bias": False, "projected": False, "targets": "last", "read_padding": True, "dropout": 0.0},
    "bert4rec": {"mask_probability": 0.6, "copies": "last", "count_from": "oldest", "attend_padding": True},
}
"""What makes a head compute the plain network's function."""


def training(head: Head, variant: Variant, *, shared: dict[str, Any], **settings: Any) -> TrainIds:
    """The step that trains `head` on ids: the plain loop's function and loss, or our defaults.

    shared: settings of the head that both variants take (hidden, max_length, dropout). settings: those of the step.
    """
    if variant == "same":
        return TrainIds(
            head={"use": head, **shared, **SAME[head]}, objective={"use": "bce", "negatives": 1}, **settings
        )
    return TrainIds(**{"head": {"use": head, **shared}, "objective": "cross-entropy", **settings})


def train(step: TrainIds, corpus: Corpus, validation_targets: ValidationTargets) -> Ranker:
    """Run the step. One validation user, all but free, stands for the many: evaluation is timed by itself."""
    one = ValidationTargets(
        validation_targets.users[:1], validation_targets.targets[:1], validation_targets.candidates[:1]
    )
    with tempfile.TemporaryDirectory() as folder:
        return step.run(corpus, one, context(Path(folder)))


def evaluate(corpus: Corpus, test_targets: TestTargets, ranker: Ranker, users: int | None = None) -> Ranks:
    """Rank the first `users` test targets against the whole catalogue and the stored candidates."""
    judged = TestTargets(
        test_targets.users[:users],
        test_targets.targets[:users],
        test_targets.candidates[:users],
        test_targets.histories,
    )
    with tempfile.TemporaryDirectory() as folder:
        return Rank().run(corpus, judged, ranker, context(Path(folder)))
