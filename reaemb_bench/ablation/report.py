"""The tables of an ablation, from what the store holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from reaemb_bench.ablation.reading import Ablation
from reaemb_bench.ablation.variants import Variant
from reaemb_bench.artifacts import Floors, Ranks
from reaemb_bench.errors import UserError
from reaemb_bench.pipeline import fetch
from reaemb_bench.reporting.differences import differences_table
from reaemb_bench.reporting.results import check_comparable, results_table
from reaemb_bench.reporting.table import Table
from reaemb_bench.store import Store


def unlike(ablation: Ablation, store: Store, finished: Mapping[str, Variant]) -> dict[str, str]:
    """Why variants that were computed cannot stand beside the base: they rank other users or targets."""
    base = _ranks(ablation.base, store)[0]
    reasons = {}
    for name, variant in finished.items():
        try:
            check_comparable([base, *_ranks(variant, store)])
        except UserError as error:
            reasons[name] = str(error)
    return reasons


def ablation_tables(ablation: Ablation, store: Store, reasons: Mapping[str, str]) -> list[Table]:
    """The base, its variants and the floors; then how far each variant stands from the base.

    reasons: why a variant has no results or none that compare, by its name; it is left out, and the reason stands
    below, as does what a variant is to show, and which variants equal the base.
    """
    shown = [ablation.base, *(variant for variant in ablation.variants if variant.name not in reasons)]
    named = {variant.name: _ranks(variant, store) for variant in shown}
    leaks = {variant.name: variant.plans[0].leaks for variant in shown if variant.plans[0].leaks}
    table = results_table(
        ablation.title,
        named,
        fetch(ablation.base.plans[0], store, Floors),
        list(dict.fromkeys(step for steps in leaks.values() for step in steps)),
        embedder_seed=ablation.base.recipe.embedder_seed,
        leaking=leaks,
        compared=False,
    )
    notes = [f"{variant.name}: {variant.why}" for variant in shown if variant.why]
    notes += [f"not shown: {name}: it changes nothing in this base" for name in ablation.equal]
    notes += [f"missing: {name}: {reason}" for name, reason in reasons.items()]
    table = replace(table, notes=(*table.notes, *notes))
    if len(shown) == 1:
        return [table]
    return [table, differences_table(f"Differences from {ablation.base.name}", named, ablation.base.name, leaks=leaks)]


def _ranks(variant: Variant, store: Store) -> list[Ranks]:
    found = (fetch(planned, store, Ranks) for planned in variant.plans)
    return [ranks for ranks in found if ranks is not None]
