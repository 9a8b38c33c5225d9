"""A sweep: a recipe without its judges, the space that is searched, and where its trials are kept."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from rich.console import Console

from reaemb_bench.core.artifacts import Corpus, Ranker, ValidationTargets
from reaemb_bench.core.errors import RecipeError, UserError, reason_of
from reaemb_bench.core.execute import Event, Finished, Planned, Progressed, Watch, facts_of, fetch, watched_by
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Plan, derive_seed, plan
from reaemb_bench.core.recipe import Raw, Recipe, from_raw
from reaemb_bench.core.runs import Group
from reaemb_bench.core.store import Store
from reaemb_bench.experiments.pool import dismiss, share_of_threads, start
from reaemb_bench.experiments.running import executed
from reaemb_bench.experiments.space import CURVE, MINUTES, Settings, Space, Values, applied, read_space, shown
from reaemb_bench.tracking.terminal import Lines, in_words

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, Trial


_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Sweep:
    """What every process that takes part has to know.

    name: of the study. recipe: the whole recipe, written out. storage: a URL, or the path of a journal file. space:
    the table `[space]`.
    """

    name: str
    recipe: str
    recipe_name: str
    space: Raw
    settings: Settings
    machine: Machine
    storage: str

    @property
    def folder(self) -> Path:
        """Where reports of this sweep lie, in the store."""
        return self.machine.store / "sweeps" / self.name

    @property
    def locks(self) -> Path:
        """Where processes see which others live: beside the journal, or in the store where a database is shared."""
        return self.folder if is_url(self.storage) else Path(self.storage).parent / self.name

    def searched(self) -> Space:
        """The space."""
        try:
            return read_space(self.space)
        except RecipeError as error:
            raise error.under("space") from None

    def trial_recipe(self, values: Values, name: str) -> Recipe:
        """The recipe of a trial, up to the recommender: no step of it may open the test targets. Raises RecipeError."""
        made = from_raw(applied(self._to_ranker, values), name)
        plan(made, made.seeds[0])
        return made

    def whole_recipe(self, values: Values) -> Recipe:
        """The recipe with these settings and all its steps, the judges among them."""
        return from_raw(applied(tomllib.loads(self.recipe), values), self.recipe_name)

    def identity(self) -> str:
        """What two sweeps must share to share a study: recipe, space and objectives."""
        searched = [self.recipe, self.space, self.settings.objectives]
        return hashlib.sha256(json.dumps(searched, ensure_ascii=False).encode()).hexdigest()[:16]

    def check(self) -> None:
        """Raises RecipeError where a path, a bound or a choice of the space does not fit the recipe."""
        kept = self._to_ranker["steps"]
        whole = tomllib.loads(self.recipe)["steps"]
        space = self.searched()
        for path, values in space.probes():
            first = path.partition(".")[0]
            if first in whole and first not in kept:
                raise RecipeError(f"a sweep ends with the recommender, so '{first}' never runs in it", ("space", path))
            try:
                self.trial_recipe(values, self.recipe_name)
            except RecipeError as error:
                tried = json.dumps(values[path], ensure_ascii=False)
                said = error.message if ".".join(error.path) == path else f"{tried} does not fit: {error}"
                raise RecipeError(said, ("space", path)) from None

    @cached_property
    def _to_ranker(self) -> Raw:
        raw = tomllib.loads(self.recipe)
        planned = plan(from_raw(raw, self.recipe_name), raw.get("seeds", [42])[0])
        ranker = planned.job_of(Ranker)
        if ranker is None:
            raise UserError("the recipe trains no recommender, so there is nothing to tune; add a step that does")
        if planned.leaks:
            raise UserError(
                f"'{', '.join(planned.leaks)}' looks at held-out data on purpose, and a sweep would tune on them; "
                "choose its sound variant"
            )
        jobs = planned.jobs[: planned.jobs.index(ranker) + 1]
        kept = [job.name for job in jobs if job.step.data_access != "test"]
        tables = {name: table for name, table in raw.items() if not isinstance(table, dict) or name in kept}
        # The planner then refuses whatever a choice would bring in that looks at held-out data.
        return {**tables, "steps": kept, "allow_leaks": False}

    def message(self) -> dict[str, Any]:
        """The sweep as JSON data that another process understands, with absolute folders."""
        folders = {"store": str(self.machine.store.absolute()), "cache": str(self.machine.cache.absolute())}
        return {
            "name": self.name,
            "recipe": self.recipe,
            "recipe_name": self.recipe_name,
            "space": self.space,
            "settings": self.settings.model_dump(mode="json"),
            "machine": {**self.machine.model_dump(mode="json"), **folders},
            "storage": self.storage if is_url(self.storage) else str(Path(self.storage).absolute()),
        }

    @classmethod
    def of_message(cls, sent: dict[str, Any]) -> Sweep:
        """The sweep from `message`."""
        return cls(
            **{
                **sent,
                "settings": Settings.model_validate(sent["settings"]),
                "machine": Machine.model_validate(sent["machine"]),
            }
        )


def sweep_of(
    recipe: Recipe, space: Raw, settings: Settings, machine: Machine, name: str | None, storage: str | None
) -> Sweep:
    """A sweep that has been checked. name: by default the recipe's. storage: by default a journal file in the store.

    Raises RecipeError where the space is wrong, and UserError where a sweep of this recipe is not possible.
    """
    named = name or recipe.name
    if not _NAME.fullmatch(named):
        raise UserError(f"--name: '{named}' is to be the name of a file; use letters, digits, dots and dashes")
    place = storage or str(machine.store / "sweeps" / f"{named}.journal")
    made = Sweep(named, recipe.toml(), recipe.name, space, settings, machine, place)
    made.check()
    return made


def is_url(storage: str) -> bool:
    """Whether a storage is a database, and not a journal file."""
    return "://" in storage


# The study of a sweep: opened or joined, who proposes and prunes, and what becomes of trials whose process died.


WORKER = "worker"
"""User attribute of a trial: who computes it."""
REASON = "reason"
"""User attribute of a trial that failed: why."""
INTERRUPTED = "interrupted"
"""User attribute of a trial that a person stopped."""

_SEARCHED = "searched"
_RETRIES = 2
_EPOCHS_BEFORE_PRUNING = 3
_HEARTBEAT_SECONDS = 10
_GRACE_SECONDS = 60
_REASON_CHARACTERS = 200


def open_study(sweep: Sweep) -> Study:
    """The study of this name, made where it does not exist. Raises UserError where its storage cannot be reached, or
    where it searches something else.
    """
    import optuna

    _quieten()
    try:
        study = optuna.create_study(
            study_name=sweep.name,
            storage=_storage(sweep.storage),
            directions=sweep.settings.directions,
            pruner=_pruner(sweep.settings),
            load_if_exists=True,
        )
        known = study.user_attrs.get(_SEARCHED)
        if known is None:
            study.set_user_attr(_SEARCHED, sweep.identity())
            study.set_metric_names(list(sweep.settings.objectives))
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - databases and their drivers raise what they like
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:_REASON_CHARACTERS]
        raise UserError(f"--storage: {shown_storage(sweep.storage)} cannot be used ({reason})") from None
    if known not in (None, sweep.identity()):
        raise UserError(
            f"the study '{sweep.name}' in {shown_storage(sweep.storage)} searches another recipe, space or objective; "
            "choose another --name"
        )
    return study


def _quieten() -> None:
    """Have Optuna log errors alone, and not say which of its parts may change."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


