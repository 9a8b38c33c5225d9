"""What the rows of a table were made of and with: the fingerprint of their data, their precisions and devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reaemb_bench.core.plan import Plan
from reaemb_bench.core.runs import Run
from reaemb_bench.core.store import Store

Manifest = Mapping[str, Any]

_SHOWN = 12
"""Characters of a fingerprint in notes."""


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
    for manifest in manifests:
        if any(name.startswith("corpus/") for name in manifest["files"]):
            return str(manifest["facts"].get("sha256", ""))
    return ""


def origin_notes(named: Mapping[str, Sequence[Manifest]]) -> list[str]:
    """The fingerprint of the data, and a warning if rows differ in it, in precision or in device.

    named: the manifests of each row's results. Of a single row, its steps are compared.
    """
    prints = _grouped((name, data_fingerprint(manifests)[:_SHOWN]) for name, manifests in named.items())
    if len(prints) == 1:
        notes = [f"data: sha256 {next(iter(prints))}"]
    else:
        notes = [f"prepared data differ, for example in item texts: sha256 {_listed(prints)}"] if prints else []
    devices, precisions = [], []
    for name, manifests in named.items():
        known = [manifest for manifest in manifests if "machine" in manifest]
        # Steps without torch leave `auto` as it is, and those without a GPU say little if others of the row have one.
        precisions += [(_row(named, name, manifest), manifest["machine"]["precision"]) for manifest in known]
        on_gpu = [manifest for manifest in known if manifest["peak_memory_of"] == "cuda"]
        devices += [(_row(named, name, manifest), manifest["machine"]["device"]) for manifest in on_gpu or known]
    by_precision = _grouped((row, precision) for row, precision in precisions if precision != "auto")
    by_device = _grouped((row, device.removesuffix(" (cpu)")) for row, device in devices)
    for what, rows in (("precisions", by_precision), ("devices", by_device)):
        if len(rows) > 1:
            notes.append(f"mixed {what}, which change numbers too: {_listed(rows)}")
    return notes


def _row(named: Mapping[str, Any], name: str, manifest: Manifest) -> str:
    return name if len(named) > 1 else str(manifest["step"])


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """From (row, value) the rows of each value, if there is a value."""
    rows: dict[str, dict[str, None]] = {}
    for row, value in pairs:
        if value:
            rows.setdefault(value, {})[row] = None
    return {value: list(names) for value, names in rows.items()}


def _listed(rows: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in rows.items())
