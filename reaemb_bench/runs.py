"""What was run: one small file a run in the store, so that later questions find its results without planning again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from reaemb_bench.artifacts import Corpus, Floors, Ranks
from reaemb_bench.environment import git_state
from reaemb_bench.errors import UserError
from reaemb_bench.files import sealed_json, unsealed, write_atomically
from reaemb_bench.pipeline import Plan
from reaemb_bench.registry import nearest
from reaemb_bench.store import Store

Kind = Literal["run", "ablation", "trial", "bench"]

_FOLDER = "runs"
_ID_CHARACTERS = 10


@dataclass(frozen=True)
class Group:
    """What a run is part of: an ablation, a sweep or a suite, and its name."""

    kind: Kind
    name: str


@dataclass(frozen=True)
class Result:
    """One step's result: its name, its key in the store, and the names of the artefact types it holds."""

    step: str
    key: str
    makes: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One recipe that was run, with all its seeds.

    id: decided by name and results, so running the same again is the same run. data: name of the data set. recipe: as
    TOML, everything written out. leaks: steps that look at held-out data on purpose. finished: UTC, ISO 8601. git:
    revision of the working folder, with `-dirty` where it had changes; empty outside of git. results: one tuple a seed.
    """

    id: str
    name: str
    title: str
    kind: Kind
    group: str
    data: str
    recipe: str
    seeds: tuple[int, ...]
    leaks: tuple[str, ...]
    finished: str
    git: str
    results: tuple[tuple[Result, ...], ...]

    def key_of(self, artifact: type, seed: int = 0) -> str | None:
        """Key of the last result that holds this type of artefact, None where there is none. seed: its place."""
        name = artifact.__name__
        return next((each.key for each in reversed(self.results[seed]) if name in each.makes), None)


def remember(plans: Sequence[Plan], store: Store, group: Group | None = None) -> Run:
    """Write down that these plans, one a seed of one recipe, were executed; replaces an earlier record of them."""
    made = as_run(plans, store, group)
    file = _file(store, made.id)
    with store.guarding("the record of the run", ()), store.lock(f"run-{made.id}"):
        # Whoever died while writing this record has left a part of it.
        for left in file.parent.glob(f".{file.name}.*"):
            left.unlink()
        write_atomically(file, sealed_json(asdict(made), made.id).encode())
    return made


def forget(store: Store, run: Run) -> None:
    """Remember this run no longer; its results stay until somebody collects them."""
    _file(store, run.id).unlink(missing_ok=True)


def as_run(plans: Sequence[Plan], store: Store, group: Group | None = None) -> Run:
    """The record of these plans, one a seed of one recipe, as if they had finished now; nothing is written."""
    recipe = plans[0].recipe
    results = tuple(
        tuple(Result(job.name, job.key, tuple(made.__name__ for made in job.makes)) for job in planned.jobs)
        for planned in plans
    )
    return Run(
        id=_id(recipe.name, results),
        name=recipe.name,
        title=recipe.title,
        kind=group.kind if group else "run",
        group=group.name if group else "",
        data=_data(plans[0], store),
        recipe=recipe.toml(),
        seeds=tuple(planned.seed for planned in plans),
        leaks=plans[0].leaks,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        git=git_state(),
        results=results,
    )


def history(store: Store) -> list[Run]:
    """All runs that the store remembers, newest first. Raises UserError where a file cannot be read."""
    runs = [_read(file) for file in (store.root / _FOLDER).glob("*.json")]
    return sorted(runs, key=lambda run: (run.finished, run.id), reverse=True)


def find(store: Store, wanted: str) -> Run:
    """The run with this id or start of an id, else the newest of this name. Raises UserError where there is none."""
    runs = history(store)
    found = [run for run in runs if run.id.startswith(wanted)] if len(wanted) > 2 else []
    if len(found) > 1:
        raise UserError(f"'{wanted}' begins the ids of {len(found)} runs: {', '.join(run.id for run in found)}")
    found = found or [run for run in runs if run.name == wanted]
    if not found:
        names = sorted({run.name for run in runs})
        known = f"{nearest(wanted, names)} Known: {', '.join(names)}" if names else " Run a recipe first."
        raise UserError(f"{store.root} remembers no run '{wanted}'.{known}")
    return found[0]


def ranks_of(run: Run, store: Store) -> tuple[Ranks, ...]:
    """The last judge's ranks, one a seed. Raises UserError where the run has none or the store lost them."""
    return tuple(_fetch(run, store, Ranks, seed) for seed in range(len(run.seeds)))


def floors_of(run: Run, store: Store) -> Floors | None:
    """The floors that were counted beside the run, None where the recipe has none or the store lost them."""
    key = run.key_of(Floors)
    return _fetch(run, store, Floors, 0) if key is not None and store.has(key) else None


def artifact_of(run: Run, store: Store, artifact: type[Any], seed: int = 0) -> Any:
    """The last artefact of a type. seed: its place. Raises UserError where there is none."""
    return _fetch(run, store, artifact, seed)


def _fetch(run: Run, store: Store, artifact: type[Any], seed: int) -> Any:
    key = run.key_of(artifact, seed)
    if key is None:
        raise UserError(f"run {run.id} ({run.name}) makes no {artifact.__name__}")
    if not store.has(key):
        raise UserError(f"{artifact.__name__} of run {run.id} ({run.name}) is no longer in the store; run it again")
    return artifact.load(store.verify(key, artifact.__name__.lower()))


def _file(store: Store, identifier: str) -> Path:
    return store.root / _FOLDER / f"{identifier}.json"


def _data(planned: Plan, store: Store) -> str:
    job = planned.job_of(Corpus)
    if job is None:
        return ""
    if store.has(job.key):
        return str(Corpus.load(store.verify(job.key, "corpus")).name)
    source: Mapping[str, Any] = job.step.spec().get("source", {})
    return str(source.get("use", ""))


def _id(name: str, results: Sequence[Sequence[Result]]) -> str:
    text = "/".join([name, *(result.key for each in results for result in each)])
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_CHARACTERS]


def _read(file: Path) -> Run:
    try:
        raw = unsealed(file.read_bytes(), file.stem)
        results = tuple(
            tuple(Result(each["step"], each["key"], tuple(each["makes"])) for each in seed) for seed in raw["results"]
        )
        return Run(**{**raw, "seeds": tuple(raw["seeds"]), "leaks": tuple(raw["leaks"]), "results": results})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file} is no record of a run ({error}); delete it") from None
