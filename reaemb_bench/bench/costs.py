"""What a method costs, from the manifests of its steps."""

from __future__ import annotations

from dataclasses import dataclass

from reaemb_bench.artifacts import Holdout
from reaemb_bench.bench.grid import judge
from reaemb_bench.pipeline import Job, Plan
from reaemb_bench.store import Store


@dataclass(frozen=True)
class Costs:
    """What one run of a method takes, had it the machine to itself and an empty store.

    trained_parameters, tokens: sums of what its steps noted, all trained parts and all tokens that a language model
    read. seconds: of its steps' wall time. peak_memory_bytes: the most that any of them held.
    """

    trained_parameters: float
    tokens: float
    seconds: float
    peak_memory_bytes: float


def costs(planned: Plan, store: Store) -> Costs | None:
    """Costs of all that a plan's ranks depend on, without the data step and the judge; None where a result is gone."""
    jobs = _learning(planned)
    if not all(store.has(job.key) for job in jobs):
        return None
    manifests = [store.manifest(job.key) for job in jobs]
    return Costs(
        trained_parameters=sum(float(each["facts"].get("trained_parameters", 0)) for each in manifests),
        tokens=sum(float(each["facts"].get("tokens", 0)) for each in manifests),
        seconds=sum(float(each["seconds"]) for each in manifests),
        peak_memory_bytes=max((float(each["peak_memory_bytes"]) for each in manifests), default=0.0),
    )


def _learning(planned: Plan) -> list[Job]:
    judged = judge(planned)
    wanted = {judged.key}
    for job in reversed(planned.jobs):
        if job.key in wanted:
            wanted.update(key for _, key in job.inputs.values())
    return [job for job in planned.jobs if job.key in wanted - {judged.key} and Holdout not in job.makes]