def shown_storage(storage: str) -> str:
    """A storage as it may be printed: without its password."""
    if not is_url(storage):
        return storage
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(storage).render_as_string(hide_password=True)
    except ArgumentError:
        return storage.partition("://")[0] + "://…"


def _storage(place: str) -> BaseStorage:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if is_url(place):
        return RDBStorage(
            place,
            engine_kwargs={"pool_pre_ping": True},
            heartbeat_interval=_HEARTBEAT_SECONDS,
            grace_period=_GRACE_SECONDS,
            heartbeat_stale_trial_callback=_retry(),
        )
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(place, lock_obj=_JournalLock(place)))


class _JournalLock:
    """A lock of a journal file that the operating system frees when its owner dies; Optuna's own stays for 30 s."""

    def __init__(self, place: str) -> None:
        self._lock = FileLock(f"{place}.writing")

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._lock.acquire()
        return True

    def release(self) -> None:
        """Let others write."""
        self._lock.release()


def _pruner(settings: Settings) -> BasePruner:
    from optuna import pruners

    if not settings.prunes:
        return pruners.NopPruner()
    if settings.pruner == "hyperband":
        return pruners.HyperbandPruner()
    return pruners.MedianPruner(n_warmup_steps=_EPOCHS_BEFORE_PRUNING)


