"""Suites: every method on every data set, under every recommender, with every seed; their cells, costs and tables."""

from __future__ import annotations

import json
import os
import time
import tomllib
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, product
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from reaemb_bench.core.artifacts import Encoder, Floors, Ranker, Ranks, TestTargets
from reaemb_bench.core.errors import RecipeError, UserError, reason_of
from reaemb_bench.core.execute import Event, Finished, Planned, Started, execute, fetch, watched_by
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Job, Plan, flatten, plan
from reaemb_bench.core.recipe import Raw, from_raw, load, locate, merge, name_with_edits, parse_set, read_toml
from reaemb_bench.core.registry import nearest, settings_error
from reaemb_bench.core.runs import Group, forget, history, remember
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.groups import SHORT, TAIL
from reaemb_bench.experiments.running import LONGEST_WAIT, Answer, Message, Say, portable, processes, ray_cluster
from reaemb_bench.experiments.variants import (
    Edits,
    Variant,
    edited,
    file_near,
    judge,
    limited,
    planned_variant,
    reached,
)
from reaemb_bench.report import table as report
from reaemb_bench.report.recipe_tables import origin_notes, plan_manifests
from reaemb_bench.report.results import (
    K,
    against_best,
    check_rows,
    headline,
    seeds_note,
    sentence,
    summary_cells,
    users_notes,
)
from reaemb_bench.report.table import LEAK, SIGNIFICANT, Column, Row, Table, mark_best, mark_second
from reaemb_bench.tracking.signs import signalling
from reaemb_bench.tracking.terminal import Ended, Lines, in_words

Executor = Literal["processes", "ray"]

_DATA_STEP = "prepare"
_ATTEMPTS = 2
_TESTED = f"full/ndcg@{K}"
_METRICS = {
    f"full/{metric}@{K}{group and f'/{group}'}": Column(f"{metric.upper()}@{K}", group, group=group or "overall")
    for group in ("", "tail", "head")
    for metric in ("hr", "ndcg")
}
_COSTS: dict[Column, tuple[Callable[[list[float]], float], float]] = {
    Column("params", "trained", cost=True, group="costs", better="lower"): (fmean, 1),
    Column("tokens", cost=True, group="costs", better="lower"): (fmean, 1),
    Column("minutes", cost=True, group="costs", better="lower"): (fmean, 60),
    Column("GB", "peak", cost=True, group="costs", better="lower"): (max, 1e9),
}
"""Column -> how a cost is taken over seeds, and its unit."""
_STAR_NOTE = f"{SIGNIFICANT}: beats the best baseline, floors included, after correction"
_COSTS_NOTE = (
    "costs of one run from an empty store, without data and judging: trained parameters of all steps, tokens that "
    "language models read, wall time of the steps, the most memory that a step held (of the GPU if one is used; of the "
    "whole process if the system tells no more)"
)


class Method(Edits):
    """A method of a suite: a recipe and its edits. recipe: a file, relative to the suite, or the name of a shipped one.

    name: in the tables; by default the recipe's, with what is changed. own_head: whether the recommender stays as the
    recipe has it, instead of those in `heads`. proposed: whether to test it against the best of the others.
    """

    recipe: str
    name: str = ""
    own_head: bool = False
    proposed: bool = False


