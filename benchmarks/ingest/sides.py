"""Each side's whole job in one function, and what came of it, so that the two can be compared."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from benchmarks.measuring import clocked, forget_peak, peak
from reaemb_bench.core.artifacts import Corpus, TestTargets, ValidationTargets

MINIMUM = 5
CANDIDATES = 100


def plain(reviews: Path, metadata: Path) -> dict[str, Any]:
    """Seconds and peak bytes of the plain loop, and what it made."""
    from benchmarks.ingest.plain import prepare

    forget_peak()
    with clocked() as spent:
        corpus = prepare(reviews, metadata, MINIMUM, CANDIDATES)
    held = peak()
    sequences = [corpus.users, corpus.training, corpus.validation, corpus.test]
    return {
        "wall_seconds": spent.wall,
        "cpu_seconds": spent.cpu,
        "peak_bytes": held,
        "made": facts(sequences, corpus.texts, corpus.candidates),
    }


def ours(reviews: Path, metadata: Path) -> dict[str, Any]:
    """Seconds and peak bytes of the step `prepare`, and what it made."""
    from reaemb_bench.core.component import Context
    from reaemb_bench.core.machine import Machine
    from reaemb_bench.core.registry import build
    from reaemb_bench.data.prepare import Prepare

    step = build(
        "step",
        {
            "use": "prepare",
            "source": {"use": "amazon-2023", "reviews": reviews, "metadata": metadata},
            "filters": [{"use": "k-core", "user_minimum": MINIMUM, "item_minimum": MINIMUM}],
            "sampled_candidates": CANDIDATES,
        },
    )
    assert isinstance(step, Prepare)
    forget_peak()
    with clocked() as spent:
        corpus, validation_targets, test_targets = step.run(
            Context(1, Machine(), lambda tick: None, lambda noted: None, Path())
        )
    held = peak()
    return {
        "wall_seconds": spent.wall,
        "cpu_seconds": spent.cpu,
        "peak_bytes": held,
        "made": facts(*_in_words(corpus, validation_targets, test_targets)),
    }


def facts(sequences: list[Any], texts: dict[str, str], candidates: int) -> dict[str, Any]:
    """How much was made, and the sha256 of all of it but the candidates, which are drawn at random."""
    content = json.dumps([sequences, texts]).encode()
    return {
        "users": len(sequences[0]),
        "items": len(texts),
        "interactions": sum(map(len, sequences[1])) + 2 * len(sequences[0]),
        "candidates": candidates,
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _in_words(
    corpus: Corpus, validation_targets: ValidationTargets, test_targets: TestTargets
) -> tuple[list[Any], dict[str, str], int]:
    keys = corpus.item_keys
    training = [[keys[item] for item in corpus.training.of(user)] for user in range(corpus.users)]
    targets = [[keys[item] for item in part.targets] for part in (validation_targets, test_targets)]
    texts = dict(zip(keys, corpus.texts, strict=True))
    return (
        [list(corpus.user_keys), training, *targets],
        texts,
        validation_targets.candidates.size + test_targets.candidates.size,
    )
