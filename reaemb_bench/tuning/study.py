"""The study of a sweep: opened or joined, who proposes and prunes, and what becomes of trials whose process died."""

from __future__ import annotations

import importlib.util
import os
import socket
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from reaemb_bench.errors import UserError
from reaemb_bench.pipeline import derive_seed
from reaemb_bench.tuning.settings import Settings
from reaemb_bench.tuning.sweep import Sweep, is_url

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

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
        raise UserError(f"--storage: {shown(sweep.storage)} cannot be used ({reason})") from None
    if known not in (None, sweep.identity()):
        raise UserError(
            f"the study '{sweep.name}' in {shown(sweep.storage)} searches another recipe, space or objective; "
            "choose another --name"
        )
    return study


def _quieten() -> None:
    """Have Optuna log errors alone, and not say which of its parts may change."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


def shown(storage: str) -> str:
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
