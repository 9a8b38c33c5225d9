"""Tags of a tracked run: what people filter and group by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import reaemb_bench
from reaemb_bench.artifacts import Ranks
from reaemb_bench.pipeline import Plan
from reaemb_bench.runs import Group, Run
from reaemb_bench.store import Store

IDENTITY_TAG = "reaemb_bench.identity"
PARENT_TAG = "mlflow.parentRunId"
DESCRIPTION_TAG = "mlflow.note.content"
"""MLflow shows its value, which is Markdown, above a run."""
MOST_CHARACTERS = 8000
"""The longest value of a tag that MLflow takes."""


def identity_of(planned: Plan, group: Group | None) -> str:
    """What tells two tracked plans apart: the recipe's name, seed, the keys of all its results, and their group."""
    parts = [planned.recipe.name, str(planned.seed), *(f"{job.name}={job.key}" for job in planned.jobs)]
    if group is not None:
        parts += [group.kind, group.name]
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:32]


def tags_of(planned: Plan, run: Run, store: Store, group: Group | None) -> dict[str, str]:
    """The tags of one recipe and seed; what the recipe does not have is left out.

    run: the record of the plan, as far as it is known.
    """
    specs = [step.spec() for step in planned.recipe.steps.values()]
    version = _version(planned, store)
    found = {
        "method": planned.recipe.name,
        "data": run.data,
        "backbone": _use(specs, "backbone"),
        "head": _use(specs, "head"),
        "protocol": _protocol(planned, specs),
        "seed": str(planned.seed),
        "leaks": ", ".join(planned.leaks) or "none",
        "git": run.git,
        "version": version,
        "group": group.name if group else "",
        "kind": group.kind if group else "run",
        IDENTITY_TAG: identity_of(planned, group),
        "mlflow.source.name": f"reaemb-bench {version}",
        "mlflow.source.git.commit": run.git.removesuffix("-dirty"),
    }
    return {name: value for name, value in found.items() if value}


def _protocol(planned: Plan, specs: list[dict[str, Any]]) -> str:
    """How targets are chosen and what they are ranked against: `leave-last-two, whole catalogue`."""
    if planned.job_of(Ranks) is None:
        return ""
    sampled = next(_values(specs, "sampled_candidates"), None)
    parts = [_use(specs, "split"), "whole catalogue", f"{sampled} sampled beside it" if sampled else ""]
    return ", ".join(part for part in parts if part)


def _use(specs: list[dict[str, Any]], part: str) -> str:
    """The components that the steps have as this part; of a plug-in, its file's name and its class."""
    found = [each["use"] for each in _values(specs, part) if isinstance(each, Mapping) and "use" in each]
    return ", ".join(dict.fromkeys(Path(use).name for use in found))


def _values(specs: list[dict[str, Any]], setting: str) -> Iterator[Any]:
    return (spec[setting] for spec in specs if setting in spec)


def _version(planned: Plan, store: Store) -> str:
    """The version that computed the last result, which is this one where there is none yet."""
    key = planned.jobs[-1].key
    versions = store.manifest(key).get("versions", {}) if store.has(key) else {}
    return str(versions.get("reaemb-bench", reaemb_bench.__version__))