def sampler(settings: Settings, trial: int) -> BaseSampler:
    """Who proposes the settings of the trial of this number, the same ones whether the sweep was interrupted or not.

    Raises UserError where the sampler cannot do what is asked.
    """
    from optuna import samplers

    _quieten()
    seed = derive_seed(settings.seed, f"trial {trial}")
    several = len(settings.objectives) > 1
    if settings.sampler == "cmaes":
        if several:
            raise UserError("the sampler cmaes takes one objective; say --sampler tpe or gp for several")
        if importlib.util.find_spec("cmaes") is None:
            raise UserError("the sampler cmaes needs the package cmaes: pip install 'reaemb-bench[sweep]'")
        return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    if settings.sampler == "gp":
        return samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    if settings.sampler == "random":
        return samplers.RandomSampler(seed=seed)
    if settings.sampler == "grid":
        return samplers.BruteForceSampler(seed=seed, avoid_premature_stop=True)
    # Trials under way count as poor ones, so that processes do not crowd at one point.
    return samplers.TPESampler(seed=seed, constant_liar=True)


def used(trial: FrozenTrial) -> bool:
    """Whether a trial counts as finished: complete, pruned, failed by itself, or lost once too often."""
    from optuna.storages import RetryHeartbeatStaleTrialCallback
    from optuna.trial import TrialState

    if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
        return True
    if trial.state != TrialState.FAIL or INTERRUPTED in trial.user_attrs:
        return False
    return REASON in trial.user_attrs or len(RetryHeartbeatStaleTrialCallback.retry_history(trial)) >= _RETRIES


def _retry() -> Any:
    from optuna.storages import RetryHeartbeatStaleTrialCallback

    return RetryHeartbeatStaleTrialCallback(max_retry=_RETRIES)


@contextmanager
def at_work(sweep: Sweep) -> Iterator[str]:
    """A name for this process, and a lock file that others find free as soon as it is dead."""
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    with FileLock(_lock_file(sweep, name)):
        yield name


def requeue_lost(study: Study, sweep: Sweep) -> None:
    """Queue the settings of trials again whose process is dead.

    A process whose lock can be seen is dead when the lock is free. Of others a database knows the last heartbeat.
    """
    from optuna.storages import fail_stale_trials
    from optuna.trial import TrialState

    fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        with _claimed(trial, sweep) as lost:
            if lost:
                study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                _retry()(study, trial)


@contextmanager
def _claimed(trial: FrozenTrial, sweep: Sweep) -> Iterator[bool]:
    """Whether the trial's process is dead; inside, nobody else finds it so."""
    name = trial.user_attrs.get(WORKER)
    if name is None:
        # It died before it could say who it is.
        started = trial.datetime_start or datetime.now()
        yield datetime.now() - started > timedelta(seconds=_GRACE_SECONDS)
        return
    file = Path(_lock_file(sweep, name))
    if not file.exists():
        # Whoever shares the journal sees the lock of a living process; a database knows hosts that share no folder.
        yield not is_url(sweep.storage)
        return
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
        file.unlink(missing_ok=True)
    finally:
        lock.release()


def _lock_file(sweep: Sweep, worker: str) -> str:
    folder = sweep.locks / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / f"{worker}.lock")


# One trial: a recipe up to the recommender, executed, and measured on the validation targets.


MINUTES_TAKEN = "minutes"
"""User attribute of a trial: what its recipe takes, from an empty store on."""

Say = Callable[[str], None]


def run_trial(sweep: Sweep, values: Values, trial: Trial, say: Say) -> list[float]:
    """Execute what the trial tries, for each seed; its objectives, means over the seeds.

    Raises optuna.TrialPruned where the validation curve of the first seed says that it is not worth going on.
    """
    recipe = sweep.trial_recipe(values, f"{sweep.recipe_name}-trial-{trial.number}")
    plans = [plan(recipe, seed) for seed in recipe.seeds]
    screen = Console(file=_Warnings(say), width=10_000)
    watch = watched_by(_lines(say), *([_pruning(plans[0], trial)] if sweep.settings.prunes else []))
    results = Store(sweep.machine.store)
    with executed(plans, sweep.machine, screen, watch, Group("trial", sweep.name)):
        trial.set_user_attr(MINUTES_TAKEN, _mean([minutes(planned, results) for planned in plans]))
        measured = [objectives(planned, results, sweep.machine, sweep.settings.objectives) for planned in plans]
    return [_mean(each) for each in zip(*measured, strict=True)]


