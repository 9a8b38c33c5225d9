"""Kinds of component that data sets are made of: what each must be able to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Protocol, runtime_checkable

from reaemb_bench.core.artifacts import Sequences
from reaemb_bench.core.component import Progress
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import Pick

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from reaemb_bench.data.interactions import Interactions, SplitInteractions


class Source(Protocol):
    """Where interactions and item attributes come from. A class attribute `about` may state its terms."""

    def read(self, machine: Machine) -> Interactions:
        """Returns all interactions and the attributes of all items, exact duplicates removed."""


@runtime_checkable
class Downloads(Protocol):
    """A source that has files to download; `read` would do so, too, and show nothing of it."""

    def fetch(self, machine: Machine, report: Callable[[Progress], None]) -> object:
        """Downloads what is not in the cache yet, reporting megabytes."""


class Filter(Protocol):
    """Takes interactions away."""

    def apply(self, data: Interactions) -> Interactions:
        """Returns the interactions that remain."""


class Split(Protocol):
    """Divides interactions into training, validation and test."""

    def apply(self, data: Interactions, seed: int) -> SplitInteractions:
        """Returns the division; the seed orders interactions of equal time."""


class Prompt(Protocol):
    """Writes an item's attributes as text."""

    def text(self, attributes: dict[str, Any]) -> str:
        """Returns `name is value; name is value; ...` for one item."""


class Cooccurrence(Protocol):
    """Says which items are bought together, and how much so."""

    def counts(self, sequences: Sequences, items: int) -> csr_array:
        """Returns positive counts or weights (items, items) of users' sequences: symmetric, the diagonal empty."""


AnySource = Annotated[Source, Pick("source")]
ManyFilters = Annotated[tuple[Filter, ...], Pick("filter", many=True)]
AnySplit = Annotated[Split, Pick("split")]
AnyPrompt = Annotated[Prompt, Pick("prompt")]
AnyCooccurrence = Annotated[Cooccurrence, Pick("cooccurrence")]
