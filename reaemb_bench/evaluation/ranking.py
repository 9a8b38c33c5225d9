"""From scores to ranks: how many items score above each target, and how many the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from reaemb_bench.artifacts import Float32, Int32, Int64, Ranks, Sequences
from reaemb_bench.context import Tick
from reaemb_bench.errors import UserError
from reaemb_bench.kinds import Scorer

NO_SAMPLE = -1
"""`sampled_better` of users without stored candidates, who have no sampled rank."""


def rank_targets(
    scorer: Scorer,
    histories: Sequences,
    users: Int64,
    targets: Int32,
    candidates: Int32,
    *,
    popularity: Int64,
    seen: Sequences | None = None,
    chunk: int = 256,
    report: Callable[[Tick], None] | None = None,
) -> Ranks:
    """Rank each target against the whole catalogue and, in the same pass, against its stored candidates.

    histories: sequences of all users, of which the scorer is handed those of `users` (n,), `chunk` users at once.
    targets: (n,). candidates: (n, sample), none of them the target. popularity: (items,) training interactions.
    seen: sequences of all users whose items leave the catalogue, by default the histories; the target itself always
    stays. Scores are compared exactly as they come, so equal ones count as tied.
    Raises UserError where a score is not a finite number.
    """
    seen = histories if seen is None else seen
    parts = []
    for start in range(0, len(users), chunk):
        rows = slice(start, start + chunk)
        scores = scorer.scores(histories.select(users[rows]))
        _check(scores, (len(users[rows]), len(popularity)))
        parts.append(_count(scores, targets[rows], candidates[rows], seen.select(users[rows])))
        if report is not None:
            report(Tick(min(start + chunk, len(users)), len(users), "users"))
    counts = np.concatenate(parts, axis=1) if parts else np.zeros((5, 0), dtype=np.int64)
    better, tied, sampled_better, sampled_tied, catalogue = counts
    return Ranks(
        users=users,
        targets=targets,
        better=better,
        tied=tied,
        sampled_better=sampled_better,
        sampled_tied=sampled_tied,
        popularity=popularity[targets],
        history=histories.lengths[users],
        catalogue=catalogue,
    )


def _check(scores: Float32, shape: tuple[int, int]) -> None:
    if scores.shape != shape:
        raise UserError(f"a scorer gave scores of shape {scores.shape}, not {shape} (users, items)")
    finite = np.isfinite(scores)
    if not finite.all():
        raise UserError(
            f"{int((~finite).sum())} of {scores.size} scores are not finite numbers, so they rank nothing; "
            "the recommender has diverged, and a lower learning rate may help"
        )


def _count(scores: Float32, targets: Int32, candidates: Int32, seen: Sequences) -> Int64:
    """Counts (5, n): better and tied in the catalogue, better and tied in the sample, size of the catalogue."""
    users, items = scores.shape
    rows = np.arange(users)
    wanted = scores[rows, targets][:, None]
    kept = np.ones((users, items), dtype=bool)
    kept[seen.owners, seen.items] = False
    kept[rows, targets] = True
    better = _per_row((scores > wanted) & kept)
    tied = _per_row((scores == wanted) & kept) - 1
    catalogue = _per_row(kept)

    sample = np.take_along_axis(scores, candidates.astype(np.int64), axis=1)
    sampled_better, sampled_tied = _per_row(sample > wanted), _per_row(sample == wanted)
    if not candidates.shape[1]:
        sampled_better[:] = NO_SAMPLE
    return np.stack([better, tied, sampled_better, sampled_tied, catalogue])


def _per_row(marks: npt.NDArray[np.bool_]) -> Int64:
    """How many are true in each row."""
    # Adding bytes is twice as fast as adding booleans.
    counted: Int64 = marks.view(np.uint8).sum(axis=1, dtype=np.uint32).astype(np.int64)
    return counted
