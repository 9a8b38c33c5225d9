"""What was run: one small file a run in the store, so that later questions find its results without planning again."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from reaemb_bench.core.artifacts import Corpus, Floors, Ranks
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import checksummed_json, read_checksummed, write_atomically
from reaemb_bench.core.machine import git_state
from reaemb_bench.core.plan import Plan
from reaemb_bench.core.registry import nearest
from reaemb_bench.core.store import Store

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
        write_atomically(file, checksummed_json(asdict(made), made.id).encode())
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
        raw = read_checksummed(file.read_bytes(), file.stem)
        results = tuple(
            tuple(Result(each["step"], each["key"], tuple(each["makes"])) for each in seed) for seed in raw["results"]
        )
        return Run(**{**raw, "seeds": tuple(raw["seeds"]), "leaks": tuple(raw["leaks"]), "results": results})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file} is no record of a run ({error}); delete it") from None


# What changed from one run to another: settings, results, and what results were made with.


ABSENT = "—"
"""Stands for a setting that one of the runs does not have."""
_VALUE_CHARACTERS = 24


@dataclass(frozen=True)
class Setting:
    """A setting that differs, at its dotted path, with its value in each run."""

    path: str
    first: Any
    second: Any


@dataclass(frozen=True)
class Pair:
    """The results of one step in both runs, for their first seeds; None where a run has no such step."""

    step: str
    first: str | None
    second: str | None

    @property
    def same(self) -> bool:
        """Whether it is one and the same result."""
        return self.first == self.second


def changed_settings(first: Run, second: Run) -> list[Setting]:
    """Settings that differ, in the order of the recipes; those of steps that only one run has are left out."""
    # Seeds that nobody chose are not written in the recipe.
    recipes = [{"seeds": list(run.seeds), **tomllib.loads(run.recipe)} for run in (first, second)]
    lone = {step for step in (*recipes[0]["steps"], *recipes[1]["steps"]) if not all(step in each for each in recipes)}
    before, after = (
        flatten({name: value for name, value in each.items() if name not in {*lone, "steps"}}) for each in recipes
    )
    return [
        Setting(path, before.get(path, ABSENT), after.get(path, ABSENT))
        for path in dict.fromkeys([*before, *after])
        if before.get(path, ABSENT) != after.get(path, ABSENT)
    ]


def paired_results(first: Run, second: Run) -> list[Pair]:
    """The results of every step that either run has: those of the first in its order, then what only the second has."""
    before, after = ({result.step: result.key for result in run.results[0]} for run in (first, second))
    return [Pair(step, before.get(step), after.get(step)) for step in dict.fromkeys([*before, *after])]


def reasons(pair: Pair, store: Store) -> str:
    """Why the results of a pair differ, as far as the store can tell."""
    if pair.first is None or pair.second is None:
        return f"only in {'B' if pair.first is None else 'A'}"
    if not (store.has(pair.first) and store.has(pair.second)):
        return "no longer in the store, so nobody can tell"
    before, after = (flatten(store.manifest(key)["identity"]) for key in (pair.first, pair.second))
    own = [each for each in differences(before, after) if not each.startswith("inputs.")]
    return "; ".join(own) or "its inputs differ"


def changed_versions(pairs: list[Pair], store: Store) -> dict[str, list[str]]:
    """By change, such as `numpy: 2.3.1 → 2.4.0`, the steps that were computed with other versions in the second run."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        if pair.first is None or pair.second is None or not (store.has(pair.first) and store.has(pair.second)):
            continue
        before, after = (store.manifest(key)["versions"] for key in (pair.first, pair.second))
        for change in differences(before, after):
            found.setdefault(change, []).append(pair.step)
    return found


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs between two flat tables, as `rate: 0.1 → 0.2`; `step.` is left out."""
    made = []
    for path in sorted({*before, *after}):
        if before.get(path) == after.get(path):
            continue
        name = path.removeprefix("step.")
        if name == "code":
            made.append("the plug-in file was edited")
        elif path not in before:
            made.append(f"{name} is new")
        elif path not in after:
            made.append(f"{name} is gone")
        else:
            made.append(f"{name}: {_short(before[path])} → {_short(after[path])}")
    return made


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _VALUE_CHARACTERS else f"{text[: _VALUE_CHARACTERS - 1]}…"


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables and lists as `a.b.0.c` -> value."""
    if isinstance(value, Mapping):
        pairs: list[tuple[str, Any]] = [(str(name), each) for name, each in value.items()]
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        pairs = [(str(place), each) for place, each in enumerate(value)]
    else:
        return {prefix: value}
    made: dict[str, Any] = {}
    for name, each in pairs:
        made |= flatten(each, f"{prefix}.{name}" if prefix else name)
    return made
