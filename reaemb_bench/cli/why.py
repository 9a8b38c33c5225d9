"""Why a step must run: what differs from the most similar result that the store holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from reaemb_bench.changes import differing
from reaemb_bench.pipeline import Job, Plan
from reaemb_bench.store import MANIFEST, Store
from reaemb_bench.tracking.naming import flatten

_SHOWN = 3


class Reasons:
    """Reasons for the steps of one plan, from one look through the store."""

    def __init__(self, planned: Plan, store: Store) -> None:
        self._maker = {job.key: job.name for job in planned.jobs}
        self._earlier: dict[str, list[Mapping[str, Any]]] = {}
        for file in sorted(store.root.glob(f"results/*/{MANIFEST}")):
            try:
                manifest = json.loads(file.read_text(encoding="utf-8"))
                self._earlier.setdefault(manifest["step"], []).append(flatten(manifest["identity"]))
            except (OSError, ValueError, KeyError):
                # A damaged manifest is reported by whoever needs the result; here it only explains less.
                continue

    def why(self, job: Job, needed: frozenset[str]) -> str:
        """One clause that says why `job` is not in the store."""
        upstream = [self._maker[key] for _, key in job.inputs.values() if key in needed]
        here = flatten(json.loads(json.dumps(job.identity)))
        earlier = self._earlier.get(job.name, [])
        if not earlier:
            return "new" if not upstream else f"new; waits for {_listed(upstream)}"
        changed = min((differing(each, here) for each in earlier), key=len)
        own = [text for text in changed if not text.startswith("inputs.")]
        if own:
            return "; ".join(own[:_SHOWN]) + (f" (and {len(own) - _SHOWN} more)" if len(own) > _SHOWN else "")
        if upstream:
            return f"its input from {_listed(upstream)} changes"
        return "reads other results than before: " + _listed([self._maker[key] for _, key in job.inputs.values()])


def _listed(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(names))
