"""Memory that encoding and reducing many items needs: `python -m benchmarks.encoder.stream --items 200000`.

Item texts are a part of the corpus and stay in memory; token ids and vectors need not. Counted is what the process
holds at most beyond what it held once the corpus was there and a few items had been encoded and reduced. With
`--limit-mib` the process may not even map more than that, so that a step which held everything would fail.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measuring import MIB, clocked, forget_peak, limit_threads, machine, peak, resident, written
from reaemb_bench.core.artifacts import Corpus, Encoder, Sequences, Vectors

_WARM_UP = 500
_DIMENSIONS = 32
_MICRO_BATCH = 128
_COLOURS = ("red", "green", "blue", "black", "white")
_KINDS = ("puzzle", "racing", "strategy", "sports", "music", "cards", "quiz")


def main() -> None:
    """Measure, and print the result as JSON."""
    options = arguments()
    limit_threads(options.threads)
    print(written(measure(options), options.out))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and growth of memory in both steps, and the size of what they do not hold."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        encoder = tiny_encoder(options.hidden, folder)
        before = resident()
        corpus = simulated(options.items)
        held = resident() - before
        encode(simulated(_WARM_UP), encoder, folder / "warm")
        reduce(folder / "warm")
        if options.limit_mib is not None:
            limit = mapped() + options.limit_mib * MIB
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        facts: dict[str, Any] = {}
        encoding = spent(lambda: facts.update(encode(corpus, encoder, folder / "all")))
        reducing = spent(lambda: reduce(folder / "all"))
        return {
            "items": options.items,
            "width": Vectors.load(folder / "all" / "encoded").width,
            "tokens": facts["tokens"],
            "encode": {**encoding, "items_per_second": round(options.items / encoding["seconds"])},
            "reduce": reducing,
            "sizes_mib": {
                "corpus": round(held / MIB),
                # A list of Python's numbers holds a pointer of 8 bytes for each, and most token ids take 28 more.
                "token_ids": round(facts["tokens"] * 36 / MIB),
                "vectors": round(options.items * options.hidden * 4 / MIB),
                "reduced": round(options.items * _DIMENSIONS * 4 / MIB),
            },
            "machine": machine(),
        }


def spent(work: Callable[[], object]) -> dict[str, float]:
    """Wall seconds of `work`, and MiB of memory that it held at most beyond what was held before."""
    before = resident()
    forget_peak()
    with clocked() as clock:
        work()
    return {"seconds": round(clock.wall, 1), "grown_mib": round((peak() - before) / MIB)}


def encode(corpus: Corpus, encoder: Encoder, folder: Path) -> dict[str, Any]:
    """Run the step `encode` and write its result to `folder / "encoded"`; the facts that it notes."""
    from reaemb_bench.core.component import Context
    from reaemb_bench.core.machine import Machine
    from reaemb_bench.encoder.embed import Encode

    scratch, result = folder / "scratch", folder / "encoded"
    scratch.mkdir(parents=True)
    result.mkdir()
    facts: dict[str, Any] = {}
    here = Context(0, Machine(device="cpu", micro_batch=_MICRO_BATCH), lambda tick: None, facts.update, scratch)
    Encode().run(corpus, encoder, here).save(result)
    return facts


def reduce(folder: Path) -> None:
    """Run the step `reduce` on what `encode` wrote, and write its result."""
    from reaemb_bench.encoder.reducers import PCA

    result = folder / "reduced"
    result.mkdir()
    PCA(dimensions=_DIMENSIONS).reduce(Vectors.load(folder / "encoded")).save(result)


def tiny_encoder(hidden: int, folder: Path) -> Encoder:
    """One block of the tiny backbone with a reasoner, its tokenizer trained on a few of the texts."""
    from reaemb_bench.core.component import Context
    from reaemb_bench.core.machine import Machine
    from reaemb_bench.core.registry import build
    from reaemb_bench.encoder.folder import LanguageModel

    step = build("step", {"use": "llm", "backbone": {"use": "tiny", "layers": 1, "hidden": hidden}})
    assert isinstance(step, LanguageModel)
    here = Context(0, Machine(device="cpu"), lambda tick: None, lambda facts: None, folder)
    return step.run(simulated(_WARM_UP), here)


def simulated(items: int) -> Corpus:
    """Items of which nobody has bought any, with texts of different lengths."""
    import numpy as np

    texts = tuple(
        f"title is Game number {item}; category is {_KINDS[item % 7]}; colour is {_COLOURS[item % 5]}; "
        f"price is {item % 90}.99; description is {'a long story about it ' * (item % 4)}end"
        for item in range(items)
    )
    return Corpus(
        name="simulated",
        training=Sequences(np.zeros(0, dtype=np.int32), np.zeros(2, dtype=np.int64)),
        item_keys=tuple(map(str, range(items))),
        user_keys=("u0",),
        instruction="",
        texts=texts,
        titles=("",) * items,
    )


def mapped() -> int:
    """Bytes of address space that this process has mapped (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--hidden", type=int, default=64, help="width of the vectors")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit-mib", type=int, help="most memory that may be mapped beyond the corpus")
    parser.add_argument("--out", type=Path, help="file for the result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
