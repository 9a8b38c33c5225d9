"""From scores to ranks: how many items score above each target, and how many the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reaemb_bench.artifacts import Float32, Int32, Int64, Ranks, Sequences
from reaemb_bench.context import Tick
from reaemb_bench.errors import UserError
from reaemb_bench.evaluation.counting import count_above
from reaemb_bench.evaluation.recommending import best_items
from reaemb_bench.kinds import Scorer

NO_SAMPLE = -1
"""`sampled_better` of users without stored candidates, who have no sampled rank."""
CHUNK = 256
"""Users that a scorer is handed at once, at most."""
CHUNK_SCORES = 1 << 23
"""Scores that a scorer is asked for at once, at most: 32 MB of them."""


def rank_targets(
    scorer: Scorer,
    histories: Sequences,
    users: Int64,
    targets: Int32,
    candidates: Int32,
    *,
    popularity: Int64,
    seen: Sequences | None = None,
    top: int = 0,
    chunk: int | None = None,
    report: Callable[[Tick], None] | None = None,
) -> Ranks:
    """Rank each target against the whole catalogue and, in the same pass, against its stored candidates.

    histories: sequences of all users, of which the scorer is handed those of `users` (n,), `chunk` users at once; by
    default 256, or as many fewer as keep their scores within 32 MB. targets: (n,). candidates: (n, sample), none of
    them the target. popularity: (items,) training interactions. seen: sequences of all users whose items leave the
    catalogue, by default the histories; the target itself always stays. top: how many recommended items to list for
    each user, see `reaemb_bench.evaluation.recommending`. Scores are compared exactly as they come, so equal ones count
    as tied. Raises UserError where a score is not a finite number.
    """
    items = len(popularity)
    excluded = _excluded((histories if seen is None else seen).select(users), targets, items)
    chunk = chunk or max(1, min(CHUNK, CHUNK_SCORES // items))
    counts = np.empty((4, len(users)), dtype=np.int64)
    recommended = np.empty((len(users), top), dtype=np.int32)
    for start in range(0, len(users), chunk):
        rows = np.arange(start, min(start + chunk, len(users)))
        scores = scorer.scores(histories.select(users[rows]))
        _check(scores, (len(rows), items))
        gone = excluded.select(rows)
        counts[:, rows] = _count(scores, targets[rows], candidates[rows], gone)
        if top:
            recommended[rows] = best_items(scores, gone, users[rows], top)
        if report is not None:
            report(Tick(start + len(rows), len(users), "users"))
    better, tied, sampled_better, sampled_tied = counts
    return Ranks(
        users=users,
        targets=targets,
        better=better,
        tied=tied,
        sampled_better=sampled_better,
        sampled_tied=sampled_tied,
        popularity=popularity[targets],
        history=histories.lengths[users],
        catalogue=items - excluded.lengths,
        recommended=recommended,
        item_popularity=popularity,
    )


def _excluded(seen: Sequences, targets: Int32, items: int) -> Sequences:
    """What leaves each user's catalogue: the items of `seen`, each once, without the user's target."""
    # A sort is several times faster than np.unique, which hashes.
    places = np.sort(seen.owners * items + seen.items)
    owners, numbers = np.divmod(places, items)
    gone = (np.diff(places, prepend=-1) > 0) & (numbers != targets[owners])
    lengths = np.bincount(owners[gone], minlength=seen.users)
    return Sequences(numbers[gone].astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def _check(scores: Float32, shape: tuple[int, int]) -> None:
    if scores.shape != shape:
        raise UserError(f"a scorer gave scores of shape {scores.shape}, not {shape} (users, items)")
    if not np.issubdtype(scores.dtype, np.floating):
        raise UserError(f"a scorer gave scores of type {scores.dtype}, not float32")


def _count(scores: Float32, targets: Int32, candidates: Int32, excluded: Sequences) -> Int64:
    """Counts (4, n): better and tied in the catalogue, better and tied in the sample."""
    wanted = scores[np.arange(len(targets)), targets]
    better, tied = count_above(scores, wanted)
    gone, mark = scores[excluded.owners, excluded.items], wanted[excluded.owners]
    better -= np.bincount(excluded.owners[gone > mark], minlength=len(targets))
    tied -= np.bincount(excluded.owners[gone == mark], minlength=len(targets)) + 1

    sample = np.take_along_axis(scores, candidates.astype(np.int64), axis=1)
    sampled_better = np.count_nonzero(sample > wanted[:, None], axis=1)
    sampled_tied = np.count_nonzero(sample == wanted[:, None], axis=1)
    if not candidates.shape[1]:
        sampled_better[:] = NO_SAMPLE
    return np.stack([better, tied, sampled_better, sampled_tied])
