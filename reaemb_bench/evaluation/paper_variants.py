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


@dataclass(frozen=True)
class Variant:
    """A paper variant: a component, or some settings of it, and the effect on results."""

    defect: str
    component: str
    effect: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def choice(self) -> str:
        """The settings as a recipe writes them; empty if the component itself is the variant."""
        return ", ".join(f"{name} = {json.dumps(value)}" for name, value in self.settings.items())

    def matches(self, component: Component) -> bool:
        """Whether a component is this variant."""
        return component.use == self.component and all(
            wanted in _names(getattr(component, name)) for name, wanted in self.settings.items()
        )


@dataclass(frozen=True)
class Use:
    """A variant in a recipe; path: dotted path of the component that it concerns."""

    variant: Variant
    path: str


_PADDING = "padding is read as if it were history, most of all in short histories"
_UNSCALED = "the thought is far larger than the token embeddings, an outlier among the inputs"
_FINAL = "the item texts tell how the business fared until the data were dumped, test time included"

VARIANTS = (
    Variant(
        "D1",
        "reinforce-leaky-paper",
        "neighbours are counted on validation and test items too: the reward knows the answers, and all numbers after "
        "it are too high",
    ),
    Variant(
        "D2",
        "sasrec",
        "positions read the items that they are trained to predict, so training is too easy and ranking worse",
        {"causal": False},
    ),
    Variant(
        "D3", "frozen", "the item with the last number has no vector and cannot be recommended", {"zero_last": True}
    ),
    Variant(
        "D4",
        "latent-thought-paper",
        "the rotary embedding is not a rotation: an item's vector changes with the padding of its batch",
    ),
    Variant(
        "D5",
        "batch-baseline-paper",
        "one baseline for all items rewards easy items instead of good noise; equal rewards still push",
    ),
    Variant(
        "D6",
        "token-logprob-paper",
        "the gradient is of the prompt's own tokens, not of the sampled thought; its density is never evaluated",
    ),
    Variant(
        "D7",
        "reciprocal-log-rank",
        "ranks are whole numbers that little noise seldom changes, so most groups teach nothing",
    ),
    Variant(
        "D9",
        "llm",
        "the thought can change 2 of the L states that are averaged, about 2/L of the vector",
        {"reasoner": "latent-thought-paper", "pooling": "mean"},
    ),
    Variant(
        "D10",
        "encode",
        "texts are embedded with an instruction line that training left out",
        {"with_instruction": True},
    ),
    Variant("D12", "sasrec", _PADDING, {"attend_padding": True}),
    Variant("D12", "bert4rec", _PADDING, {"attend_padding": True}),
    Variant("D12", "gru4rec", _PADDING, {"read_padding": True}),
    Variant(
        "D14",
        "gru4rec",
        "one position per user is trained and other heads train all, so heads are not compared on equal terms",
        {"targets": "last"},
    ),
    Variant("D17", "yelp", _FINAL, {"with_final_counts": True}),
    Variant("D17", "reaemb-authors", _FINAL, {"with_final_counts": True}),
    *(Variant("D17", "table", _FINAL, {"attributes": column}) for column in FROM_THE_FUTURE),
    Variant(
        "D18",
        "soft-target",
        "the targets move with the vectors that they judge and, transposed, are not distributions",
    ),
    Variant("D19", "latent-thought-paper", _UNSCALED),
    Variant("D19", "latent-thought", _UNSCALED, {"scale": "none"}),
)


def variants_in(recipe: Recipe) -> list[Use]:
    """The paper variants that a recipe uses, by number."""
    parts = [part for name, step in recipe.steps.items() for part in components_in(step, name)]
    uses = [Use(variant, path) for variant in VARIANTS for path, part in parts if variant.matches(part)]
    return sorted(uses, key=lambda use: int(use.variant.defect[1:]))


def _names(setting: object) -> list[object]:
    """What a variant may call the value of a setting: the value, its parts, or the name of its component."""
    values = setting if isinstance(setting, tuple) else (setting,)
    return [value.use if isinstance(value, Component) else value for value in values]
