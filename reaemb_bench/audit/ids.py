"""Checks of keys: those that stand for nothing, were changed on their way through another program, or do not meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reaemb_bench.audit.findings import Finding, found

if TYPE_CHECKING:
    import polars

_NOTHING = ("0", "-1", "nan", "none", "null", "na", "n/a", "unknown", "undefined", "<na>")
_ODD = {
    "leading zeros, which another program may have cut elsewhere": r"^0[0-9]+$",
    'a ".0" at the end, as of numbers that were read with gaps': r"^[0-9]+\.0+$",
    "exponents, as of long numbers from a spreadsheet": r"^[0-9](\.[0-9]+)?[eE]\+?[0-9]+$",
}


def suspicious(values: polars.Series, whose: str) -> list[Finding]:
    """What is odd about the distinct keys among `values`; whose: `users`, `items`, ..."""
    import polars

    distinct = values.drop_nulls().unique(maintain_order=True).sort()
    nothing = distinct.filter(distinct.str.to_lowercase().is_in(_NOTHING))
    rows = values.is_in(nothing.implode()).sum() if len(nothing) else 0
    made = [
        found(
            "ids",
            f"{whose} whose key often stands for none ({rows:,} rows)",
            nothing,
            len(distinct),
        )
    ]
    made += [
        found("ids", f"keys of {whose} with {what}", distinct.filter(distinct.str.contains(odd)), len(distinct))
        for what, odd in _ODD.items()
    ]
    whole = distinct.str.contains(r"^-?[0-9]+$")
    rarer = distinct.filter(whole if whole.sum() * 2 <= len(distinct) else ~whole)
    mixed = f"keys of {whose} that are numbers among words, or words among numbers"
    made.append(found("ids", mixed, rarer, len(distinct)))
    folded = polars.DataFrame({"key": distinct, "folded": distinct.str.to_lowercase()})
    alike = folded.filter(polars.len().over("folded") > 1)["key"]
    made.append(found("ids", f"keys of {whose} that differ from another in capitals alone", alike, len(distinct)))
    return made


def meeting(rows: polars.DataFrame, item_keys: polars.Series) -> list[Finding]:
    """Items that only one of the two files knows."""
    import polars

    bought, told = rows["item"].unique(maintain_order=True), item_keys.drop_nulls().unique(maintain_order=True)
    untold = bought.filter(~bought.is_in(told.implode()))
    unsold = told.filter(~told.is_in(bought.implode()))
    lost = rows.filter(polars.col("item").is_in(untold.implode())).height
    return [
        found("ids", f"items with interactions and without a text ({lost:,} rows)", untold, len(bought)),
        found("ids", "items with a text and without interactions, which are left out", unsold, len(told), warns=False),
    ]
