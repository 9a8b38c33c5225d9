"""What was run: one small file a run in the store, so that later questions find its results without planning again.

The second half says what changed from one run to another: settings, results, and what results were made with.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from reaemb_bench.core.artifacts import Corpus, Floors, Ranks
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import checksummed_json, read_checksummed, write_atomically
from reaemb_bench.core.machine import git_state
from reaemb_bench.core.plan import Plan, differences, flatten
from reaemb_bench.core.registry import nearest
from reaemb_bench.core.store import Store

Kind = Literal["run", "ablation", "trial", "bench"]

ABSENT = "—"
"""Stands for a setting that one of two runs does not have."""

Pair = tuple[str | None, str | None]
"""Keys of one step's results in two runs; None if a run has no such step."""


@dataclass(frozen=True)
class Group:
    """What a run is part of: an ablation, a sweep or a suite, and its name; a run alone is of kind `run`, nameless."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip()


ALONE = Group("run", "")


@dataclass(frozen=True)
class Result:
    """One step's result: its name, its key in the store, and the names of the artefact types it holds."""

    step: str
    key: str
    makes: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One recipe that was run, with all its seeds.

    id: decided by name and results, so running the same again is the same run, also as a part of an ablation. groups:
    all that it was run as, the first first. data: name of the data set. recipe: as TOML, everything written out. leaks:
    steps that look at held-out data on purpose. finished: UTC, ISO 8601. git: revision of the working folder, followed
    by `-dirty` if it had changes; empty outside of git. results: one tuple a seed.
    """

    id: str
    name: str
    title: str
    groups: tuple[Group, ...]
    data: str
    recipe: str
    seeds: tuple[int, ...]
    leaks: tuple[str, ...]
    finished: str
    git: str
    results: tuple[tuple[Result, ...], ...]

    @property
    def part_of(self) -> str:
        """All that it was run as, in words: `run, ablation quickstart`."""
        return ", ".join(map(str, self.groups))

    def key_of(self, artifact: type, seed: int = 0) -> str | None:
        """Key of the last result that holds this type of artefact, None if there is none. seed: its position."""
        name = artifact.__name__
        return next((result.key for result in reversed(self.results[seed]) if name in result.makes), None)


def as_run(plans: Sequence[Plan], store: Store, group: Group | None = None) -> Run:
    """The record of these plans, one a seed of one recipe, as if they had finished now; nothing is written."""
    recipe = plans[0].recipe
    results = tuple(
        tuple(Result(job.name, job.key, tuple(artifact.__name__ for artifact in job.makes)) for job in planned.jobs)
        for planned in plans
    )
    identity = "/".join([recipe.name, *(result.key for seed in results for result in seed)])
    data, source = "", plans[0].job_of(Corpus)
    if source is not None and store.has(source.key):
        data = store.load(source.key, Corpus).name
    elif source is not None:
        data = str(source.step.spec().get("source", {}).get("use", ""))
    return Run(
        id=hashlib.sha256(identity.encode()).hexdigest()[:10],
        name=recipe.name,
        title=recipe.title,
        groups=(group or ALONE,),
        data=data,
        recipe=recipe.toml(),
        seeds=tuple(planned.seed for planned in plans),
        leaks=plans[0].leaks,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        git=git_state(),
        results=results,
    )


def remember(plans: Sequence[Plan], store: Store, group: Group | None = None) -> Run:
    """Write down that these plans, one a seed of one recipe, were executed; an earlier record keeps what it was run as.

    A run whose results all came from a store without write permission stays unrecorded.
    """
    run = as_run(plans, store, group)
    if os.access(store.root, os.W_OK):
        file = _file(store, run.id)
        with store.guarding("the record of the run", ()), store.lock(f"run-{run.id}"):
            # A damaged record is written anew: it must not cost a run that has been computed.
            with suppress(UserError):
                earlier = _read(file)
                run = replace(run, groups=tuple(dict.fromkeys((*earlier.groups, *run.groups))))
                if group is not None:
                    # The title that a run was given alone is not that of a variant.
                    run = replace(run, title=earlier.title, recipe=earlier.recipe)
            # A process that died while it wrote this record has left a part of it.
            for part in file.parent.glob(f".{file.name}.*"):
                part.unlink()
            write_atomically(file, checksummed_json(asdict(run), run.id).encode())
    return run


def forget(store: Store, run: Run) -> None:
    """Remember this run no longer; its results stay until they are collected as garbage."""
    _file(store, run.id).unlink(missing_ok=True)


def _file(store: Store, identifier: str) -> Path:
    return store.root / "runs" / f"{identifier}.json"


def history(store: Store) -> list[Run]:
    """All runs that the store remembers, newest first. Raises UserError if a file cannot be read."""
    runs = map(_read, _file(store, "").parent.glob("*.json"))
    return sorted(runs, key=lambda run: (run.finished, run.id), reverse=True)


def _read(file: Path) -> Run:
    try:
        raw = read_checksummed(file.read_bytes(), file.stem)
        if "groups" not in raw:
            # As it was written when a run was part of one group alone.
            raw["groups"] = [{"kind": raw.pop("kind"), "name": raw.pop("group")}]
        raw["groups"] = tuple(Group(**group) for group in raw["groups"])
        raw |= {name: tuple(raw[name]) for name in ("seeds", "leaks")}
        raw["results"] = tuple(
            tuple(Result(result["step"], result["key"], tuple(result["makes"])) for result in seed)
            for seed in raw["results"]
        )
        return Run(**raw)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file} is not a record of a run ({error}); delete it") from None


def find(store: Store, wanted: str) -> Run:
    """The run with this id or start of an id, else the newest of this name, else of this recipe with edits.

    Raises UserError if there is none.
    """
    runs = history(store)
    by_id = [run for run in runs if run.id.startswith(wanted)] if len(wanted) > 2 else []
    if len(by_id) > 1:
        raise UserError(f"'{wanted}' begins the ids of {len(by_id)} runs: {', '.join(run.id for run in by_id)}")
    edited = (f"{wanted} (", f"{wanted} without ")
    named = [run for run in runs if run.name == wanted] or [run for run in runs if run.name.startswith(edited)]
    if by_id or named:
        return (by_id or named)[0]
    names = sorted({run.name for run in runs})
    known = f"{nearest(wanted, names)} Known: {', '.join(names)}" if names else " Run a recipe first."
    raise UserError(f"{store.root} remembers no run '{wanted}'.{known}")


def artifact_of(run: Run, store: Store, artifact: type[Any], seed: int = 0) -> Any:
    """The last artefact of a type. seed: its position. Raises UserError if the run makes none or the store lost it."""
    key = run.key_of(artifact, seed)
    if key is None:
        raise UserError(f"run {run.id} ({run.name}) makes no {artifact.__name__}")
    if not store.has(key):
        raise UserError(f"{artifact.__name__} of run {run.id} ({run.name}) is no longer in the store; run it again")
    return store.load(key, artifact)


def ranks_of(run: Run, store: Store) -> tuple[Ranks, ...]:
    """The last judge's ranks, one a seed. Raises UserError if the run has none or the store lost them."""
    return tuple(artifact_of(run, store, Ranks, seed) for seed in range(len(run.seeds)))


