"""Co-occurrence and candidate lists: against a plain loop at the size of Games, and alone at 20 million interactions.

Histories are random: lengths from 5 fall off log-normally to several hundreds, popularity as 1 / rank ** 0.8. The
large ones have the same lengths and as many more users and items. Each large size runs in a process of its own. Both
sides use one thread, and their seconds are those of the processor, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from benchmarks.measuring import clocked, limit_threads, machine, peak, table, written

if TYPE_CHECKING:
    from reaemb_bench.core.artifacts import Sequences

ROOT = Path(__file__).parents[2]
RESULT = Path(__file__).parents[1] / "results" / "cooccurrence.json"
SEED = 42
GAMES = {"users": 50_207, "items": 16_142, "interactions": 364_431}
LARGE = 20_000_000
POSITIVES, CANDIDATES = 1, 10
SHORTEST = 5
COMPONENTS = ("whole-history", "window", "distance-decay")

Measured = dict[str, Any]
T = TypeVar("T")


def main() -> None:
    """Measure both sizes and print Markdown, or, for a process that this one started, one component at one size."""
    options = arguments()
    limit_threads(1)
    if options.one:
        print(json.dumps(one(options.one, options.users, options.items, options.interactions)))
        return
    games = {"users": options.users, "items": options.items, "interactions": options.interactions}
    larger = {name: round(count * options.large / options.interactions) for name, count in games.items()}
    result = {
        "machine": {**machine(), "threads": 1},
        "seed": SEED,
        "lists": {"positives": POSITIVES, "candidates": CANDIDATES},
        "games": {**games, **against_plain(games, options.repeats)},
        "large": {**larger, "components": {name: in_a_process(name, larger) for name in COMPONENTS}},
    }
    written(result, options.out)
    print(markdown(result))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for name, count in GAMES.items():
        parser.add_argument(f"--{name}", type=int, default=count, help=f"{name} of the smaller size")
    parser.add_argument("--large", type=int, default=LARGE, help="interactions of the larger size")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of both sides in turn; medians are shown")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--one", choices=COMPONENTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def simulated(users: int, items: int, interactions: int) -> Sequences:
    """Random histories of exactly this size, none shorter than 5, with a heavy tail of lengths and of popularity."""
    import numpy as np

    from reaemb_bench.core.artifacts import Sequences

    rng = np.random.default_rng(SEED)
    extra = np.floor(rng.lognormal(0.3, 1.2, users)).astype(np.int64)
    while (missing := interactions - SHORTEST * users - int(extra.sum())) != 0:
        some = rng.choice(users, size=min(abs(missing), users), replace=False)
        extra[some] = np.maximum(extra[some] + np.sign(missing), 0)
    shares = np.cumsum(np.arange(1, items + 1) ** -0.8)
    drawn = np.searchsorted(shares, rng.random(interactions) * shares[-1])
    offsets = np.concatenate([[0], np.cumsum(SHORTEST + extra)])
    return Sequences(rng.permutation(items)[drawn].astype(np.int32), offsets)


def against_plain(size: dict[str, int], repeats: int) -> Measured:
    """Seconds of the plain loop, both ways of drawing, and of ours; raises where their counts differ."""
    from benchmarks.cooccurrence import plain
    from reaemb_bench.data.cooccurrence import cooccurrence
    from reaemb_bench.rl.candidates import draw_candidates

    sequences, items = simulated(**size), size["items"]
    histories = [sequences.of(user).tolist() for user in range(sequences.users)]
    # The first pass also loads libraries.
    pairs = cooccurrence(sequences, items)
    met = plain.count(histories, items)
    drawn = draw_candidates(pairs, POSITIVES, CANDIDATES, SEED)
    check(met, plain.draw(met, POSITIVES, CANDIDATES, SEED), pairs, drawn.items.tolist())
    taken = [
        (
            seconds(lambda: plain.count(histories, items))[1],
            seconds(lambda: plain.draw(met, POSITIVES, CANDIDATES, SEED))[1],
            seconds(lambda: plain.draw_by_rejection(met, POSITIVES, CANDIDATES, SEED))[1],
            seconds(lambda: cooccurrence(sequences, items))[1],
            seconds(lambda: draw_candidates(pairs, POSITIVES, CANDIDATES, SEED))[1],
        )
        for _ in range(repeats)
    ]
    medians = [statistics.median(timing) for timing in zip(*taken, strict=True)]
    counting, drawing, rejecting, our_counting, our_drawing = medians
    ours = {"counting_seconds": our_counting, "drawing_seconds": our_drawing}
    by_plain = {"counting_seconds": counting, "drawing_seconds": drawing, "drawing_by_rejection_seconds": rejecting}
    total = our_counting + our_drawing
    return {
        "pairs": int(pairs.nnz),
        "longest": int(sequences.lengths.max()),
        "plain": by_plain,
        "ours": ours,
        "times_faster": (counting + drawing) / total,
        "times_faster_than_rejection": (counting + rejecting) / total,
    }


def check(met: list[dict[int, int]], lists: dict[int, list[int]], pairs: Any, listed: list[int]) -> None:
    """Both sides counted the same and list the same items; raises ValueError otherwise."""
    by_ours = [dict(zip(row.indices.tolist(), row.data.tolist(), strict=True)) for row in rows_of(pairs)]
    if by_ours != met or listed != list(lists):
        raise ValueError("the plain loop and ours count differently")


def rows_of(pairs: Any) -> list[Any]:
    """The rows of a sparse matrix, one by one."""
    return [pairs[[row]] for row in range(pairs.shape[0])]


def one(component: str, users: int, items: int, interactions: int) -> Measured:
    """Seconds and the peak of memory of this process, the histories included."""
    from reaemb_bench.core.registry import build
    from reaemb_bench.rl.candidates import draw_candidates

    component: Any = build("cooccurrence", component)
    sequences = simulated(users, items, interactions)
    pairs, counting = seconds(lambda: component.counts(sequences, items))
    drawn, drawing = seconds(lambda: draw_candidates(pairs, POSITIVES, CANDIDATES, SEED))
    return {
        "settings": component.spec(),
        "pairs": int(pairs.nnz),
        "lists": len(drawn.items),
        "without_neighbours": drawn.without_neighbours,
        "counting_seconds": counting,
        "drawing_seconds": drawing,
        "peak_bytes": peak(),
    }


def in_a_process(component: str, size: dict[str, int]) -> Measured:
    """What `one` measures, in a process of its own, whose peak is nobody else's."""
    command = [sys.executable, "-m", "benchmarks.cooccurrence.run", "--one", component]
    for name, count in size.items():
        command += [f"--{name}", str(count)]
    said = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    measured: Measured = json.loads(said)
    return measured


