"""Compare the steps of the language model with the plain way through it, side by side in one process.

Before anything is timed, both ways must give the same numbers in float32: values within 1e-5, gradients within 1e-4 of
their norm. Then they run in turn, several times over, and the middle one of the times counts. Multiplications and
additions are counted too: they depend on neither the machine nor its load.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from benchmarks.measuring import clocked, limit_threads, machine, table, where, written

if TYPE_CHECKING:
    from benchmarks.encoder.models import Name
    from benchmarks.encoder.stages import Outcome, Pair
    from reaemb_bench.core.artifacts import Corpus
    from reaemb_bench.core.machine import Machine

RESULTS = Path(__file__).parents[1] / "results"
Stage = Literal["encode", "lrcl", "crrl", "crrl-first", "crrl-paper"]
STAGES: tuple[Stage, ...] = get_args(Stage)
WORDS: dict[Stage, str] = {
    "encode": "encode",
    "lrcl": "LRCL step",
    "crrl": "CRRL step",
    "crrl-first": "CRRL step, prompts unread",
    "crrl-paper": "CRRL step, paper's policy",
}
VALUES, GRADIENTS = 1e-5, 1e-4
SHORTEST = 0.25
"""Seconds that a timing takes at least: a single run of a few milliseconds measures the cold caches."""
Measured = dict[str, Any]


def main() -> None:
    """Measure, write the result file, print the table."""
    options = arguments()
    limit_threads(options.threads)
    import torch

    from reaemb_bench.core.machine import Machine

    torch.set_num_threads(options.threads)
    device = Machine(device=options.device, precision=options.precision, micro_batch=options.micro_batch)
    result: Measured = {
        "machine": {**machine(), "device": _device_name(device)},
        "settings": {
            name: getattr(options, name)
            for name in ("items", "pairs", "groups", "layers", "vocabulary", "batch", "micro_batch", "precision")
        }
        | {"repeats": options.repeats, "G": 8, "N": 10, "iterations": 2},
        "rows": [],
    }
    for folder in [*([None] if options.movielens else []), *options.data]:
        corpus = texts(folder)
        for name in options.models:
            for stage in options.stages:
                result["rows"].append(row(stage, name, corpus, device, options))
                written(result, options.out)
    print(markdown(result))


def arguments() -> argparse.Namespace:
    """The command line."""
    from benchmarks.encoder.models import NAMES

    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--movielens", action=argparse.BooleanOptionalAction, default=True, help="texts of MovieLens")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders of interactions.csv and items.jsonl")
    parser.add_argument("--models", nargs="+", choices=NAMES, default=["tiny", "smollm2-135m"])
    parser.add_argument("--layers", type=int, help="blocks to keep; without it, all (tiny has 2)")
    parser.add_argument("--vocabulary", type=int, help="vocabulary of random weights; without it, the published one")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--items", type=int, default=64, help="texts that are encoded")
    parser.add_argument("--pairs", type=int, default=32, help="pairs of views of an LRCL step")
    parser.add_argument("--groups", type=int, default=4, help="items of a CRRL step")
    parser.add_argument("--batch", type=int, default=32, help="sequences at once, the plain way")
    parser.add_argument("--micro-batch", type=int, help="prompts at once, our way; without it, ours chooses")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="what is timed")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of both ways")
    parser.add_argument("--repeats", type=int, default=3, help="times that both ways run")
    parser.add_argument("--out", type=Path, default=RESULTS / "encoder.json")
    return parser.parse_args()


def texts(folder: Path | None) -> Corpus:
    """A corpus with the prompts' real texts: MovieLens-100K, or items with title and categories."""
    from benchmarks.recommenders.data import prepared, table

    return (prepared({"use": "movielens-100k"}) if folder is None else table(folder, "title", "categories"))[0]


def row(stage: Stage, name: Name, corpus: Corpus, device: Machine, options: argparse.Namespace) -> Measured:
    """One row of the table: what both ways cost, and how far apart their numbers are."""
    checked = device.model_copy(update={"precision": "float32"})
    apart = agreement(pair(stage, name, corpus, checked, options))
    two = pair(stage, name, corpus, device, options)
    work = {side: _flops(run) for side, run in (("plain", two.plain), ("ours", two.ours))}
    times: dict[str, list[tuple[float, float]]] = {"plain": [], "ours": []}
    for repeat in range(options.repeats):
        for side, run in (("plain", two.plain), ("ours", two.ours)):
            two.settle()
            times[side].append(_timed(run, device))
            print(f"{repeat + 1}/{options.repeats} {stage} {name} {side}: {times[side][-1][0]:.2f} s", file=sys.stderr)
    sides = {side: _middle(times[side], work[side]) for side in times}
    return {
        "stage": stage,
        "model": name,
        "data": corpus.name,
        "prompts": two.prompts,
        "tokens": two.tokens,
        **sides,
        "apart": apart,
    }


