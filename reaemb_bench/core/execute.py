"""Run a plan: compute what the store lacks, and fetch what it holds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from reaemb_bench import __version__
from reaemb_bench.core.artifacts import Corpus, Encoder, Vectors
from reaemb_bench.core.component import Context, Progress
from reaemb_bench.core.distributed import broadcast, is_first
from reaemb_bench.core.errors import ArrayError, NotFiniteError, UserError, is_out_of_memory
from reaemb_bench.core.machine import (
    Machine,
    circumstances,
    forget_peak_memory,
    git_state,
    peak_memory,
    repeatable,
    versions,
)
from reaemb_bench.core.plan import Job, Plan, check_unchanged, needed_jobs
from reaemb_bench.core.plugins import room_code
from reaemb_bench.core.store import PROGRESS_FILE, Store, save_checksummed
from reaemb_bench.core.vector_facts import vector_facts

T = TypeVar("T")

_LONGEST_REASON = 160

_NOTHING_LEFT = [-1, 0]


@dataclass(frozen=True)
class Planned:
    """The run starts: what will be computed and what is in the store already. notes: lines about what is there."""

    plan: Plan
    cached: frozenset[str]
    needed: frozenset[str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Waiting:
    """Another process computes a job's result; this one waits for it. owner: words for that process."""

    job: Job
    owner: str


@dataclass(frozen=True)
class Started:
    """A job starts computing."""

    job: Job


@dataclass(frozen=True)
class Progressed:
    """A job reports progress."""

    job: Job
    progress: Progress


@dataclass(frozen=True)
class Finished:
    """A job's result is in the store; manifest says what it took. cached: it was there before."""

    job: Job
    manifest: Mapping[str, Any]
    cached: bool


Event = Planned | Waiting | Started | Progressed | Finished
Watch = Callable[[Event], None]


def watched_by(*watches: Watch) -> Watch:
    """One watch that passes each event on to several, in their order."""

    def watch(event: Event) -> None:
        for one in watches:
            one(event)

    return watch


def execute(planned: Plan, store: Store, machine: Machine, watch: Watch) -> None:
    """Run what is not in the store yet; every result is then there, under its job's key.

    If several processes run the recipe, all of them call this; process 0 alone watches and writes.
    """
    if not is_first():
        _assist(planned, store, machine)
        return
    cached = frozenset(job.key for job in planned.jobs if store.has(job.key))
    needed = needed_jobs(planned, store)
    changed = {job.name: other_code(job, store.manifest(job.key)) for job in planned.jobs if job.key in cached}
    steps = ", ".join(f"{name} ({code})" for name, code in changed.items() if code)
    notes = [f"cached results of other code are used: {steps}; another --store computes them again"] if steps else []
    precision = machine.precision_name()
    others = [
        f"{job.name} ({computed})"
        for job in planned.jobs
        if job.key in cached and (computed := computed_precision(job, store.manifest(job.key))) not in ("", precision)
    ]
    if others:
        notes.append(
            f"cached results of another precision than {precision} are used: {', '.join(others)}; "
            "another --store computes them again"
        )
    watch(Planned(planned, cached, needed, tuple(notes)))
    for job in planned.jobs:
        if job.key in needed:
            with _disk_errors_named(job, store), store.computing_alone(job.key, partial(_wait, job, watch)):
                # Another process may have finished it while this one waited for the lock.
                if not store.has(job.key):
                    watch(Started(job))
                    if job.step.distributed:
                        broadcast(*_call(planned, job))
                    _compute(planned, job, store, machine, watch)
                    watch(Finished(job, store.manifest(job.key), cached=False))
                    continue
        if store.has(job.key):
            store.tidy(job.key)
            watch(Finished(job, store.manifest(job.key), cached=True))
    broadcast(*_NOTHING_LEFT)


def other_code(job: Job, manifest: Mapping[str, Any]) -> str:
    """What of this package's code has changed since it computed a stored result of `job`; empty if nothing."""
    now = {"reaemb-bench": __version__, **room_code(job.step)}
    then = {**manifest["versions"], **manifest.get("code", {})}
    changed = [name for name in now if name in then and then[name] != now[name]]
    return ", ".join(f"{name} {then[name]}" if name == "reaemb-bench" else name for name in changed)


def computed_precision(job: Job, manifest: Mapping[str, Any]) -> str:
    """The precision in which a stored result of a language model's step was computed; empty for any other step."""
    uses_model = Encoder in job.makes or any(wanted is Encoder for wanted, _ in job.inputs.values())
    precision = str(manifest["machine"]["precision"])
    # A step that never loaded torch computed nothing in any precision.
    return precision if uses_model and precision != "auto" else ""


def _wait(job: Job, watch: Watch, owner: str) -> None:
    watch(Waiting(job, owner))


def _assist(planned: Plan, store: Store, machine: Machine) -> None:
    """Do this process's share of each step that process 0 calls; its results are written by process 0."""
    while (call := broadcast(*_NOTHING_LEFT)) != _NOTHING_LEFT:
        job = planned.jobs[call[0]] if call[0] < len(planned.jobs) else None
        if job is None or _call(planned, job) != call:
            raise UserError("this process reads another recipe or other data than process 0; give all hosts the same")
        with _disk_errors_named(job, store):
            inputs = _inputs(job, store)
            if job.context is not None:
                inputs[job.context] = Context(job.seed or 0, machine, _ignore, _ignore, store.scratch(job.key))
            _run(job, inputs, machine)


