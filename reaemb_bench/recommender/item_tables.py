"""Item tables: trainable ids, frozen vectors with an adapter, the sum of both, or vectors as a start."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from reaemb_bench.core.artifacts import Float32
from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError

Adapter = Literal["linear", "mlp", "none"]

NO_VECTORS = "the item table reads vectors, and this step is given none; use `train`, or the table `ids`"
_UNADAPTED = "without an adapter vectors must have the head's width {}, not {}; reduce them"
_ROUNDING = 1e-9
"""Share of the energy of all vectors below which their mean is taken for zero."""


class Ids(Component):
    """One trainable vector per item, drawn from a normal distribution."""

    spread: Annotated[float, Field(gt=0)] | Literal["1/sqrt(hidden)"] = "1/sqrt(hidden)"
    """Standard deviation of the start. 1/sqrt(hidden) is that of `initialised`, and suits positions and masks of spread
    1 (`bert4rec`); 0.02 is that of most published code."""
    common: bool = False
    """Whether all items start at one random vector, with entries of spread 1/sqrt(hidden), and differ from it by
    `spread`: a control for vectors that share a mean, and read no text."""

    def build(self, items: int, hidden: int, vectors: Float32 | None) -> nn.Module:
        """Returns a module whose forward() gives (items, hidden)."""
        return IdTable(items, hidden, spread=None if isinstance(self.spread, str) else self.spread, common=self.common)


class Initialised(Component):
    """Trainable vectors that start from given ones, centred and scaled to entries of spread 1/sqrt(hidden).

    Source: LLM2X (Harte et al., RecSys 2023).
    """

    version: ClassVar[int] = 2

    def build(self, items: int, hidden: int, vectors: Float32 | None) -> nn.Module:
        """A module whose forward() gives (items, hidden). Raises UserError without vectors `hidden` wide."""
        return IdTable(items, hidden, _checked(items, hidden, vectors, "none"))


class AdapterSettings(Component):
    """How frozen vectors are mapped to the head's width."""

    version: ClassVar[int] = 2

    adapter: Adapter = "linear"
    """`linear`: two linear layers without an activation between them, as in the paper; `mlp`: with GELU; `none`:
    vectors as they are, whose width must then be the head's."""
    inner: int = Field(default=256, ge=1)
    """Width between the adapter's two layers."""
    unit_rms: bool = True
    """Whether the vectors are centred and divided by one number so that their entries have a root mean square of 1.
    Otherwise their scale acts as a learning rate, and what all vectors share hides their differences."""

    def frozen(self, items: int, hidden: int, vectors: Float32 | None, zero_last: bool = False) -> FrozenTable:
        """The vectors and their adapter. Raises UserError if vectors are missing or misfit."""
        checked = _checked(items, hidden, vectors, self.adapter)
        return FrozenTable(
            checked, hidden, adapter=self.adapter, inner=self.inner, unit_rms=self.unit_rms, zero_last=zero_last
        )


class Frozen(AdapterSettings):
    """Frozen item vectors, mapped to the head's width by a trained adapter."""

    zero_last: bool = False
    """Whether the last item's vector is zero, as in the paper's code, which inserts the padding row one place too
    early (defect D3)."""

    def build(self, items: int, hidden: int, vectors: Float32 | None) -> nn.Module:
        """A module whose forward() gives (items, hidden). Raises UserError if vectors are missing or misfit."""
        return self.frozen(items, hidden, vectors, self.zero_last)


class IdsAndFrozen(AdapterSettings):
    """The sum of a trainable id vector and the adapted frozen vector of each item."""

    def build(self, items: int, hidden: int, vectors: Float32 | None) -> nn.Module:
        """A module whose forward() gives (items, hidden). Raises UserError if vectors are missing or misfit."""
        frozen = self.frozen(items, hidden, vectors)
        return SumTable(IdTable(items, hidden), frozen)