def pair(stage: Stage, name: Name, corpus: Corpus, device: Machine, options: argparse.Namespace) -> Pair:
    """Both ways of a step, from fresh weights."""
    from benchmarks.encoder import stages
    from benchmarks.encoder.models import model
    from reaemb_bench.encoder.poolings import Mean, Thought
    from reaemb_bench.rl.policies import Gaussian, TokenLogprobPaper

    # With a mean over all tokens, random thoughts change rewards by little more than rounding does.
    pooling = Thought() if stage.startswith("crrl") else Mean()
    thought_model = model(name, corpus, device, options.layers if name != "tiny" else None, options.vocabulary, pooling)
    if stage == "encode":
        return stages.encode(thought_model, corpus, device, options.items, options.batch)
    if stage == "lrcl":
        return stages.lrcl(thought_model, corpus, device, options.pairs)
    policy = TokenLogprobPaper() if stage == "crrl-paper" else Gaussian()
    first = stage == "crrl-first"
    return stages.crrl(thought_model, corpus, device, options.groups, options.batch, policy=policy, first=first)


def agreement(two: Pair) -> Measured:
    """How far apart the numbers of both ways are. Raises SystemExit if they are not the same."""
    two.settle()
    plain = two.plain()
    two.settle()
    ours = two.ours()
    two.settle()
    values = float((plain.values - ours.values).abs().max())
    gradients = _gradients_apart(plain, ours)
    # Rounding grows with the numbers it happens to; vectors of real models are far from 1.
    if values > VALUES * max(1.0, float(plain.values.abs().max())) or gradients > GRADIENTS:
        raise SystemExit(f"the two ways differ: values by {values:.1e}, gradients by {gradients:.1e} of their norm")
    return {"values": values, "gradients": gradients if plain.gradients else None}


def _gradients_apart(plain: Outcome, ours: Outcome) -> float:
    """The norm of the difference of all gradients together, as a share of their norm."""
    if len(plain.gradients) != len(ours.gradients):
        raise SystemExit("the two ways differ in which weights have gradients")
    apart = sum(float((one - two).square().sum()) for one, two in zip(plain.gradients, ours.gradients, strict=True))
    size = sum(float(one.square().sum()) for one in plain.gradients)
    if plain.gradients and not size:
        raise SystemExit("all gradients are zero: there is nothing to compare")
    return (apart / size) ** 0.5 if size else 0.0


def _flops(run: Callable[[], Outcome]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def _timed(run: Callable[[], Outcome], device: Machine) -> tuple[float, float]:
    """Wall and CPU seconds of one run, the mean of as many as fill a quarter of a second."""
    import torch

    cuda = device.torch_device().type == "cuda"
    runs, wall, cpu = 0, 0.0, 0.0
    while wall < SHORTEST:
        if cuda:
            torch.cuda.synchronize()
        with clocked() as spent:
            run()
            if cuda:
                torch.cuda.synchronize()
        runs, wall, cpu = runs + 1, wall + spent.wall, cpu + spent.cpu
    return wall / runs, cpu / runs


def _middle(times: list[tuple[float, float]], flops: int) -> Measured:
    walls = [wall for wall, _ in times]
    return {
        "wall_seconds": statistics.median(walls),
        "wall_seconds_range": [min(walls), max(walls)],
        "cpu_seconds": statistics.median(cpu for _, cpu in times),
        "flops": flops,
    }


def _device_name(device: Machine) -> str:
    import torch

    chosen = device.torch_device()
    return torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else chosen.type


HEADINGS = ("texts", "model", "step", "prompts", "plain s", "ours s", "times", "plain GFLOP", "ours GFLOP", "times")


def cells(row: Measured) -> list[str]:
    """A row of the table."""
    plain, ours = row["plain"], row["ours"]
    return [
        row["data"],
        row["model"],
        WORDS[row["stage"]],
        f"{row['prompts']}",
        f"{plain['wall_seconds']:,.2f}",
        f"{ours['wall_seconds']:,.3f}",
        f"{plain['wall_seconds'] / ours['wall_seconds']:,.1f}x",
        f"{plain['flops'] / 1e9:,.1f}",
        f"{ours['flops'] / 1e9:,.2f}",
        f"{plain['flops'] / ours['flops']:,.1f}x",
    ]


def markdown(result: Measured) -> str:
    """The table, and what its reader must know."""
    facts, settings = result["machine"], result["settings"]
    values = max(row["apart"]["values"] for row in result["rows"])
    gradients = max(row["apart"]["gradients"] or 0 for row in result["rows"])
    return "\n".join(
        [
            table(HEADINGS, map(cells, result["rows"]), left=3),
            "",
            f"Median of {settings['repeats']}; {settings['layers'] or 'all'} blocks (tiny: 2); G = 8, N = 10; "
            f"{settings['precision']}.",
            f"In float32 both ways agree: values within {values:.0e}, gradients within {gradients:.0e} of their norm.",
            f"{facts['device']}: {where(facts)}.",
        ]
    )


if __name__ == "__main__":
    main()
