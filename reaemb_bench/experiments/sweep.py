"""A sweep: processes compute trials of one Optuna study, each a recipe up to the recommender, on validation targets."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import socket
import time
import tomllib
import traceback
import uuid
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from contextlib import suppress
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean

import optuna
from filelock import FileLock, Timeout
from optuna import Study, TrialPruned, pruners, samplers
from optuna.storages import JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import BaseModel, ConfigDict

from reaemb_bench.core.artifacts import Alignment, Corpus, Ranker, ValidationTargets
from reaemb_bench.core.errors import RecipeError, UserError, reason_of
from reaemb_bench.core.execute import Event, Finished, Planned, Progressed, facts_of, fetch
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Plan, derive_seed, plan
from reaemb_bench.core.recipe import Raw, Recipe, from_raw
from reaemb_bench.core.runs import Group
from reaemb_bench.core.store import Store
from reaemb_bench.experiments.forecast import check_ready
from reaemb_bench.experiments.running import LONGEST_WAIT, Answer, Message, Say, executed, portable, processes
from reaemb_bench.experiments.space import CURVE, MINUTES, Settings, Space, Values, as_tables, read_space, shown
from reaemb_bench.experiments.variants import edited
from reaemb_bench.tracking.addresses import redacted
from reaemb_bench.tracking.terminal import Ended, Lines, in_words

REASON = "reason"
"""User attribute of a trial that failed: why."""
MINUTES_TAKEN = "minutes"
"""User attribute of a trial: what its recipe takes from an empty store."""

_SEARCHED, _WORKER, _INTERRUPTED = "searched", "worker", "interrupted"
_RETRIES = 2
_ATTEMPTS = 10
_EPOCHS_BEFORE_PRUNING = 3
_HEARTBEAT_SECONDS = 10
_GRACE_SECONDS = 60
_SECONDS_BETWEEN_LOOKS = 0.5
_REASON_CHARACTERS = 200
_SAMPLERS: dict[str, Callable[..., samplers.BaseSampler]] = {
    # Trials under way count as poor ones, so that processes do not crowd at one point.
    "tpe": partial(samplers.TPESampler, constant_liar=True),
    "gp": partial(samplers.GPSampler, warn_independent_sampling=False),
    "cmaes": partial(samplers.CmaEsSampler, warn_independent_sampling=False),
    "random": samplers.RandomSampler,
    "grid": partial(samplers.BruteForceSampler, avoid_premature_stop=True),
}


class Sweep(BaseModel):
    """What every process of a sweep has to know.

    name: of the study. recipe: the whole recipe as TOML, with all defaults. storage: a URL, or the path of a journal
    file. space: the table `[space]`.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    recipe: str
    recipe_name: str
    space: Raw
    settings: Settings
    machine: Machine
    storage: str

    @property
    def folder(self) -> Path:
        """The folder of this sweep's reports, in the store."""
        return self.machine.store / "sweeps" / self.name

    @property
    def in_database(self) -> bool:
        """Whether the storage is a database, and not a journal file."""
        return "://" in self.storage

    @property
    def trials(self) -> int:
        """How many trials are asked for: a grid has no more than its points."""
        asked = self.settings.trials
        return min(asked, len(self.searched.grid())) if self.settings.sampler == "grid" else asked

    @cached_property
    def searched(self) -> Space:
        """The space. Raises RecipeError that names the path of a mistake."""
        try:
            return read_space(self.space)
        except RecipeError as error:
            raise error.under("space") from None

    @cached_property
    def whole(self) -> Recipe:
        """The recipe with all its steps, the judges included."""
        return from_raw(tomllib.loads(self.recipe), self.recipe_name)

    @cached_property
    def to_ranker(self) -> Recipe:
        """The recipe up to the recommender: no step of it may open the test targets. Raises UserError."""
        planned = plan(self.whole, self.whole.seeds[0])
        aligned = self.settings.on_vectors
        last = planned.job_of(Alignment if aligned else Ranker)
        if last is None and aligned:
            raise UserError('the recipe measures no alignment; add a step `alignment` with use = "measure-alignment"')
        if last is None:
            raise UserError("the recipe trains no recommender, so there is nothing to tune; add a step that does")
        if planned.leaks:
            raise UserError(
                f"'{', '.join(planned.leaks)}' looks at held-out data on purpose, and a sweep would tune on them; "
                "choose its sound variant"
            )
        jobs = planned.jobs[: planned.jobs.index(last) + 1]
        kept = [job.name for job in jobs if job.step.data_access != "test"]
        raw = {name: table for name, table in self.whole.raw.items() if not isinstance(table, dict) or name in kept}
        # The planner then refuses a choice that would bring in a step that looks at held-out data.
        return from_raw({**raw, "steps": kept, "allow_leaks": False}, self.recipe_name)

    def trial_recipe(self, values: Values, name: str) -> Recipe:
        """Returns the recipe of a trial. Raises RecipeError if the values do not fit."""
        recipe = edited(self.to_ranker, name, as_tables(self.to_ranker.raw, values))
        plan(recipe, recipe.seeds[0])
        return recipe

    def whole_recipe(self, values: Values) -> Recipe:
        """Returns the recipe with these settings and all its steps."""
        return edited(self.whole, self.recipe_name, as_tables(self.whole.raw, values))


