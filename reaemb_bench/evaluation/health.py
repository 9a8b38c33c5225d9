"""Signs that a stage is ill although all its numbers are finite, read from the facts that its step notes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

HIGHEST_COSINE = 0.9999
"""Mean cosine above which all vectors are one. Frozen language models reach .998 and are well: what their vectors
share, reducers take away."""
LEAST_DIMENSIONS = 2.0
"""Effective dimensions below which vectors of at least `LEAST_WIDTH` lie along a line."""
LEAST_WIDTH = 16
LEAST_OWN_FIRST = 0.5
"""Share of rows whose largest soft target is the item itself, below which a contrastive loss teaches something else."""
LEAST_MOVED = 0.001
"""Share of the vectors' variance below which a stage of training has changed nothing."""
MOST_HUBS = 0.5
"""Share of lists that the most listed 2.5 % of the items may hold."""
MOST_DEAD_GROUPS = 0.5
"""Share of groups of rollouts without signal above which reinforcement learns from few items."""


def stage_signs(step: str, facts: Mapping[str, Any]) -> Iterator[str]:
    """Lines about what is wrong with a step, by the facts that it has noted so far; usually none."""
    yield from (str(text) for name, text in facts.items() if name.startswith("warning: "))
    if facts.keys() >= {"mean_cosine", "effective_dimensions", "width"}:
        cosine, dimensions, width = facts["mean_cosine"], facts["effective_dimensions"], facts["width"]
        if cosine > HIGHEST_COSINE or (width >= LEAST_WIDTH and dimensions < LEAST_DIMENSIONS):
            yield (
                f"the vectors of {step} have nearly collapsed (mean cosine {cosine:.4f}, {dimensions:.1f} effective "
                f"dimensions of {width}; limits {HIGHEST_COSINE:g} and {LEAST_DIMENSIONS:g}): items can hardly be told "
                "apart; train the encoder with fewer steps or a lower learning rate, or look at its texts"
            )
    when = "final" if "final_loss" in facts else "halfway"
    if (own_first := facts.get(f"{when}_own_first", 1.0)) < LEAST_OWN_FIRST:
        yield (
            f"in {100 * own_first:.0f} % of the rows of {step} the largest target is the item itself "
            f"(limit {100 * LEAST_OWN_FIRST:.0f} %): its targets point elsewhere; say loss.similarity = "
            '"centred-cosine" with initial_temperature = 0.05'
        )
    if (loss := facts.get(f"{when}_loss", 0.0)) > facts.get("chance_loss", math.inf):
        state, learned = ("ended at", "it") if when == "final" else ("after half of its steps is", "so far it has")
        yield (
            f"the loss of {step} {state} {loss:.2f}, and equal scores have {facts['chance_loss']:.2f}: {learned} "
            "learned nothing; take more steps, another similarity of the loss or a higher learning rate"
        )
    if facts.get("moved", 1.0) < LEAST_MOVED:
        yield (
            f"{step} moved the vectors by {100 * facts['moved']:.2g} % of their variance (limit "
            f"{100 * LEAST_MOVED:g} %): what follows reads the same vectors as without it"
        )
    if facts.get("hubness", 0.0) > MOST_HUBS:
        yield (
            f"2.5 % of the items hold {100 * facts['hubness']:.0f} % of all lists of nearest items in the vectors that "
            f"{step} measured (limit {100 * MOST_HUBS:.0f} %): a few hubs are near to everything"
        )
    dead = facts.get("dead_groups", 0.0)
    if dead > MOST_DEAD_GROUPS:
        yield (
            f"{100 * dead:.0f} % of the groups of {step} gave no signal, because all rollouts of an item had the same "
            f"reward (limit {100 * MOST_DEAD_GROUPS:.0f} %): raise its noise or candidates, or take a smooth reward "
            "such as softmax-likelihood"
        )
