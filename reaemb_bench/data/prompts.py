"""Prompts: an item's attributes as text."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.registry import nearest
from reaemb_bench.data.interactions import Attributes as ItemAttributes


class Attributes(Component):
    """`name is value; name is value; ...`, the form of the ReaEmb paper.

    ";" separates attributes for the views of contrastive learning, so inside a value it becomes ".".
    """

    order: tuple[str, ...] = ()
    """Names of the attributes to write, in order; empty takes all, in the source's order."""
    value_length: int = Field(default=100, ge=1)
    """Characters after which a value is cut."""
    list_limit: int | None = Field(default=None, ge=1)
    """Entries of a list that are written; None writes all."""
    empty: Literal["none", "leave-out"] = "none"
    """What becomes of an attribute without a value: the word none, or not mentioned at all."""

    def text(self, attributes: ItemAttributes) -> str:
        """Returns the attribute part of one item's prompt. Raises UserError if `order` names an unknown attribute."""
        parts = []
        for name in self.order or attributes:
            if name not in attributes:
                known = ", ".join(attributes)
                raise UserError(f"prompt.order: items have no '{name}'.{nearest(name, attributes)} Known: {known}")
            value = attributes[name]
            joined = value if isinstance(value, str) else ", ".join(filter(None, value[: self.list_limit]))
            value = " ".join(joined.replace(";", ".").split())[: self.value_length].rstrip()
            if value or self.empty == "none":
                parts.append(f"{name} is {value or 'none'}")
        return "; ".join(parts)