def sweep_of(
    recipe: Recipe, space: Raw, settings: Settings, machine: Machine, name: str | None, storage: str | None
) -> Sweep:
    """Returns a checked sweep. name: by default the recipe's. storage: by default a journal file in the store.

    Raises RecipeError if a path, a bound or a choice of the space does not fit the recipe, and UserError if a sweep of
    this recipe is not possible.
    """
    name = name or recipe.name
    if not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"--name: '{name}' is to be the name of a file; use letters, digits, dots and dashes")
    sweep = Sweep(
        name=name,
        recipe=recipe.toml(),
        recipe_name=recipe.name,
        space=space,
        settings=settings,
        machine=machine,
        storage=storage or str(machine.store / "sweeps" / f"{name}.journal"),
    )
    for path, values in sweep.searched.probes():
        first = path.partition(".")[0]
        if first in sweep.whole.steps and first not in sweep.to_ranker.steps:
            raise RecipeError(f"a sweep ends with the recommender, so '{first}' never runs in it", ("space", path))
        try:
            sweep.trial_recipe(values, recipe.name)
        except RecipeError as error:
            value = json.dumps(values[path], ensure_ascii=False)
            reason = error.message if ".".join(error.path) == path else f"{value} does not fit: {error}"
            raise RecipeError(reason, ("space", path)) from None
    return sweep


def search(sweep: Sweep, jobs: int, say: Say, timeout: float | None = None) -> None:
    """Computes trials, in `jobs` processes, until as many are finished as asked for. timeout: seconds, for new trials.

    A process that dies is replaced, and its trial is tried again. Raises UserError if the sampler cannot do what is
    asked, or if the storage cannot be used.
    """
    # Before anything runs: what is not possible costs no trial.
    if sweep.settings.sampler == "cmaes":
        if len(sweep.settings.objectives) > 1:
            raise UserError("the sampler cmaes takes one objective; say --sampler tpe or gp for several")
        if importlib.util.find_spec("cmaes") is None:
            raise UserError("the sampler cmaes needs the package cmaes: pip install 'reaemb-bench[sweep]'")
    # All that a trial may choose must be there.
    choices = [sweep.trial_recipe(values, sweep.recipe_name) for _, values in sweep.searched.probes()]
    for recipe in (sweep.to_ranker, *choices):
        check_ready([plan(recipe, recipe.seeds[0])], Store(sweep.machine.store), sweep.machine)
    trials = sweep.trials
    open_study(sweep)
    say(f"study '{sweep.name}' in {redacted(sweep.storage)}: until {trials} trials are finished")
    until = None if timeout is None else time.time() + timeout
    if jobs == 1:
        compute_trials(sweep, say, until)
        return
    storage = sweep.storage if sweep.in_database else str(Path(sweep.storage).absolute())
    sent = {**sweep.model_dump(mode="json"), "machine": portable(sweep.machine), "storage": storage}
    message = {"sweep": sent, "until": until, "folder": str(Path.cwd())}
    with processes(_take_part, sweep.machine, jobs, _ATTEMPTS) as submit:
        futures = [submit(message, say) for _ in range(jobs)]
        while wait(futures, LONGEST_WAIT).not_done:
            continue
        answers = [future.result() for future in futures]
    if reason := next((answer.reason for answer in answers if answer.reason), ""):
        raise UserError(reason)


def _take_part(message: Message, say: Say) -> Answer:
    os.chdir(message["folder"])
    try:
        compute_trials(Sweep.model_validate(message["sweep"]), say, message["until"])
    except UserError as error:
        return Answer(str(error))
    return Answer()


