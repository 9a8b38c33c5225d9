"""Signs that a result means little although every number of it is finite: collapsed vectors, rewards without signal.

What is measured stands among the facts of a step's manifest; `health_notes` says in a table's notes what is beyond
its limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reaemb_bench.core.store import Store
from reaemb_bench.report.table import number

if TYPE_CHECKING:
    from reaemb_bench.core.plan import Plan


HIGHEST_COSINE = 0.9999
"""Mean cosine above which all vectors are one. Frozen language models reach .998 and are well: what their vectors
share, reducers take away."""
LEAST_DIMENSIONS = 2.0
"""Effective dimensions below which vectors are wide (`LEAST_WIDTH`) but spread along a line."""
LEAST_WIDTH = 16
MOST_DEAD_GROUPS = 0.5
"""Share of groups of rollouts without signal above which reinforcement learns from few items."""

_VECTORS = {"mean_cosine", "effective_dimensions", "width"}


def health_notes(plans: Sequence[Plan], store: Store) -> list[str]:
    """One line for each sign of illness among the results of plans of one recipe, one plan a seed; usually none."""
    notes, seen = [], set()
    for planned in plans:
        for job in planned.jobs:
            # Where all that depends on it is cached, the step's own result may be gone.
            if job.key in seen or not store.has(job.key):
                continue
            seen.add(job.key)
            seed = f", seed {planned.seed}" if len(plans) > 1 and job.seed is not None else ""
            notes += [f"warning: {line}" for line in _signs(f"{job.name}{seed}", store.manifest(job.key)["facts"])]
    return notes


def _signs(step: str, facts: Mapping[str, Any]) -> Iterator[str]:
    if facts.keys() >= _VECTORS:
        yield from _collapse(step, facts["mean_cosine"], facts["effective_dimensions"], facts["width"])
    dead = facts.get("dead_groups", 0.0)
    if dead > MOST_DEAD_GROUPS:
        yield (
            f"{100 * dead:.0f} % of the groups of {step} gave no signal, because all rollouts of an item had the same "
            f"reward (limit {100 * MOST_DEAD_GROUPS:.0f} %): raise its noise or candidates, or take a smooth reward "
            "such as softmax-likelihood"
        )


def _collapse(step: str, cosine: float, dimensions: float, width: int) -> Iterator[str]:
    if cosine > HIGHEST_COSINE or (width >= LEAST_WIDTH and dimensions < LEAST_DIMENSIONS):
        yield (
            f"the vectors of {step} have nearly collapsed (mean cosine {number(cosine)}, {dimensions:.1f} effective "
            f"dimensions of {width}; limits {number(HIGHEST_COSINE)} and {LEAST_DIMENSIONS:g}): items can hardly be "
            "told apart; train the encoder with fewer steps or a lower learning rate, or look at its texts"
        )
