"""Which of a run's item vectors are meant, and the encoder from which they came."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from reaemb_bench.artifacts import Corpus, Encoder, Ranker, Vectors
from reaemb_bench.errors import UserError
from reaemb_bench.runs import Result, Run, artifact_of
from reaemb_bench.store import Store

Which = Literal["reduced", "encoded", "ranker"]

MEANING: dict[Which, str] = {
    "reduced": "what the recommender was given",
    "encoded": "as the text encoder made them, before any reduction",
    "ranker": "as the trained recommender reads them; its scores are their inner products with a user's state",
}


@dataclass(frozen=True)
class Chosen:
    """Item vectors, the corpus whose items they are, and the step that made them with its key in the store."""

    corpus: Corpus
    vectors: Vectors
    step: str
    key: str


def place_of(run: Run, seed: int | None) -> int:
    """The place of a seed among the run's, the first where none is named. Raises UserError where it was not run."""
    if seed is None:
        return 0
    if seed not in run.seeds:
        raise UserError(f"run {run.id} ({run.name}) has no seed {seed}, but {', '.join(map(str, run.seeds))}")
    return run.seeds.index(seed)


def choose(run: Run, store: Store, which: Which, place: int) -> Chosen:
    """The vectors of all items of the corpus that a run made with the seed at `place`.

    Raises UserError where it made none, the store lost them, or they are not one an item.
    """
    asked = _until_encoded(run) if which == "encoded" else run
    kind = Ranker if which == "ranker" else Vectors
    made = _last(asked, kind.__name__, place)
    if made is None:
        raise UserError(f"run {run.id} ({run.name}) makes no {kind.__name__}; choose other --vectors")
    found = artifact_of(asked, store, kind, place)
    vectors = _of_ranker(run, found) if isinstance(found, Ranker) else found
    corpus: Corpus = artifact_of(asked, store, Corpus, place)
    if vectors.items != corpus.items:
        raise UserError(f"step '{made.step}' of run {run.id} made {vectors.items} vectors for {corpus.items} items")
    return Chosen(corpus, vectors, made.step, made.key)


def encoder_of(run: Run, store: Store, place: int) -> Encoder | None:
    """The encoder as it was when the first vectors were made; None where the recipe has none."""
    asked = _until_encoded(run)
    return artifact_of(asked, store, Encoder, place) if asked.key_of(Encoder, place) is not None else None


def encoded_by(run: Run, place: int) -> str:
    """Name of the step that made the first vectors, empty where none did."""
    made = _last(_until_encoded(run), Vectors.__name__, place)
    return made.step if made is not None else ""


def _of_ranker(run: Run, ranker: Ranker) -> Vectors:
    table = ranker.tensors.get("vectors")
    if table is None or table.ndim != 2:
        raise UserError(f"the recommender of run {run.id} ({run.name}) keeps no table of item vectors")
    return Vectors(table)


def _last(run: Run, artifact: str, place: int) -> Result | None:
    return next((each for each in reversed(run.results[place]) if artifact in each.makes), None)


def _until_encoded(run: Run) -> Run:
    """The run as it stood behind the first step that made vectors."""

    def until(results: tuple[Result, ...]) -> tuple[Result, ...]:
        first = next((place for place, each in enumerate(results) if Vectors.__name__ in each.makes), len(results))
        return results[: first + 1]

    return replace(run, results=tuple(map(until, run.results)))