def objectives(planned: Plan, store: Store, machine: Machine, names: Sequence[str]) -> list[float]:
    """The named objectives of an executed plan. Raises UserError where a group has no validation target."""
    known = {MINUTES: minutes(planned, store)}
    noted = facts_of(planned, store, Ranker).get("best_validation_ndcg")
    if noted is not None:
        known[CURVE] = float(noted)
    if any(name not in known for name in names):
        known = {**validation(planned, store, machine), **known}
    for name in names:
        if name not in known:
            raise UserError(f"no validation target is in the group of {name}")
    return [known[name] for name in names]


def validation(planned: Plan, store: Store, machine: Machine) -> dict[str, float]:
    """Metrics of the validation targets against the whole catalogue, `validation/ndcg@10/tail` and the like."""
    from reaemb_bench.evaluation.ranking import rank_targets
    from reaemb_bench.evaluation.summary import summarise
    from reaemb_bench.recommender.score import open_ranker

    corpus, signal, ranker = (fetch(planned, store, each) for each in (Corpus, ValidationTargets, Ranker))
    if not (isinstance(corpus, Corpus) and isinstance(signal, ValidationTargets) and isinstance(ranker, Ranker)):
        raise UserError("the recipe has no validation targets or no recommender to rank them with")
    ranks = rank_targets(
        open_ranker(ranker, machine),
        corpus.training,
        signal.users,
        signal.targets,
        signal.candidates,
        popularity=corpus.popularity,
    )
    prefix = "full/"
    found = summarise(ranks).items()
    return {f"validation/{name.removeprefix(prefix)}": value for name, value in found if name.startswith(prefix)}


def minutes(planned: Plan, store: Store) -> float:
    """What the plan's steps took when they were computed, wherever that was."""
    return sum(float(store.manifest(job.key)["seconds"]) for job in planned.jobs if store.has(job.key)) / 60


def _pruning(planned: Plan, trial: Trial) -> Watch:
    ranker = planned.job_of(Ranker)

    def watch(event: Event) -> None:
        if not isinstance(event, Progressed) or event.job is not ranker or CURVE not in event.progress.values:
            return
        trial.report(event.progress.values[CURVE], event.progress.done)
        if trial.should_prune():
            from optuna import TrialPruned

            raise TrialPruned(f"{event.progress.done} {event.progress.unit}")

    return watch


def _lines(say: Say) -> Watch:
    """Progress of the steps that are computed."""
    lines: list[Lines] = []

    def watch(event: Event) -> None:
        if isinstance(event, Planned):
            lines[:] = [Lines(event.plan, say)]
        elif not (isinstance(event, Finished) and event.cached):
            lines[0](event)

    return watch


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


class _Warnings(io.StringIO):
    """A screen on which only warnings are heard: progress is told line by line as it is for all trials."""

    def __init__(self, say: Say) -> None:
        super().__init__()
        self._say = say

    def write(self, text: str) -> int:
        """Take what a console prints."""
        for line in text.splitlines():
            if line.startswith("warning:"):
                self._say(line)
        return len(text)


# What each process of a sweep does: take the next trial until as many as asked for are finished.


_SECONDS_BETWEEN_LOOKS = 0.5


def work(sweep: Sweep, say: Say, until: float | None = None) -> None:
    """Compute trials of the sweep's study until it has as many finished ones as asked for.

    Trials that other processes compute are waited for, and tried again where their process dies. until: time
    (`time.time`) from which on no trial begins.
    """
    study = open_study(sweep)
    trials = planned_trials(sweep)
    sweep.locks.mkdir(parents=True, exist_ok=True)
    claim = FileLock(sweep.locks / "claim.lock")
    with at_work(sweep) as worker:
        while until is None or time.time() < until:
            with claim:
                requeue_lost(study, sweep)
                finished, running = _counts(study)
                if finished + running < trials:
                    study.sampler = sampler(sweep.settings, len(study.get_trials(deepcopy=False)))
                    study.optimize(_objective(sweep, trials, worker, claim, say), n_trials=1, catch=(Exception,))
                    continue
            if finished >= trials:
                return
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def planned_trials(sweep: Sweep) -> int:
    """How many trials are asked for: a grid has no more than its points."""
    asked = sweep.settings.trials
    return min(asked, len(sweep.searched().grid())) if sweep.settings.sampler == "grid" else asked


def _counts(study: Study) -> tuple[int, int]:
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    return sum(map(used, trials)), sum(trial.state == TrialState.RUNNING for trial in trials)