def seconds(work: Callable[[], T]) -> tuple[T, float]:
    """What `work` gives, and the processor seconds that it took."""
    with clocked() as spent:
        answer = work()
    return answer, spent.cpu


def markdown(result: Measured) -> str:
    """Both tables and the machine."""
    games, large, facts = result["games"], result["large"], result["machine"]
    counting, drawing, rejecting = games["plain"].values()
    timings = {
        "plain loop, sets of strangers": (counting, drawing, f"{games['times_faster']:.0f} times"),
        "plain loop, rejection": (counting, rejecting, f"{games['times_faster_than_rejection']:.0f} times"),
        "ours": (*games["ours"].values(), ""),
    }
    rows = [[name, f"{a:.2f}", f"{b:.2f}", f"{a + b:.2f}", times] for name, (a, b, times) in timings.items()]
    components = [
        [
            name,
            f"{size['pairs']:,}",
            f"{size['counting_seconds']:.1f}",
            f"{size['drawing_seconds']:.1f}",
            f"{size['peak_bytes'] / 1e9:.1f}",
        ]
        for name, size in large["components"].items()
    ]
    return "\n".join(
        [
            f"{games['users']:,} users, {games['items']:,} items, {games['interactions']:,} interactions:",
            "",
            table(("", "counting (s)", "lists (s)", "both (s)", "ours is faster"), rows),
            "",
            f"{large['users']:,} users, {large['items']:,} items, {large['interactions']:,} interactions:",
            "",
            table(("", "pairs of items", "counting (s)", "lists (s)", "peak memory (10^9 bytes)"), components),
            "",
            f"{facts['processor']}, 1 of {facts['cores']} cores, processor seconds, {facts['date']}",
        ]
    )


if __name__ == "__main__":
    main()
