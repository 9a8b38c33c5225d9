"""The tables of a recipe's results, and notes below them: what rows were made of and with, and signs of illness.

A result means little if its rows mix data, precisions or devices, or if it is ill although all its numbers are finite.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reaemb_bench.core.artifacts import Alignment, Corpus, Floors, Ranks, TestTargets
from reaemb_bench.core.execute import facts_of, fetch, fetch_all
from reaemb_bench.core.plan import Plan
from reaemb_bench.core.runs import Run
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.comparability import rank_signs
from reaemb_bench.evaluation.health import stage_signs
from reaemb_bench.report.alignment import alignment_table
from reaemb_bench.report.expected import Expected
from reaemb_bench.report.results import lists_table, results_table
from reaemb_bench.report.table import Table

Manifest = Mapping[str, Any]

NOTHING = Expected(())
"""What is expected of a recipe that nobody measured."""
_UNREAD = ("interactions_not_trained_on", "training_interactions", "items_not_trained_on", "users_not_trained_on")
_SHOWN = 12
"""Characters of a fingerprint in notes."""


def tables_of(plans: Sequence[Plan], results: Store, expected: Expected = NOTHING) -> list[Table]:
    """The tables of executed plans, one per seed of one recipe; none if the recipe ranks nothing, not even floors."""
    first, recipe = plans[0], plans[0].recipe
    by_plan = [fetch_all(planned, results, Ranks) for planned in plans]
    floors = fetch(first, results, Floors)
    if not by_plan[0] and floors is None:
        return []
    only = len(by_plan[0]) == 1
    named = {recipe.name if only else step: [ranks[step] for ranks in by_plan] for step in by_plan[0]}
    # If everything that depends on it is cached, the data step's own result may be gone.
    job = first.job_of(TestTargets)
    targets = fetch(first, results, TestTargets) if job is not None and results.has(job.key) else None
    sampled = None if targets is None else int(targets.candidates.shape[1])
    table = results_table(recipe.title, named, floors, first.leaks, sampled=sampled, embedder_seed=recipe.embedder_seed)
    users = len(next(iter({**by_plan[0], **({} if floors is None else floors.by_name)}.values())).users)
    table = expected.noted(table, users, facts_of(first, results, Corpus))
    origins = origin_notes({recipe.name: plan_manifests(plans, results)})
    signs = [f"warning: {sign}" for name, seeds in named.items() for sign in rank_signs(name, seeds)]
    table = replace(table, notes=(*table.notes, *origins, *signs, *health_notes(plans, results)))
    measured = [fetch_all(planned, results, Alignment) for planned in plans]
    alone = len(measured[0]) == 1
    by_step = {recipe.name if alone else step: [seed[step] for seed in measured] for step in measured[0]}
    further = (alignment_table(by_step), lists_table(named, floors))
    return [table, *(other for other in further if other is not None)]


def run_manifests(run: Run, store: Store) -> list[Manifest]:
    """The manifests of all results of a run that the store still has."""
    return _manifests((result.key for seed in run.results for result in seed), store)


def plan_manifests(plans: Sequence[Plan], store: Store) -> list[Manifest]:
    """The manifests of all results of plans that the store has."""
    return _manifests((job.key for planned in plans for job in planned.jobs), store)


def _manifests(keys: Iterable[str], store: Store) -> list[Manifest]:
    return [store.manifest(key) for key in dict.fromkeys(keys) if store.has(key)]


def data_fingerprint(manifests: Sequence[Manifest]) -> str:
    """The sha256 of everything that the data step prepared, the same as in a data card; empty if it is not known."""
    makers = (one for one in manifests if any(name.startswith("corpus/") for name in one["files"]))
    return next((str(manifest["facts"].get("sha256", "")) for manifest in makers), "")


def origin_notes(named: Mapping[str, Sequence[Manifest]]) -> list[str]:
    """The fingerprint of the data, and a warning if rows differ in it, in precision or in device.

    named: the manifests of each row's results. Of a single row, its steps are compared.
    """
    fingerprints, devices, precisions = [], [], []
    for name, manifests in named.items():
        fingerprints.append((name, data_fingerprint(manifests)[:_SHOWN]))
        known = [manifest for manifest in manifests if "machine" in manifest]
        on_gpu = [manifest for manifest in known if manifest["peak_memory_of"] == "cuda"]
        # Steps without torch leave `auto` as it is, and those without a GPU say little if others of the row have one.
        for manifest in known:
            row, precision = name if len(named) > 1 else str(manifest["step"]), manifest["machine"]["precision"]
            precisions.append((row, "" if precision == "auto" else precision))
            if manifest in (on_gpu or known):
                devices.append((row, manifest["machine"]["device"].removesuffix(" (cpu)")))
    notes = []
    for what, pairs in (("", fingerprints), ("precisions", precisions), ("devices", devices)):
        rows: dict[str, dict[str, None]] = {}
        for row, value in pairs:
            if value:
                rows.setdefault(value, {})[row] = None
        listed = "; ".join(f"{value} ({', '.join(names)})" for value, names in rows.items())
        if not what and rows:
            differ = f"prepared data differ, for example in item texts: sha256 {listed}"
            notes.append(f"data: sha256 {next(iter(rows))}" if len(rows) == 1 else differ)
        elif len(rows) > 1:
            notes.append(f"mixed {what}, which change numbers too: {listed}")
    return notes


def health_notes(plans: Sequence[Plan], store: Store) -> list[str]:
    """One line for each sign of illness among the results of plans of one recipe, one plan a seed; usually none."""
    notes, seen = [], set()
    for planned in plans:
        for job in planned.jobs:
            # If everything that depends on it is cached, the step's own result may be gone.
            if job.key not in seen and store.has(job.key):
                seen.add(job.key)
                seed = f", seed {planned.seed}" if len(plans) > 1 and job.seed is not None else ""
                facts = store.manifest(job.key)["facts"]
                notes += [f"warning: {sign}" for sign in stage_signs(f"{job.name}{seed}", facts)]
                # What training never reads; facts may be under the name of a part: `ids: trained_parameters`.
                by_name = {name.rpartition(": ")[2]: value for name, value in facts.items()}
                unread, interactions, items, users = (int(by_name.get(name, 0)) for name in _UNREAD)
                if unread:
                    notes.append(
                        f"{job.name} never reads {unread:,} of {interactions:,} training interactions "
                        f"({100 * unread / interactions:.1f} %), which floors count: older ones than head.max_length "
                        'keeps (histories = "windows" trains on them), and those of users with a single one; '
                        f"{items:,} items and {users:,} users are not trained on at all"
                    )
    # What is cut off is the same for all seeds.
    return list(dict.fromkeys(notes))