def _objective(
    sweep: Sweep, trials: int, worker: str, claim: FileLock, say: Say
) -> Callable[[Trial], float | list[float]]:
    space = sweep.searched()

    def objective(trial: Trial) -> float | list[float]:
        from optuna import TrialPruned

        trial.set_user_attr(WORKER, worker)
        values = space.drawn(trial)
        # The next process may choose now, knowing what this one tries.
        claim.release()
        _check_not_surplus(trial, trials)
        begun = time.monotonic()

        def told(line: str) -> None:
            say(f"trial {trial.number}: {line}")

        try:
            found = run_trial(sweep, values, trial, told)
        except TrialPruned as pruned:
            told(f"pruned after {pruned}, {in_words(time.monotonic() - begun)}")
            raise
        except KeyboardInterrupt:
            trial.set_user_attr(INTERRUPTED, True)
            trial.study.enqueue_trial(trial.params)
            raise
        except Exception as error:
            if not isinstance(error, UserError):
                traceback.print_exc()
            trial.set_user_attr(REASON, reason_of(error))
            told(f"failed, {reason_of(error)}")
            raise
        pairs = zip(sweep.settings.objectives, found, strict=True)
        values_told = ", ".join(f"{name} {shown(value, name)}" for name, value in pairs)
        told(f"{values_told}, {in_words(time.monotonic() - begun)}")
        return found[0] if len(found) == 1 else found

    return objective


def _check_not_surplus(trial: Trial, trials: int) -> None:
    """Hosts that share a database but no store choose without a common lock: the later of two last trials gives way."""
    from optuna.trial import TrialState

    earlier = [each for each in trial.study.get_trials(deepcopy=False) if each.number < trial.number]
    if sum(used(each) or each.state == TrialState.RUNNING for each in earlier) >= trials:
        raise UserError("this trial is one too many")


# A process of a sweep: `python -m reaemb_bench.tuning.worker`. One JSON line in, lines of progress out. It leaves at
# once when its standard input ends, so none outlives its owner.


REFUSED = 2
"""Exit code where nobody but a person can help."""
_ORPHANED = 3


def main() -> None:
    """Work on a sweep until it is finished."""
    # Ctrl-C reaches the whole group of processes; the owner decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sent = json.loads(sys.stdin.readline())
    Thread(target=_listen, daemon=True).start()
    os.chdir(sent["folder"])

    try:
        work(Sweep.of_message(sent["sweep"]), lambda line: print(line, flush=True), sent["until"])
    except UserError as error:
        print(f"error: {error}", flush=True)
        sys.exit(REFUSED)


def _listen() -> None:
    sys.stdin.read()
    os._exit(_ORPHANED)


if __name__ == "__main__":
    main()


# A sweep in several processes of this machine; each that dies is replaced, and what it computed is tried again.


_ATTEMPTS = 10


def in_processes(sweep: Sweep, jobs: int, say: Say, until: float | None = None) -> None:
    """Have `jobs` processes work on the sweep until it is finished. Raises UserError where they die again and again."""
    crew = _Crew(sweep, jobs, say, until)
    threads = [Thread(target=crew.serve, daemon=True) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        crew.dismiss()
    if crew.refused:
        raise UserError(crew.refused[0])


class _Crew:
    def __init__(self, sweep: Sweep, jobs: int, say: Say, until: float | None) -> None:
        self.refused: list[str] = []
        self._leaving = threading.Event()
        self._processes: list[subprocess.Popen[str]] = []
        self._sent = json.dumps({"sweep": sweep.message(), "until": until, "folder": str(Path.cwd())})
        self._threads, self._say = share_of_threads(sweep.machine, jobs), say

    def serve(self) -> None:
        """Keep one process at work until one ends by itself."""
        for _ in range(_ATTEMPTS):
            process = self._start()
            code = self._heard(process)
            if code == 0 or self._leaving.is_set():
                return
            if code == REFUSED:
                return
            self._say(f"a process died (exit code {code}); another takes its place")
        self.refused.append(f"processes of the sweep died {_ATTEMPTS} times; see what they said above")

    def dismiss(self) -> None:
        """End what is still at work."""
        self._leaving.set()
        for process in self._processes:
            dismiss(process)

    def _start(self) -> subprocess.Popen[str]:
        process = start("reaemb_bench.experiments.sweep", self._threads)
        self._processes.append(process)
        return process

    def _heard(self, process: subprocess.Popen[str]) -> int:
        """Pass on what the process says; its exit code."""
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(f"{self._sent}\n")
            process.stdin.flush()
        except OSError:
            # It is dead already; its exit code tells.
            pass
        for line in process.stdout:
            if line.startswith("error: "):
                self.refused.append(line.removeprefix("error: ").strip())
            else:
                self._say(line.rstrip("\n"))
        return process.wait()
