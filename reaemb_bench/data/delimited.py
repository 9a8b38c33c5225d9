"""Text files of one row a line whose fields stand between separators: read as they stream, broken lines counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reaemb_bench.data.lines import Field, Malformed
from reaemb_bench.errors import UserError

if TYPE_CHECKING:
    import polars

_TYPES = {"text": "String", "whole": "Int64", "number": "Float64"}
# A line is read as one column, so the separator is a control character that no text holds.
_NEVER = "\x1f"
_LINE, _NUMBER, _MORE, _FAULT = "\nline", "\nnumber", "\nmore", "\nfault"


def read_delimited(
    file: Path, columns: Sequence[str], fields: Mapping[str, Field], separator: str, header: bool, malformed: Malformed
) -> polars.DataFrame:
    """The wanted columns of all sound lines, in the file's order; blank lines are none, quotes are text.

    columns: what stands in each line, in order. fields: the wanted ones; kinds are text (String, without surrounding
    space), whole (Int64) and number (Float64, finite); an empty cell is null. header: the first line is no row.
    malformed: where lines are counted that are not UTF-8, have more or fewer fields than columns, lack a required
    field or have no number where one must be. Raises UserError where there are more of them than tolerated.
    """
    import polars

    cells = polars.col(_LINE).str.split_exact(separator, len(columns)).struct.rename_fields([*columns, _MORE])
    rows = _lines(file).filter(polars.col(_NUMBER) > int(header)).with_columns(cells.alias("")).unnest("")
    read = {name: _value(polars.col(name), field) for name, field in fields.items()}
    judged = rows.with_columns(_fault(columns, fields, read).alias(_FAULT))
    sound = judged.filter(polars.col(_FAULT).is_null()).select(**read)
    broken = judged.filter(polars.col(_FAULT).is_not_null()).select(_NUMBER, _FAULT)
    first = broken.sort(_NUMBER).head(malformed.limit + 1)
    try:
        frame, faults = polars.collect_all([sound, first], engine="streaming")
    except (polars.exceptions.PolarsError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{malformed.file} cannot be read as lines of text ({reason}); fetch it again") from None
    for number, fault in faults.rows():
        malformed.add(number, fault)
    return frame


def _lines(file: Path) -> polars.LazyFrame:
    """Lines that are not blank, with their numbers from 1."""
    import polars

    lines = polars.scan_csv(
        file,
        has_header=False,
        separator=_NEVER,
        quote_char=None,
        encoding="utf8-lossy",
        schema={_LINE: polars.String},
    ).with_row_index(_NUMBER, offset=1)
    return lines.filter(polars.col(_LINE).str.strip_chars() != "")


def _value(cell: polars.Expr, field: Field) -> polars.Expr:
    """The cell as its kind; null where it is empty or no such thing."""
    import polars

    stripped = cell.str.strip_chars()
    filled = polars.when(stripped != "").then(stripped)
    made = filled.cast(getattr(polars, _TYPES[field.kind]), strict=False)
    return polars.when(made.is_finite()).then(made) if field.kind == "number" else made


def _fault(columns: Sequence[str], fields: Mapping[str, Field], read: Mapping[str, polars.Expr]) -> polars.Expr:
    """What is wrong with a line, null where nothing is."""
    import polars

    wanted = f"fields than {len(columns)}"
    found = (
        polars.when(polars.col(_LINE).str.contains("\ufffd", literal=True))
        .then(polars.lit("not in UTF-8"))
        .when(polars.col(columns[-1]).is_null())
        .then(polars.lit(f"fewer {wanted}"))
        .when(polars.col(_MORE).is_not_null())
        .then(polars.lit(f"more {wanted}"))
    )
    for name, field in fields.items():
        empty = polars.col(name).str.strip_chars() == ""
        if field.required:
            found = found.when(empty).then(polars.lit(f"no '{name}'"))
        if field.kind != "text":
            called = "whole number" if field.kind == "whole" else "number"
            found = found.when(~empty & read[name].is_null()).then(polars.lit(f"'{name}' is no {called}"))
    return found