def open_study(sweep: Sweep) -> Study:
    """Returns the study of this name, created if it does not exist.

    Raises UserError if its storage cannot be reached, or if it searches something else.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    settings, shown_storage = sweep.settings, redacted(sweep.storage)
    # Two sweeps that share a study have these in common.
    searched = json.dumps([sweep.recipe, sweep.space, settings.objectives], ensure_ascii=False)
    identity = hashlib.sha256(searched.encode()).hexdigest()[:16]
    pruner: pruners.BasePruner = pruners.NopPruner()
    if settings.prunes and settings.pruner == "hyperband":
        pruner = pruners.HyperbandPruner()
    elif settings.prunes:
        pruner = pruners.MedianPruner(n_warmup_steps=_EPOCHS_BEFORE_PRUNING)
    try:
        if sweep.in_database:
            storage = RDBStorage(
                sweep.storage,
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=_HEARTBEAT_SECONDS,
                grace_period=_GRACE_SECONDS,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=_RETRIES),
            )
        else:
            Path(sweep.storage).parent.mkdir(parents=True, exist_ok=True)
            # The operating system frees this lock when its owner dies; Optuna's own stays for 30 s.
            lock = FileLock(f"{sweep.storage}.writing")
            storage = JournalStorage(JournalFileBackend(sweep.storage, lock_obj=lock))
        study = optuna.create_study(
            study_name=sweep.name,
            storage=storage,
            directions=settings.directions,
            pruner=pruner,
            load_if_exists=True,
        )
        known = study.user_attrs.get(_SEARCHED)
        if known is None:
            study.set_user_attr(_SEARCHED, identity)
            study.set_metric_names(list(settings.objectives))
    except Exception as error:  # noqa: BLE001 - databases and their drivers raise what they like
        reason = redacted(" ".join(f"{type(error).__name__}: {error}".split()), sweep.storage)[:_REASON_CHARACTERS]
        raise UserError(f"--storage: {shown_storage} cannot be used ({reason})") from None
    if known not in (None, identity):
        raise UserError(
            f"the study '{sweep.name}' in {shown_storage} searches another recipe, space or objective; "
            "choose another --name"
        )
    return study


def compute_trials(sweep: Sweep, say: Say, until: float | None = None) -> None:
    """Computes trials of the sweep's study until it has as many finished ones as asked for.

    Waits for trials of other processes, and tries those again whose process dies. until: time (`time.time`) from which
    on no trial begins.
    """
    study, trials, settings = open_study(sweep), sweep.trials, sweep.settings
    # Others find this lock free as soon as this process is dead.
    worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    alive, claim = _locks(sweep) / "workers" / f"{worker}.lock", FileLock(_locks(sweep) / "claim.lock")
    alive.parent.mkdir(parents=True, exist_ok=True)

    def objective(trial: Trial) -> float | list[float]:
        trial.set_user_attr(_WORKER, worker)
        values = sweep.searched.drawn(trial)
        # The next process may choose now, knowing what this one tries.
        claim.release()
        begun = time.monotonic()

        def say_of_trial(line: str) -> None:
            say(f"trial {trial.number}: {line}")

        earlier = [other for other in study.get_trials(deepcopy=False) if other.number < trial.number]
        if sum(used(other) or other.state == TrialState.RUNNING for other in earlier) >= trials:
            # Hosts that share a database but no store choose without a common lock: the later trial gives way.
            raise UserError("this trial is one too many")
        try:
            measured = run_trial(sweep, values, trial, say_of_trial)
        except TrialPruned as pruned:
            took = in_words(time.monotonic() - begun)
            say(Ended.of(f"trial {trial.number}: pruned after {pruned}, {took}"))
            raise
        except KeyboardInterrupt:
            trial.set_user_attr(_INTERRUPTED, True)
            study.enqueue_trial(trial.params)
            raise
        except Exception as error:
            if not isinstance(error, UserError):
                traceback.print_exc()
            trial.set_user_attr(REASON, reason_of(error))
            say(Ended.of(f"trial {trial.number}: failed, {reason_of(error)}", failed=True))
            raise
        pairs = zip(settings.objectives, measured, strict=True)
        results = ", ".join(f"{name} {shown(value, name)}" for name, value in pairs)
        took = in_words(time.monotonic() - begun)
        say(Ended.of(f"trial {trial.number}: {results}, {took}", measured[0]))
        return measured[0] if len(measured) == 1 else measured

    with FileLock(alive):
        while until is None or time.time() < until:
            with claim:
                _requeue_lost(study, sweep)
                known = study.get_trials(deepcopy=False)
                finished = sum(map(used, known))
                if finished + sum(trial.state == TrialState.RUNNING for trial in known) < trials:
                    # A trial's seed goes by its number: it tries the same whether the sweep was interrupted or not.
                    seed = derive_seed(settings.seed, f"trial {len(known)}")
                    study.sampler = _SAMPLERS[settings.sampler](seed=seed)
                    study.optimize(objective, n_trials=1, catch=(Exception,))
                    continue
            if finished >= trials:
                return
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def used(trial: FrozenTrial) -> bool:
    """Returns whether a trial counts as finished: complete, pruned, failed by itself, or lost once too often."""
    if trial.state != TrialState.FAIL or _INTERRUPTED in trial.user_attrs:
        return trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    return REASON in trial.user_attrs or len(RetryHeartbeatStaleTrialCallback.retry_history(trial)) >= _RETRIES


def _requeue_lost(study: Study, sweep: Sweep) -> None:
    """Queues the settings of trials again whose process is dead; the caller holds the lock of the claims."""
    fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        now, lost = datetime.now(), False
        if (worker := trial.user_attrs.get(_WORKER)) is None:
            # Its process died before it could say which one it is, or is about to say so.
            lost = (now - (trial.datetime_start or now)).total_seconds() > _GRACE_SECONDS
        elif not (file := _locks(sweep) / "workers" / f"{worker}.lock").exists():
            # All processes on a journal share its folder of locks; a database knows others by their heartbeat.
            lost = not sweep.in_database
        else:
            with suppress(Timeout), FileLock(file, timeout=0):
                file.unlink(missing_ok=True)
                lost = True
        if lost:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            RetryHeartbeatStaleTrialCallback(max_retry=_RETRIES)(study, trial)


def _locks(sweep: Sweep) -> Path:
    """The folder in which processes see which others live: next to the journal, or in the store for a database."""
    return sweep.folder if sweep.in_database else Path(sweep.storage).parent / sweep.name


def run_trial(sweep: Sweep, values: Values, trial: Trial, say: Say) -> list[float]:
    """Executes what the trial tries, for each seed; returns its objectives, means over the seeds.

    Raises optuna.TrialPruned if the validation curve of the first seed says that it is not worth going on.
    """
    recipe = sweep.trial_recipe(values, f"{sweep.recipe_name}-trial-{trial.number}")
    plans = [plan(recipe, seed) for seed in recipe.seeds]
    ranker, store, names = plans[0].job_of(Ranker), Store(sweep.machine.store), sweep.settings.objectives
    lines: list[Lines] = []

    def watch(event: Event) -> None:
        if isinstance(event, Planned):
            lines[:] = [Lines(event.plan, say)]
        elif not (isinstance(event, Finished) and event.cached):
            lines[0](event)
        if sweep.settings.prunes and isinstance(event, Progressed) and event.job is ranker:
            progress = event.progress
            if CURVE in progress.values:
                trial.report(progress.values[CURVE], progress.done)
                if trial.should_prune():
                    raise TrialPruned(f"{progress.done} {progress.unit}")

    with executed(plans, sweep.machine, say, watch, Group("trial", sweep.name)):
        trial.set_user_attr(MINUTES_TAKEN, fmean(minutes(planned, store) for planned in plans))
        by_seed = [objectives(planned, store, sweep.machine, names) for planned in plans]
    return [fmean(seeds) for seeds in zip(*by_seed, strict=True)]


def objectives(planned: Plan, store: Store, machine: Machine, names: Sequence[str]) -> list[float]:
    """Returns the named objectives of an executed plan. Raises UserError if a group has no validation target."""
    known = {MINUTES: minutes(planned, store)}
    noted = facts_of(planned, store, Ranker).get("best_validation_ndcg")
    if noted is not None:
        known[CURVE] = float(noted)
    aligned = fetch(planned, store, Alignment)
    if aligned is not None:
        known |= {f"alignment/{name}": value for name, value in aligned.values.items()}
    if any(name not in known for name in names):
        known = {**validation(planned, store, machine), **known}
    for name in names:
        if name not in known:
            raise UserError(f"no validation target is in the group of {name}")
    return [known[name] for name in names]


def validation(planned: Plan, store: Store, machine: Machine) -> dict[str, float]:
    """Returns metrics of the validation targets against the whole catalogue, such as `validation/ndcg@10/tail`."""
    from reaemb_bench.evaluation.ranking import rank_targets
    from reaemb_bench.evaluation.summary import summarise
    from reaemb_bench.recommender.score import open_ranker

    corpus, targets = fetch(planned, store, Corpus), fetch(planned, store, ValidationTargets)
    ranker = fetch(planned, store, Ranker)
    if corpus is None or targets is None or ranker is None:
        raise UserError("the recipe has no validation targets or no recommender to rank them with")
    scorer, judged = open_ranker(ranker, machine), (targets.users, targets.targets, targets.candidates)
    metrics = summarise(rank_targets(scorer, corpus.training, *judged, popularity=corpus.popularity))
    full = {name.removeprefix("full/"): value for name, value in metrics.items() if name.startswith("full/")}
    return {f"validation/{name}": value for name, value in full.items()}


def minutes(planned: Plan, store: Store) -> float:
    """Returns what the plan's steps took when they were computed."""
    return sum(float(store.manifest(job.key)["seconds"]) for job in planned.jobs if store.has(job.key)) / 60
