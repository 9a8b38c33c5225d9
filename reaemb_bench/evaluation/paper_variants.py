"""What the released code of ReaEmb (arXiv 2606.16703) does differently from its text, if a recipe can choose it.

The numbers D1 to D19 are ours; differences that no setting reproduces are absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reaemb_bench.core.component import Component, components_in
from reaemb_bench.core.recipe import Recipe
from reaemb_bench.data.sources.yelp import FROM_THE_FUTURE

EFFECTS = {
    "D1": "neighbours are counted on validation and test items too: the reward knows the answers, and all numbers "
    "after it are too high",
    "D2": "positions read the items that they are trained to predict, so training is too easy and ranking worse",
    "D3": "the item with the last number has no vector and cannot be recommended",
    "D4": "the rotary embedding is not a rotation: an item's vector changes with the padding of its batch",
    "D5": "one baseline for all items rewards easy items instead of good noise; equal rewards still push",
    "D6": "the gradient is of the prompt's own tokens, not of the sampled thought; its density is never evaluated",
    "D7": "ranks are whole numbers that little noise seldom changes, so most groups teach nothing",
    "D9": "the thought can change 2 of the L states that are averaged, about 2/L of the vector",
    "D10": "texts are embedded with an instruction line that training left out",
    "D12": "padding is read as if it were history, most of all in short histories",
    "D14": "one position per user is trained and other heads train all, so heads are not compared on equal terms",
    "D17": "the item texts tell how the business fared until the data were dumped, test time included",
    "D18": "the targets move with the vectors that they judge and, transposed, are not distributions",
    "D19": "the thought is far larger than the token embeddings, an outlier among the inputs",
}
"""What each variant does to results."""


@dataclass(frozen=True)
class Variant:
    """A paper variant: a component, or some settings of it."""

    defect: str
    component: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def effect(self) -> str:
        """What it does to results."""
        return EFFECTS[self.defect]

    @property
    def choice(self) -> str:
        """The settings as a recipe writes them; empty if the component itself is the variant."""
        return ", ".join(f"{name} = {json.dumps(value)}" for name, value in self.settings.items())


@dataclass(frozen=True)
class Use:
    """A variant in a recipe; path: dotted path of the component that it concerns."""

    variant: Variant
    path: str


VARIANTS = (
    Variant("D1", "reinforce-leaky-paper"),
    Variant("D2", "sasrec", {"causal": False}),
    Variant("D3", "frozen", {"zero_last": True}),
    Variant("D4", "latent-thought-paper"),
    Variant("D5", "batch-baseline-paper"),
    Variant("D6", "token-logprob-paper"),
    Variant("D7", "reciprocal-log-rank"),
    Variant("D9", "llm", {"reasoner": "latent-thought-paper", "pooling": "mean"}),
    Variant("D10", "encode", {"with_instruction": True}),
    Variant("D12", "sasrec", {"attend_padding": True}),
    Variant("D12", "bert4rec", {"attend_padding": True}),
    Variant("D12", "gru4rec", {"read_padding": True}),
    Variant("D14", "gru4rec", {"targets": "last"}),
    Variant("D17", "yelp", {"with_final_counts": True}),
    Variant("D17", "reaemb-authors", {"with_final_counts": True}),
    *(Variant("D17", "table", {"attributes": column}) for column in FROM_THE_FUTURE),
    Variant("D18", "soft-target"),
    Variant("D19", "latent-thought-paper"),
    Variant("D19", "latent-thought", {"scale": "none"}),
)


def variants_in(recipe: Recipe) -> list[Use]:
    """The paper variants that a recipe uses, by number."""

    def names(setting: object) -> list[object]:
        """What a variant may call the value of a setting: the value, its parts, or the name of its component."""
        values = setting if isinstance(setting, tuple) else (setting,)
        return [value.use if isinstance(value, Component) else value for value in values]

    uses = [
        Use(variant, path)
        for variant in VARIANTS
        for step_name, step in recipe.steps.items()
        for path, part in components_in(step, step_name)
        if part.use == variant.component
        and all(wanted in names(getattr(part, name)) for name, wanted in variant.settings.items())
    ]
    return sorted(uses, key=lambda use: int(use.variant.defect[1:]))
