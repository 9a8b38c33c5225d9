"""Checks of interactions: sizes, order in time, duplicates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reaemb_bench.audit.files import Files
from reaemb_bench.audit.findings import Finding, found, short
from reaemb_bench.data.sheets import Sheet, keys, order_in_time
from reaemb_bench.errors import UserError

if TYPE_CHECKING:
    import polars

_FEW = (3, 5, 10)
_FEW_OF_ITEMS = 5


def interactions_of(files: Files, sheet: Sheet) -> tuple[polars.DataFrame, list[Finding]]:
    """Columns user, item and time (Int64, the place in the file where there is no usable time), rows with both keys.

    Beside it, what there is to say of the times, and of rows without keys. Raises UserError where no row has both.
    """
    import polars

    settings, height = files.settings, len(sheet.content)
    user, item = (keys(sheet.column(settings[role], role)) for role in ("user", "item"))
    time, told = _times(sheet, settings["timestamp"])
    frame = polars.DataFrame({"user": user, "item": item, "time": time})
    kept = frame.drop_nulls(["user", "item"])
    if kept.is_empty():
        neither = f"'{settings['user']}' or '{settings['item']}'"
        raise UserError(f"{sheet.file}: every row lacks {neither}; name other columns")
    lacking = (user.is_null() | item.is_null()).arg_true()
    places = [f"row {place + 1}" for place in lacking.head(3)]
    return kept, [told, found("ids", "rows without user or item, which are dropped", lacking, height, beside=places)]


def _times(sheet: Sheet, column: str) -> tuple[polars.Series, Finding]:
    """The times as numbers, or the places in the file where there are none, and what to say of them."""
    import polars

    height = len(sheet.content)
    places = polars.int_range(height, dtype=polars.Int64, eager=True)
    if not column:
        return places, Finding("order", "no column of times: the order of the file is taken", height)
    written = sheet.column(column, "timestamp")
    try:
        time = order_in_time(written, sheet.file)
    except UserError as error:
        return places, Finding("order", f"times cannot be read, and `run` would stop: {error}", height)
    span = f"{short(written[time.arg_min() or 0])} to {short(written[time.arg_max() or 0])}"
    return time, Finding("order", "distinct times", time.n_unique(), examples=(span,), warns=False)


def sizes(rows: polars.DataFrame) -> list[Finding]:
    """How many rows, users and items there are, and how long histories are."""
    import polars

    users = rows.group_by("user").len().sort("len", "user", descending=[True, False])
    items = rows.group_by("item").len()
    lengths = users["len"]
    longest = f"{short(users['user'][0])} ({lengths[0]:,})"
    return [
        Finding("size", "interactions", rows.height, warns=False),
        Finding("size", "users, the one with most interactions", users.height, examples=(longest,), warns=False),
        Finding("size", "items", items.height, warns=False),
        *(
            found(
                "size",
                f"users with fewer than {few} interactions" + (", who only train" if few == _FEW[0] else ""),
                users.filter(polars.col("len") < few)["user"],
                users.height,
                warns=False,
            )
            for few in _FEW
        ),
        Finding("size", "median interactions of a user", int(lengths.median() or 0), warns=False),  # type: ignore[arg-type]
        found(
            "size",
            f"items with fewer than {_FEW_OF_ITEMS} interactions",
            items.filter(polars.col("len") < _FEW_OF_ITEMS).sort("item")["item"],
            items.height,
            warns=False,
        ),
    ]


def order(rows: polars.DataFrame) -> list[Finding]:
    """Histories that the file does not give in time order, and times that do not order them."""
    import polars

    rows = _once(rows)
    back = (polars.col("time").diff() < 0).over("user")
    unordered = rows.filter(back)["user"].unique(maintain_order=True)
    ties = rows.filter(polars.len().over("user", "time") > 1)
    users = rows["user"].n_unique()
    ends = rows.sort("user", "time").group_by("user", maintain_order=True).tail(2)
    tied = ends.filter((polars.len().over("user") == 2) & (polars.col("time").n_unique().over("user") == 1))
    return [
        found("order", "users whose rows are not in time order; they are sorted", unordered, users, warns=False),
        found(
            "order",
            "interactions at the same time as another of the user, ordered at random",
            ties["user"],
            rows.height,
        ),
        found(
            "order",
            "users whose last two interactions, validation and test, have the same time",
            tied["user"].unique(maintain_order=True),
            users,
        ),
    ]


def duplicates(rows: polars.DataFrame) -> list[Finding]:
    """Rows that say again what another said."""
    import polars

    exact = rows.filter(polars.struct("user", "item", "time").is_first_distinct().not_())
    pairs = _once(rows).filter(polars.struct("user", "item").is_first_distinct().not_())
    return [
        found(subject, what, _pairs(some), rows.height, warns=warns)
        for subject, what, some, warns in (
            ("duplicates", "rows that repeat user, item and time, which are dropped", exact, True),
            ("duplicates", "rows that repeat user and item at another time, which stay", pairs, False),
        )
    ]


def _once(rows: polars.DataFrame) -> polars.DataFrame:
    """The rows without those that repeat user, item and time."""
    return rows.unique(["user", "item", "time"], keep="first", maintain_order=True)


def _pairs(rows: polars.DataFrame) -> polars.Series:
    import polars

    return rows.select(polars.concat_str("user", "item", separator=" / "))["user"]