class Suite(BaseModel):
    """A validated suite; tables are raw TOML until they are merged into a recipe. title: of the tables.

    methods: one row each. set: tables merged over those of every recipe that has such a step, before the method's own.
    data: named `[prepare]` tables, which replace each recipe's. heads: named training settings for each step that has a
    setting `head`, such as `[heads.BERT4Rec]` with `head = {...}` and `epochs = 300`; without any, recipes keep their
    own. train: training settings that all `heads` share unless they set them too, methods with their own head included.
    seeds: one run each. embedder_seed: in all runs; without it each recipe says whether the
    embedder takes part in `seeds`. data_seed: of tie order and stored candidates, so that all methods are judged by the
    same targets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = ""
    methods: tuple[Method, ...] = Field(min_length=1)
    set: Raw = Field(default_factory=dict)
    data: dict[str, Raw] = Field(min_length=1)
    heads: dict[str, Raw] = Field(default_factory=dict)
    train: Raw = Field(default_factory=dict)
    seeds: tuple[int, ...] = Field(default=(42,), min_length=1)
    embedder_seed: int | None = None
    data_seed: int = 0

    @field_validator("methods", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [{"recipe": method} if isinstance(method, str) else method for method in value]


@dataclass(frozen=True)
class Cell:
    """One method on one data set under one of the suite's heads, with all seeds; named after the method.

    head: empty if the suite names none. takes_head: whether that head is trained, and not the recipe's own. budget: the
    training settings that this head does not share with the suite's others, as text.
    """

    name: str
    variant: Variant
    data: str
    head: str
    takes_head: bool
    budget: str
    proposed: bool


@dataclass(frozen=True)
class Grid:
    """All cells of a suite, and the plan of the floors of each data set."""

    cells: tuple[Cell, ...]
    floors: dict[str, Plan]

    def tasks(self) -> list[tuple[str, Plan]]:
        """Returns each distinct plan once, with its name in progress lines: all methods with one seed before the next.

        Plans that share the work of a language model are then far apart, so that processes rarely wait for each other.
        """
        tasks = {judge(planned).key: (f"{data}, floors", planned) for data, planned in self.floors.items()}
        groups: dict[tuple[str, str], list[Cell]] = {}
        for cell in self.cells:
            groups.setdefault((cell.head, cell.data), []).append(cell)
        for group in groups.values():
            for position, cell in product(range(len(group[0].variant.plans)), group):
                planned = cell.variant.plans[position]
                words = (cell.data, cell.head if cell.takes_head else "", cell.name, f"seed {planned.seed}")
                tasks.setdefault(judge(planned).key, (", ".join(filter(None, words)), planned))
        return list(tasks.values())


def read_suite(name_or_file: str | Path, sets: Sequence[str] = ()) -> Suite:
    """Reads a TOML file or a shipped suite (`suites/quick`), and applies `--set` edits.

    A data set may be the name of a recipe, whose `[prepare]` table it takes. Raises UserError naming the file and the
    place of the mistake.
    """
    file = locate(name_or_file)
    raw = read_toml(file)
    try:
        data = raw.get("data")
        for name, value in data.items() if isinstance(data, dict) else ():
            if isinstance(value, str):
                recipe = load(file_near(value, file.parent)).raw
                if _DATA_STEP not in recipe:
                    raise RecipeError(f"the recipe {value} has no table [{_DATA_STEP}] to take", ("data", name))
                raw = {**raw, "data": {**raw["data"], name: recipe[_DATA_STEP]}}
        for text in sets:
            raw = merge(raw, parse_set(text, list(Suite.model_fields), "part of the suite"))
        suite = Suite.model_validate(raw)
    except ValidationError as error:
        known = Method.model_fields if error.errors()[0]["loc"][:1] == ("methods",) else Suite.model_fields
        raise UserError(f"{file}, {settings_error(error, known)}") from None
    except RecipeError as error:
        raise UserError(f"{file}, {error}") from None
    if len(set(suite.seeds)) < len(suite.seeds):
        raise UserError(f"{file}, seeds: a seed stands twice; name each once")
    files = [str(file_near(method.recipe, file.parent)) for method in suite.methods]
    methods = [method.model_copy(update={"recipe": at}) for method, at in zip(suite.methods, files, strict=True)]
    return suite.model_copy(update={"title": suite.title or file.stem, "methods": tuple(methods)})


def grid(suite: Suite) -> Grid:
    """Plans every cell of a suite. Raises UserError naming the method, data set and head that do not fit."""
    recipes = []
    for method in suite.methods:
        try:
            recipe = load(method.recipe)
            # The suite's changes before the method's own.
            shared = {step: table for step, table in suite.set.items() if step in recipe.steps}
            changes = flatten(method.set).items()
            sets = [f"{path}={value if isinstance(value, str) else json.dumps(value)}" for path, value in changes]
            name = method.name or name_with_edits(recipe.name, sets, method.drop)
            recipe = edited(recipe, name, [shared, method.set], method.drop)
        except RecipeError as error:
            raise UserError(f"method {method.name or method.recipe}: {error}") from None
        if _DATA_STEP not in recipe.steps:
            raise UserError(f"method {name}: no step is called {_DATA_STEP}, so it cannot run on the suite's data")
        recipes.append(recipe)
    steps, names = {step for recipe in recipes for step in recipe.steps}, [recipe.name for recipe in recipes]
    if stray := [step for step in suite.set if step not in steps]:
        raise UserError(f"set.{stray[0]}: no method has a step of this name.{nearest(stray[0], steps)}")
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two methods are called '{twice[0]}'; give one of them another `name`")

    header: Raw = {"seeds": list(suite.seeds), "data_seed": suite.data_seed}
    if suite.embedder_seed is not None:
        header["embedder_seed"] = suite.embedder_seed
    floors, cells = {}, []
    for data, table in suite.data.items():
        try:
            floors_recipe = from_raw({"steps": [_DATA_STEP, "floors"], **header, _DATA_STEP: table}, "floors")
            floors[data] = plan(floors_recipe, suite.seeds[0])
        except RecipeError as error:
            raise UserError(f"data {data}: {error}") from None
    methods = zip(suite.methods, recipes, strict=True)
    for head, (data, table), (method, recipe) in product(suite.heads or [""], suite.data.items(), methods):
        raw = {**recipe.raw, **header, _DATA_STEP: table}
        trained = [name for name, step in recipe.steps.items() if "head" in type(step).model_fields]
        takes_head = bool(head and trained and not method.own_head)
        settings = merge(suite.train, suite.heads[head]) if takes_head else suite.train
        if head:
            # Not merged: a head is replaced whole, since all methods are to share it.
            raw |= {step: {**recipe.raw.get(step, {}), **settings} for step in trained}
        try:
            variant = planned_variant(from_raw(raw, recipe.name), recipe.name, suite.seeds)
        except RecipeError as error:
            under = f" under {head}" if takes_head else ""
            raise UserError(f"method {recipe.name} on {data}{under}: {error}") from None
        own = {name: value for name, value in suite.heads.get(head, {}).items() if name != "head"}
        budget = ", ".join(f"{path} = {json.dumps(value)}" for path, value in flatten(own).items())
        cells.append(Cell(recipe.name, variant, data, head, takes_head, budget, method.proposed))
    return Grid(tuple(cells), floors)


def limited_grid(grid: Grid) -> Grid:
    """Returns the cells as smoke runs, see `limited`; their names say so."""
    cells = []
    for cell in grid.cells:
        recipe = limited(cell.variant.recipe)
        cells.append(replace(cell, name=recipe.name, variant=planned_variant(recipe, recipe.name)))
    floors = {data: plan(limited(planned.recipe), planned.seed) for data, planned in grid.floors.items()}
    return Grid(tuple(cells), floors)


def compute_cells(
    grid: Grid, machine: Machine, jobs: int, executor: Executor, group: Group, say: Say, without: Collection[str] = ()
) -> dict[str, str]:
    """Computes what the store lacks, `jobs` cells at once; returns why cells failed, by the key of their judge.

    without: keys of the judges of cells that are not computed.
    A cell whose process dies is tried once more. A cell that needs a step that has failed already is not tried.
    """
    store, tasks, begun = Store(machine.store), grid.tasks(), time.monotonic()
    waiting = [
        (label, planned)
        for label, planned in reversed(tasks)
        if judge(planned).key not in without and not store.has(judge(planned).key)
    ]
    total, ended = len(waiting), 0
    say(f"{total} of {len(tasks)} cells to compute")
    under_way: dict[Future[Answer], tuple[str, Plan]] = {}
    failed_steps: dict[str, Answer] = {}
    reasons: dict[str, str] = {}

    def say_of(label: str, line: str) -> None:
        say(f"{label}: {line}")

    sent = {"machine": portable(machine), "folder": str(Path.cwd())}
    pool = ray_cluster(compute, machine, jobs) if executor == "ray" else processes(compute, machine, jobs, _ATTEMPTS)
    with pool as submit:
        while waiting or under_way:
            while waiting and len(under_way) < jobs:
                label, planned = waiting.pop()
                failed = [job.key for job in planned.jobs if job.key in failed_steps and not store.has(job.key)]
                if failed:
                    future: Future[Answer] = Future()
                    future.set_result(failed_steps[failed[0]])
                else:
                    recipe = {"recipe": planned.recipe.toml(), "name": planned.recipe.name, "seed": planned.seed}
                    future = submit({**sent, **recipe}, partial(say_of, label))
                under_way[future] = label, planned
            for future in wait(under_way, LONGEST_WAIT, return_when=FIRST_COMPLETED).done:
                (label, planned), error = under_way.pop(future), future.exception()
                answer = Answer(f"its process died twice ({type(error).__name__})") if error else future.result()
                if answer.reason:
                    reasons[judge(planned).key] = answer.reason
                    failed_steps.setdefault(answer.key, answer)
                else:
                    # At once, because an interrupted suite may go on another day.
                    remember_cells(grid, store, group, planned)
                ended += 1
                outcome = f"failed, {answer.reason}" if answer.reason else "done"
                line = f"{label}: {outcome} [{ended}/{total}, {in_words(time.monotonic() - begun)}]"
                value = None if answer.reason else reached([planned], store)
                say(Ended.of(line, value, failed=bool(answer.reason)))
    return reasons


def compute(message: Message, say: Say) -> Answer:
    """Executes the plan of a message in a process of the pool. Errors of a step become an answer."""
    os.chdir(message["folder"])
    machine = Machine.model_validate(message["machine"])
    under_way: list[Job] = []
    try:
        planned = plan(from_raw(tomllib.loads(message["recipe"]), message["name"]), message["seed"])
        lines = Lines(planned, say)

        def watch(event: Event) -> None:
            if isinstance(event, Started):
                under_way[:] = [event.job]
            elif isinstance(event, Finished):
                under_way.clear()
            if not (isinstance(event, Planned) or (isinstance(event, Finished) and event.cached)):
                lines(event)

        store = Store(machine.store)
        with signalling(planned, store) as course:
            execute(planned, store, machine, watched_by(course, watch))
    except Exception as error:  # noqa: BLE001 - one method's failure must not cost the others their results
        if not isinstance(error, UserError):
            traceback.print_exc()
        reason = reason_of(error)
        return Answer(f"{under_way[0].name}: {reason}", under_way[0].key) if under_way else Answer(reason)
    return Answer()


def remember_cells(grid: Grid, store: Store, group: Group, of: Plan | None = None) -> None:
    """Records the finished seeds of each cell, and of each data set's floors, as one run, so that they can be compared.

    Records of fewer of these seeds are replaced. of: only the cells that contain this plan's result.
    """
    for plans in (*(cell.variant.plans for cell in grid.cells), *((floors,) for floors in grid.floors.values())):
        finished = [planned for planned in plans if store.has(judge(planned).key)]
        if finished and (of is None or judge(of).key in {judge(planned).key for planned in finished}):
            whole = remember(finished, store, group)
            for run in history(store):
                same = run.name == whole.name and run.groups == (group,)
                if same and set(run.results) < set(whole.results):
                    forget(store, run)


def costs(planned: Plan, store: Store) -> tuple[float | None, ...] | None:
    """Returns what a run of a plan takes on an idle machine, from an empty store, without data and judge.

    These are trained parameters and tokens that a language model read, sums over steps; seconds, a sum too; and the
    bytes of the step that held the most. Parameters or tokens are None if a step that trains, or reads texts by a
    language model, noted none, because what is unknown is not 0. Returns None if a result is gone.
    """
    last = judge(planned)
    wanted = {last.key}
    for job in reversed(planned.jobs):
        if job.key in wanted:
            wanted.update(key for _, key in job.inputs.values())
    jobs = [job for job in planned.jobs if job.key in wanted - {last.key} and TestTargets not in job.makes]
    if not all(store.has(job.key) for job in jobs):
        return None
    manifests, active, trains = [store.manifest(job.key) for job in jobs], [], []
    for job in jobs:
        reads = any(artifact is Encoder for artifact, _ in job.inputs.values())
        # With no training steps, an encoder is handed on as it is.
        active.append(reads and getattr(job.step, "steps", None) != 0)
        trains.append(Ranker in job.makes or (Encoder in job.makes and active[-1]))
    totals: list[float | None] = []
    for fact, expected in (("trained_parameters", trains), ("tokens", active)):
        # A step of several parts may note one for each, as in `ids: trained_parameters`.
        by_step = [
            [float(value) for name, value in manifest["facts"].items() if name.rpartition(": ")[2] == fact]
            for manifest in manifests
        ]
        unknown = any(needed and not noted for needed, noted in zip(expected, by_step, strict=True))
        totals.append(None if unknown else sum(map(sum, by_step)))
    seconds = sum(float(manifest["seconds"]) for manifest in manifests)
    return *totals, seconds, max((float(manifest["peak_memory_bytes"]) for manifest in manifests), default=0.0)


def suite_tables(grid: Grid, store: Store, reasons: Mapping[str, str]) -> list[Table]:
    """Returns a table for each data set and head; cells that the store lacks are missing, with the reason below.

    reasons: by the key of the judge's result. Raises UserError if methods did not rank the same targets.
    """
    by_table: dict[tuple[str, str], list[Cell]] = {}
    for cell in sorted(grid.cells, key=lambda cell: list(grid.floors).index(cell.data)):
        by_table.setdefault((cell.data, cell.head), []).append(cell)
    return [
        _table(", ".join(filter(None, names)), cells, grid.floors[names[0]], store, reasons)
        for names, cells in by_table.items()
    ]


def _table(title: str, cells: Sequence[Cell], floors_plan: Plan, store: Store, reasons: Mapping[str, str]) -> Table:
    floors = fetch(floors_plan, store, Floors) if store.has(judge(floors_plan).key) else None
    by_floor = floors.by_name if floors is not None else {}
    finished = {
        cell.name: [planned for planned in cell.variant.plans if store.has(judge(planned).key)] for cell in cells
    }
    ranks = {
        name: [seed for planned in plans if (seed := fetch(planned, store, Ranks)) is not None]
        for name, plans in finished.items()
    }
    ranked = {name: seeds for name, seeds in ranks.items() if seeds}
    check_rows(ranked, floors)
    compared = against_best(ranked, by_floor, [cell.name for cell in cells if cell.proposed], K)
    winners = {comparison.first for comparison in compared if comparison.shown and comparison.difference > 0}

    rows, missing = [], report.Cell(None)
    for cell in cells:
        leaking = bool(cell.variant.plans[0].leaks)
        if seeds := ranks[cell.name]:
            rows.append(Row(cell.name, tuple(summary_cells(seeds, _METRICS)), leaks=leaking))
        else:
            rows.append(Row(cell.name, (missing,) * len(_METRICS), leaks=leaking))
    rows += [Row(name, tuple(summary_cells([seed], _METRICS)), floor=True) for name, seed in by_floor.items()]
    tested = list(_METRICS).index(_TESTED)
    whole = []
    for row in mark_second(mark_best(rows)):
        values = list(row.cells)
        if row.name in winners:
            values[tested] = replace(values[tested], significant=True)
        paid = [] if row.floor else [cost for planned in finished[row.name] if (cost := costs(planned, store))]
        for position, (over_seeds, unit) in enumerate(_COSTS.values()):
            known = [spent for by_cost in paid if (spent := by_cost[position]) is not None]
            complete = known and len(known) == len(paid)
            values.append(report.Cell(over_seeds(known) / unit) if complete else missing)
        whole.append(replace(row, cells=tuple(values)))

    everything = [*chain.from_iterable(ranks.values()), *by_floor.values()]
    notes = users_notes(everything[0], TAIL, SHORT) if everything and len(everything[0].users) else []
    notes += seeds_note([len(seeds) for seeds in ranked.values()], None)
    # Where one embedder serves all seeds, ± does not include its randomness.
    recipes = {cell.name: cell.variant.recipe for cell in cells if len(cell.variant.plans) > 1}
    fixed = [
        f"{name} (seed {recipe.embedder_seed})"
        for name, recipe in recipes.items()
        if recipe.embedder_seed is not None and any(step.randomness == "embedder" for step in recipe.steps.values())
    ]
    notes += [f"one embedder for all seeds of the recommender: {', '.join(fixed)}"] if fixed else []
    notes += origin_notes({name: plan_manifests(plans, store) for name, plans in finished.items() if plans})
    notes += [_STAR_NOTE, *map(sentence, compared)] if compared else []
    notes += [_COSTS_NOTE]
    if cells[0].budget:
        notes.append(f"{cells[0].head} is trained with settings of its own: {cells[0].budget}")
    if own := [cell.name for cell in cells if cell.head and not cell.takes_head]:
        notes.append(f"not under {cells[0].head} but as in their recipes: {', '.join(own)}")
    if leaks := list(dict.fromkeys(step for cell in cells for step in cell.variant.plans[0].leaks)):
        notes.append(f"{LEAK} looks at held-out data on purpose ({', '.join(leaks)}): no fair comparison")
    # A line for each reason, with the methods and seeds that it has cost their cell.
    lost: dict[str, dict[str, list[str]]] = {}
    plans = [(cell.name, planned) for cell in cells for planned in cell.variant.plans]
    for name, planned in (*plans, ("floors", floors_plan)):
        if not store.has(key := judge(planned).key):
            by_method = lost.setdefault(reasons.get(key, "not computed"), {})
            by_method.setdefault(name, []).append(str(planned.seed))
    for reason, by_method in lost.items():
        seeds_of = (f"{name}, seed{'s' if len(of) > 1 else ''} {', '.join(of)}" for name, of in by_method.items())
        notes.append(f"missing: {'; '.join(seeds_of)}: {reason}")
    verdict = "; ".join(headline([comparison], by_floor) for comparison in compared)
    return Table(title, (*_METRICS.values(), *_COSTS), tuple(whole), tuple(notes), verdict=verdict)
