"""What each process of a sweep does: take the next trial until as many as asked for are finished."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from filelock import FileLock

from reaemb_bench.errors import UserError, reason_of
from reaemb_bench.tracking.terminal import in_words
from reaemb_bench.tuning.settings import shown
from reaemb_bench.tuning.study import INTERRUPTED, REASON, WORKER, at_work, open_study, requeue_lost, sampler, used
from reaemb_bench.tuning.sweep import Sweep
from reaemb_bench.tuning.trial import Say, run_trial

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

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