def misfit(table: object, hidden: int, width: int | None) -> str:
    """Why a table cannot take vectors of this width under a head of width `hidden`; empty if it can, or if who knows.

    width: None if it is not known.
    """
    alone = isinstance(table, Initialised) or (isinstance(table, AdapterSettings) and table.adapter == "none")
    if not alone or width in (None, hidden):
        return ""
    return _UNADAPTED.format(hidden, width)


def given_vectors(items: int, vectors: Float32 | None) -> Float32:
    """The vectors that a table was given. Raises UserError if there are none, or not one per item."""
    if vectors is None:
        raise UserError(NO_VECTORS)
    if len(vectors) != items:
        raise UserError(f"there are {len(vectors)} item vectors for {items} items; encode the same corpus again")
    return vectors


def _checked(items: int, hidden: int, vectors: Float32 | None, adapter: Adapter) -> Float32:
    checked = given_vectors(items, vectors)
    if adapter == "none" and checked.shape[1] != hidden:
        raise UserError(_UNADAPTED.format(hidden, checked.shape[1]))
    return checked


class IdTable(nn.Module):
    """Trainable item vectors, random or started from given ones.

    spread: root mean square of their entries; None is 1/sqrt(hidden). common: see `Ids`.
    """

    def __init__(
        self,
        items: int,
        hidden: int,
        start: Float32 | None = None,
        *,
        spread: float | None = None,
        common: bool = False,
    ) -> None:
        super().__init__()
        initial = torch.randn(items, hidden) if start is None else centred_unit_rms(torch.from_numpy(start))
        # Self-attentive heads multiply by sqrt(hidden), which brings a spread of 1/sqrt(hidden) to 1.
        initial = initial / math.sqrt(hidden) if spread is None else initial * spread
        if common:
            initial = initial + torch.randn(hidden) / math.sqrt(hidden)
        self.weight = nn.Parameter(initial)

    def forward(self) -> Tensor:
        """(items, hidden)."""
        return self.weight


class FrozenTable(nn.Module):
    """Frozen vectors and an adapter; the vectors themselves are not part of the saved state."""

    vectors: Tensor

    def __init__(
        self, vectors: Float32, hidden: int, *, adapter: Adapter, inner: int, unit_rms: bool, zero_last: bool = False
    ) -> None:
        super().__init__()
        frozen = torch.from_numpy(vectors)
        if unit_rms:
            frozen = centred_unit_rms(frozen)
        if zero_last:
            frozen = frozen.clone()
            frozen[-1] = 0
        self.register_buffer("vectors", frozen, persistent=False)
        self.adapter: nn.Module = nn.Identity()
        if adapter != "none":
            between = [nn.GELU()] if adapter == "mlp" else []
            self.adapter = nn.Sequential(nn.Linear(vectors.shape[1], inner), *between, nn.Linear(inner, hidden))

    def forward(self) -> Tensor:
        """(items, hidden)."""
        adapted: Tensor = self.adapter(self.vectors)
        return adapted

    def padding(self) -> Tensor:
        """(hidden,): what the adapter makes of a vector of zeros, which stands for padding in the paper's code."""
        adapted: Tensor = self.adapter(self.vectors.new_zeros(self.vectors.shape[1]))
        return adapted


class SumTable(nn.Module):
    """The sum of two tables."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self) -> Tensor:
        """(items, hidden)."""
        summed: Tensor = self.first() + self.second()
        return summed


def centred_unit_rms(vectors: Tensor) -> Tensor:
    """Vectors (items, width) minus their mean, divided by one number: entries then have a root mean square of 1.

    What all vectors share distinguishes no items, and may be 99 % of the energy of a language model's vectors. A mean
    that is rounding, such as that of principal components, stays.
    """
    mean = vectors.mean(dim=0)
    if mean.square().sum() > _ROUNDING * vectors.square().sum(dim=1).mean():
        vectors = vectors - mean
    return vectors / vectors.square().mean().sqrt().clamp(min=1e-12)
