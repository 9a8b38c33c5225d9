"""Run a plan: compute what the store lacks, and fetch what it holds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from reaemb_bench import __version__
from reaemb_bench.core import machine as environment
from reaemb_bench.core.artifacts import Corpus, Encoder, Vectors
from reaemb_bench.core.component import Context, Progress
from reaemb_bench.core.distributed import broadcast, is_first
from reaemb_bench.core.errors import ArrayError, NotFiniteError, UserError, check_rows, is_out_of_memory
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Job, Plan, check_unchanged, needed_jobs
from reaemb_bench.core.plugins import room_code
from reaemb_bench.core.store import PROGRESS_FILE, Store, save_checksummed

T = TypeVar("T")

SAMPLE = 2_048
"""Most vectors that are measured: every n-th item's, so that the same vectors always give the same facts."""
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
class Noted:
    """A job that is under way has noted facts. facts: all that it has noted so far."""

    job: Job
    facts: Mapping[str, float | int | str]


@dataclass(frozen=True)
class Finished:
    """A job's result is in the store; manifest says what it took. cached: it was there before."""

    job: Job
    manifest: Mapping[str, Any]
    cached: bool


Event = Planned | Waiting | Started | Progressed | Noted | Finished
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
    # What process 0 broadcasts to call the others to a step: its number, and the start of its key as a check.
    calls = [[number, int(job.key[:15], 16)] for number, job in enumerate(planned.jobs)]
    if not is_first():
        while (call := broadcast(*_NOTHING_LEFT)) != _NOTHING_LEFT:
            if call not in calls:
                raise UserError(
                    "this process reads another recipe or other data than process 0; give all hosts the same"
                )
            job = planned.jobs[call[0]]
            with store.guarding(f"step '{job.name}'", job.input_keys):
                _run(job, store, machine, lambda _: None, lambda _: None)
        return
    stored = [(job, store.manifest(job.key)) for job in planned.jobs if store.has(job.key)]
    needed = needed_jobs(planned, store)
    precision = machine.precision_name()
    unlike = {
        "other code": [(job.name, other_code(job, manifest)) for job, manifest in stored],
        f"another precision than {precision}": [
            (job.name, computed)
            for job, manifest in stored
            if (computed := computed_precision(job, manifest)) != precision
        ],
    }
    notes = [
        f"cached results of {what} are used: {steps}; another --store computes them again"
        for what, of_steps in unlike.items()
        if (steps := ", ".join(f"{name} ({text})" for name, text in of_steps if text))
    ]
    watch(Planned(planned, frozenset(job.key for job, _ in stored), needed, tuple(notes)))
    for job, call in zip(planned.jobs, calls, strict=True):
        if job.key in needed:
            with (
                store.guarding(f"step '{job.name}'", job.input_keys),
                store.computing_alone(job.key, lambda owner, job=job: watch(Waiting(job, owner))),  # type: ignore[misc]
            ):
                # Another process may have finished it while this one waited for the lock.
                if not store.has(job.key):
                    watch(Started(job))
                    if job.step.distributed:
                        broadcast(*call)
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


def _compute(planned: Plan, job: Job, store: Store, machine: Machine, watch: Watch) -> None:
    """Run one step and put its artefacts, its curve and its manifest into the store."""
    check_unchanged(planned, job)
    facts: dict[str, float | int | str] = {}
    curve: list[str] = []

    def report(progress: Progress) -> None:
        if progress.values:
            point = {"done": progress.done, "total": progress.total, "unit": progress.unit, **progress.values}
            curve.append(json.dumps(point) + "\n")
        watch(Progressed(job, progress))

    def note(new: Mapping[str, float | int | str]) -> None:
        facts.update(new)
        watch(Noted(job, dict(facts)))

    inputs, artifacts, cost = _run(job, store, machine, report, note)
    if tuple(type(artifact) for artifact in artifacts) != job.makes:
        returned = [type(artifact).__name__ for artifact in artifacts]
        declared = [artifact.__name__ for artifact in job.makes]
        raise UserError(f"step '{job.name}' returned {returned} but declares {declared}; correct its run")
    corpus = next((given for given in (*inputs.values(), *artifacts) if isinstance(given, Corpus)), None)
    with _culprits_named(job, inputs):
        for vectors in (artifact for artifact in artifacts if isinstance(artifact, Vectors)):
            if corpus is not None and vectors.items != corpus.items:
                raise ArrayError(f"it returned {vectors.items} vectors for {corpus.items} items; return one for each")
            if vectors.width == 0:
                raise ArrayError("it returned vectors without a number, of width 0; return at least one number an item")
            note(vector_facts(vectors))
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
            **cost,
            "facts": facts,
            "versions": environment.versions(),
            "code": room_code(job.step),
            "machine": environment.circumstances(machine),
            "git": environment.git_state(),
        }
        save_checksummed(draft, manifest)


def _run(
    job: Job,
    store: Store,
    machine: Machine,
    report: Callable[[Progress], None],
    note: Callable[[Mapping[str, float | int | str]], None],
) -> tuple[dict[str, Any], tuple[Any, ...], dict[str, Any]]:
    """What a step was given, what it returned, and what that took: seconds and memory."""
    inputs: dict[str, Any] = {parameter: store.load(key, artifact) for parameter, (artifact, key) in job.inputs.items()}
    if job.context is not None:
        inputs[job.context] = Context(job.seed or 0, machine, report, note, store.scratch(job.key))
    environment.forget_peak_memory()
    begun = time.perf_counter()
    try:
        with environment.repeatable(machine), _culprits_named(job, inputs):
            returned = job.step.run(**inputs)  # type: ignore[attr-defined]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
        raise UserError(
            f"step '{job.name}' ran out of memory ({reason}); lower --micro-batch or the step's batch_size, or choose "
            "a smaller model"
        ) from error
    cost = {"seconds": time.perf_counter() - begun, **environment.peak_memory()}
    return inputs, returned if isinstance(returned, tuple) else (returned,), cost


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


def vector_facts(vectors: Vectors) -> dict[str, float]:
    """How far vectors (items, width) differ, by a sample of them.

    mean_cosine: of all pairs of different items. effective_dimensions: the participation ratio of the centred
    vectors, (sum of variances)^2 / sum of variances^2 over the principal axes, from 1 (a line) to the width; 0 where
    all are equal. Raises NotFiniteError where a vector, inside or outside of the sample, is not finite.
    """
    step, first, kept = max(1, -(-vectors.items // SAMPLE)), 0, []
    for block in vectors.blocks():
        check_rows("vector", block, first, cure="train what made them with a lower learning rate, or in float32")
        kept.append(block[-first % step :: step].astype(np.float64))
        first += len(block)
    sample = np.concatenate(kept)
    norms = np.linalg.norm(sample, axis=1, keepdims=True)
    units = sample / np.where(norms > 0, norms, 1)
    total = np.square(units.sum(axis=0)).sum() - np.square(units).sum()
    centred = sample - sample.mean(axis=0)
    # Neither trace nor norm needs the axes themselves.
    scatter = centred.T @ centred if centred.shape[1] < len(centred) else centred @ centred.T
    squares = float(np.square(scatter).sum())
    return {
        "mean_cosine": float(total / max(1, len(units) * (len(units) - 1))),
        "effective_dimensions": float(np.trace(scatter)) ** 2 / squares if squares > 0 else 0.0,
        "width": sample.shape[1],
    }


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