def _call(planned: Plan, job: Job) -> list[int]:
    """What process 0 broadcasts to call the others to a step: its number, and the start of its key as a check."""
    return [planned.jobs.index(job), int(job.key[:15], 16)]


def _ignore(_: object) -> None:
    """Takes the reports that process 0 alone passes on."""


def _disk_errors_named(job: Job, store: Store) -> AbstractContextManager[None]:
    return store.guarding(f"step '{job.name}'", [key for _, key in job.inputs.values()])


def _compute(planned: Plan, job: Job, store: Store, machine: Machine, watch: Watch) -> None:
    """Run one step and put its artefacts, its curve and its manifest into the store."""
    check_unchanged(planned, job)
    inputs = _inputs(job, store)
    facts: dict[str, float | int | str] = {}
    curve: list[str] = []

    def report(progress: Progress) -> None:
        if progress.values:
            point = {"done": progress.done, "total": progress.total, "unit": progress.unit, **progress.values}
            curve.append(json.dumps(point) + "\n")
        watch(Progressed(job, progress))

    if job.context is not None:
        inputs[job.context] = Context(job.seed or 0, machine, report, facts.update, store.scratch(job.key))
    forget_peak_memory()
    begun = time.perf_counter()
    artifacts = _run(job, inputs, machine)
    seconds, memory = time.perf_counter() - begun, peak_memory()
    if tuple(type(artifact) for artifact in artifacts) != job.makes:
        returned = [type(artifact).__name__ for artifact in artifacts]
        declared = [artifact.__name__ for artifact in job.makes]
        raise UserError(f"step '{job.name}' returned {returned} but declares {declared}; correct its run")
    corpus = next((given for given in (*inputs.values(), *artifacts) if isinstance(given, Corpus)), None)
    with _culprits_named(job, inputs):
        for vectors in (artifact for artifact in artifacts if isinstance(artifact, Vectors)):
            if corpus is not None and vectors.items != corpus.items:
                raise ArrayError(f"it returned {vectors.items} vectors for {corpus.items} items; return one for each")
            facts.update(vector_facts(vectors))
    check_unchanged(planned, job)
    with store.writing(job.key) as draft:
        for artifact in artifacts:
            folder = draft / type(artifact).__name__.lower()
            folder.mkdir()
            artifact.save(folder)
        (draft / PROGRESS_FILE).write_text("".join(curve), encoding="utf-8")
        manifest = {
            "step": job.name,
            "identity": job.identity,
            "seconds": seconds,
            **memory,
            "facts": facts,
            "versions": versions(),
            "code": room_code(job.step),
            "machine": circumstances(machine),
            "git": git_state(),
        }
        save_checksummed(draft, manifest)


def _inputs(job: Job, store: Store) -> dict[str, Any]:
    return {parameter: store.load(key, artifact) for parameter, (artifact, key) in job.inputs.items()}


def _run(job: Job, inputs: Mapping[str, Any], machine: Machine) -> tuple[Any, ...]:
    try:
        with repeatable(machine), _culprits_named(job, inputs):
            artifacts = job.step.run(**inputs)  # type: ignore[attr-defined]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
        raise UserError(
            f"step '{job.name}' ran out of memory ({reason}); lower --micro-batch or the step's batch_size, or choose "
            "a smaller model"
        ) from error
    return artifacts if isinstance(artifacts, tuple) else (artifacts,)


@contextmanager
def _culprits_named(job: Job, inputs: Mapping[str, Any]) -> Iterator[None]:
    """A block whose errors about numbers get the step's name, and the keys of their items or users."""
    try:
        yield
    except NotFiniteError as error:
        corpus = next((artifact for artifact in inputs.values() if isinstance(artifact, Corpus)), None)
        keys = {"item": corpus.item_keys, "user": corpus.user_keys}[error.whose] if corpus else None
        raise error.naming(job.name, keys) from None
    except ArrayError as error:
        raise UserError(f"step '{job.name}': {error}") from None


def fetch(planned: Plan, store: Store, artifact: type[T]) -> T | None:
    """The plan's last artefact of a type from the store, or None if the recipe makes none."""
    job = planned.job_of(artifact)
    return None if job is None else store.load(job.key, artifact)


def fetch_all(planned: Plan, store: Store, artifact: type[T]) -> dict[str, T]:
    """Every artefact of a type that the plan makes, by the name of the step that makes it."""
    return {job.name: store.load(job.key, artifact) for job in planned.jobs if artifact in job.makes}


def facts_of(planned: Plan, store: Store, artifact: type) -> dict[str, Any]:
    """What the last step that makes a type of artefact noted; nothing if its result is not in the store."""
    job = planned.job_of(artifact)
    # The result of a step may be gone while all that depends on it is cached.
    return {} if job is None or not store.has(job.key) else dict(store.manifest(job.key)["facts"])
