"""One trial: a recipe up to the recommender, executed, and measured on the validation targets."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from reaemb_bench.artifacts import Corpus, Ranker, Signal
from reaemb_bench.cli.running import executed
from reaemb_bench.errors import UserError
from reaemb_bench.machine import Machine
from reaemb_bench.pipeline import Event, Finished, Plan, Planned, Ticked, Watch, facts_of, fetch, plan, watched_by
from reaemb_bench.runs import Group
from reaemb_bench.store import Store
from reaemb_bench.tracking.terminal import Lines
from reaemb_bench.tuning.settings import CURVE, MINUTES
from reaemb_bench.tuning.space import Values
from reaemb_bench.tuning.sweep import Sweep

if TYPE_CHECKING:
    from optuna.trial import Trial

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
    from reaemb_bench.heads.scoring import open_ranker

    corpus, signal, ranker = (fetch(planned, store, each) for each in (Corpus, Signal, Ranker))
    if not (isinstance(corpus, Corpus) and isinstance(signal, Signal) and isinstance(ranker, Ranker)):
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
        if not isinstance(event, Ticked) or event.job is not ranker or CURVE not in event.tick.values:
            return
        trial.report(event.tick.values[CURVE], event.tick.done)
        if trial.should_prune():
            from optuna import TrialPruned

            raise TrialPruned(f"{event.tick.done} {event.tick.unit}")

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
