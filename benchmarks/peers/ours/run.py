"""Time and test SASRec as this project trains and evaluates it, under the settings that the peers are given.

An epoch is one row a user with a target at each position; nothing is computed at padding.
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import clocked, limit_threads, written
from benchmarks.peers.settings import Best, Settings, answer, arguments, epoch, evaluation

if TYPE_CHECKING:
    from reaemb_bench.core.artifacts import Corpus, Ranker, ValidationTargets
    from reaemb_bench.core.component import Progress
    from reaemb_bench.recommender.fit import TrainIds

TIMED_EPOCHS = 3


def main() -> None:
    """Print the result as JSON."""
    settings = arguments(__doc__.splitlines()[0], batch_size=128, heads=1, dropout=0.2)
    limit_threads(settings.threads)
    print(written(measure(settings), settings.out))


def measure(settings: Settings) -> dict[str, Any]:
    """Time epochs without validation, then train once more with it, evaluate, and say what was measured."""
    import torch

    import reaemb_bench
    from benchmarks.recommenders.data import prepared
    from benchmarks.recommenders.ours import evaluate, train
    from reaemb_bench.evaluation.metrics import hit_rate, ndcg

    torch.set_num_threads(settings.threads)
    corpus, validation_targets, test_targets = prepared(source(settings.interactions))
    epochs = []
    for _ in range(TIMED_EPOCHS):
        with clocked() as spent:
            ranker = train(step(settings, epochs=1), corpus, validation_targets)
        epochs.append(spent)
    test: dict[str, float] = {}
    if settings.max_steps is None:
        ranker, test = validated(step(settings, epochs=settings.epochs), corpus, validation_targets)
    with clocked() as spent:
        ranks = evaluate(corpus, test_targets, ranker)
    rows = int((corpus.training.lengths > 1).sum())
    steps = -(-rows // settings.batch_size)
    return answer(
        "reaemb-bench",
        reaemb_bench.__version__,
        settings,
        training=epoch(
            epochs,
            steps,
            steps,
            holds=f"{rows} rows, one a user, without padding, a target at each position; set-up included",
        ),
        testing=evaluation(
            spent,
            len(test_targets.users),
            does="the rank step: exact ranks in the catalogue without seen items, 10 best",
        ),
        test={
            **test,
            "ndcg@10": float(ndcg(ranks.better, ranks.tied, 10).mean()),
            "hr@10": float(hit_rate(ranks.better, ranks.tied, 10).mean()),
        },
    )


def source(interactions: Path) -> dict[str, Any]:
    """The recipe table that reads the file by the names of its first three columns; items carry no text."""
    with interactions.open(encoding="utf-8", newline="") as lines:
        user, item, position, *_ = next(csv.reader(lines))
    return {
        "use": "table",
        "interactions": str(interactions),
        "items": str(interactions),
        "user": user,
        "item": item,
        "timestamp": position,
        "item_key": item,
        "title": "",
    }


def step(settings: Settings, *, epochs: int) -> TrainIds:
    """The step that a recipe would run."""
    from reaemb_bench.recommender.fit import TrainIds

    head = {
        "use": "sasrec",
        "hidden": settings.hidden,
        "max_length": settings.max_length,
        "blocks": settings.blocks,
        "attention_heads": settings.heads,
        "dropout": settings.dropout,
    }
    options = {
        "head": head,
        "objective": "cross-entropy",
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "epochs": epochs,
        "patience": settings.patience,
        "trend": False,
    }
    return TrainIds(**options)


def validated(
    training: TrainIds, corpus: Corpus, validation_targets: ValidationTargets
) -> tuple[Ranker, dict[str, float]]:
    """The recommender at its best epoch, and which that was."""
    from benchmarks.recommenders.data import context

    best = Best()

    def report(tick: Progress) -> None:
        best.offer(tick.values["validation/ndcg@10"], lambda: None)

    with tempfile.TemporaryDirectory() as folder:
        ranker = training.run(corpus, validation_targets, context(Path(folder), report))
    return ranker, best.facts()


if __name__ == "__main__":
    main()