def identities_of(run: Run, store: Store) -> list[dict[str, Any]]:
    """What decided each result of a run that is still in the store."""
    keys = {result.key for seed in run.results for result in seed}
    return [store.manifest(key)["identity"] for key in sorted(keys) if store.has(key)]


def floors_of(run: Run, store: Store) -> Floors | None:
    """The run's floors, None if the recipe has none or the store lost them."""
    key = run.key_of(Floors)
    return store.load(key, Floors) if key is not None and store.has(key) else None


def changed_settings(runs: Sequence[Run]) -> dict[str, tuple[Any, ...]]:
    """Dotted path -> a value for each run, ABSENT if there is none, of all settings in which the runs differ.

    First of all `steps`: those of each run that others lack. Their settings are left out, as are titles.
    """
    # Default seeds are not written in the recipe.
    recipes = [{"seeds": list(run.seeds), **tomllib.loads(run.recipe)} for run in runs]
    steps = [[result.step for result in run.results[0]] for run in runs]
    shared = set(steps[0]).intersection(*steps)
    own = [[name for name in names if name not in shared] for names in steps]
    left_out = {"steps", "title", *(name for names in own for name in names)}
    tables = [flatten({name: value for name, value in recipe.items() if name not in left_out}) for recipe in recipes]
    values = {"steps": tuple(", ".join(names) or ABSENT for names in (own if any(own) else steps))}
    values |= {path: tuple(table.get(path, ABSENT) for table in tables) for table in tables for path in table}
    return {path: of_runs for path, of_runs in values.items() if any(value != of_runs[0] for value in of_runs)}


def paired_results(first: Run, second: Run) -> dict[str, Pair]:
    """Step -> keys of its results for the first seeds; first the steps of the first run, in its order."""
    before, after = ({result.step: result.key for result in run.results[0]} for run in (first, second))
    return {step: (before.get(step), after.get(step)) for step in {**before, **after}}


def _manifests(pair: Pair, store: Store) -> list[dict[str, Any]]:
    """The manifests of those results of a pair that are in the store."""
    return [store.manifest(key) for key in pair if key is not None and store.has(key)]


def reasons(pair: Pair, store: Store) -> str:
    """Why the results of a pair differ, as far as the store can tell."""
    if None in pair:
        return f"only in {'B' if pair[0] is None else 'A'}"
    manifests = _manifests(pair, store)
    if len(manifests) < 2:
        return "no longer in the store, so nobody can tell"
    before, after = (flatten(manifest["identity"]) for manifest in manifests)
    own = [text for text in differences(before, after) if not text.startswith("inputs.")]
    return "; ".join(own) or "its inputs differ"


def changed_circumstances(pairs: Mapping[str, Pair], store: Store) -> dict[str, list[str]]:
    """By change of a version, of the device, its threads or precision, the steps that were computed with it.

    A change is `numpy: 2.3.1 → 2.4.0` or `precision: float32 → bfloat16`, from the first run to the second.
    """
    steps: dict[str, list[str]] = {}
    for step, pair in pairs.items():
        both = [{**manifest["versions"], **manifest.get("machine", {})} for manifest in _manifests(pair, store)]
        for change in differences(*both) if len(both) == 2 else ():
            steps.setdefault(change, []).append(step)
    return steps
