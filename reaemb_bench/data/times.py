"""Times as whole numbers: different times stay different and in order, or they are refused."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Literal

import polars

from reaemb_bench.core.errors import UserError
from reaemb_bench.data.interactions import FIRST_SECOND, PER_SECOND, TimeUnit, unit_of

Unit = TimeUnit | Literal["position"]

_UNITS: tuple[TimeUnit, ...] = ("s", "ms", "us", "ns")
_ISO = (
    r"^(?<year>\d{4})[-/.](?<month>\d{1,2})[-/.](?<day>\d{1,2})"
    r"(?:[T ](?<clock>\d{1,2}:\d{2})(?<second>:\d{2})?(?:[.,](?<fraction>\d{1,9}))?)?"
    r"\s*(?:Z|UTC|GMT|(?<sign>[+-])(?<hours>\d{2}):?(?<minutes>\d{2}))?$"
)
_FORMATS = [
    mark.join(order.split()) + clock
    for order in ("%d %m %Y", "%m %d %Y", "%d %m %y", "%m %d %y", "%y %m %d")
    for mark in "/.-"
    for clock in ("", " %H:%M", " %H:%M:%S")
]
_FIRST_YEAR = 1900
_MOST_TEXTS = 100_000
_FINER = "different times fall together in nanoseconds; round them, or give positions"


def whole_times(series: polars.Series, file: Path, time_format: str = "") -> tuple[polars.Series, Unit]:
    """Returns times (rows,) as Int64 in order, and their unit since 1970 in UTC, or "position" if they only order rows.

    Numbers keep their unit, which the largest one tells (below 10^8 they are positions), unless fractions need a finer
    one. Dates become the coarsest unit that keeps them apart. time_format: of dates, as for `strptime`, needed for all
    but year-month-day. Raises UserError at the first value that is not a time, that lies before 1970 or in another
    unit than the others, and if different times would become equal.
    """
    unit: Unit
    if series.dtype == polars.String:
        series = series.str.strip_chars()
    if series.dtype == polars.Date:
        times, unit = series.dt.epoch("s"), "s"
    elif isinstance(series.dtype, polars.Datetime):
        unit = series.dtype.time_unit
        times = series.dt.epoch(unit)
    elif series.dtype.is_temporal():
        raise UserError(f"{file}, column '{series.name}' is of type {series.dtype}; give dates or numbers")
    elif time_format:
        text = series.cast(polars.String)
        unit = "ns" if text.str.contains(r"[.,]\d{7}").any() else "us"
        try:
            times = text.str.to_datetime(time_format, time_unit=unit, strict=False).dt.epoch(unit)
        except polars.exceptions.PolarsError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"source.time_format '{time_format}' cannot be used ({reason}); correct it") from None
    elif series.dtype == polars.String and 2 * series.cast(polars.Float64, strict=False).count() < series.count():
        times, unit = _iso_dates(series, file)
    else:
        return _numbers(series, file)
    if times.null_count():
        wanted = f"a date of the form {time_format}; correct it or set another time_format"
        if not time_format:
            fitting = " or ".join(f'"{form}"' for form in _fitting_formats(series))
            form = f"time_format = {fitting}" if fitting else 'time_format to how they are written, as "%d/%m/%Y"'
            wanted = f"a time; give whole seconds, positions, or dates like 2024-05-31, or set {form}"
        refuse_first(series, times.is_null(), file, wanted)
    refuse_first(series, times <= 0, file, "a time after 1970; correct it or leave out such rows")
    return times, unit


def _fitting_formats(series: polars.Series) -> list[str]:
    """The usual ways of writing dates that fit all values of a text column; several if it may be read in several."""
    texts = series.drop_nulls().unique().head(_MOST_TEXTS)
    if series.dtype != polars.String or texts.is_empty():
        return []
    dates = {form: texts.str.to_datetime(form, time_unit="us", strict=False) for form in _FORMATS}
    # A year of two digits is not a year of four.
    return [form for form, read in dates.items() if not read.null_count() and read.dt.year().min() >= _FIRST_YEAR]  # type: ignore[operator]


def _iso_dates(series: polars.Series, file: Path) -> tuple[polars.Series, Unit]:
    """Dates with the year first, with or without a time of day, a fraction of up to nine digits and an offset."""
    clock = polars.col("clock").fill_null("00:00") + polars.col("second").fill_null(":00")
    moment = polars.format("{}-{}-{} {}", "year", "month", "day", clock)
    hours, minutes = (polars.col(name).fill_null("0").cast(polars.Int64) for name in ("hours", "minutes"))
    offset = (3600 * hours + 60 * minutes) * polars.when(polars.col("sign") == "-").then(-1).otherwise(1)
    parts = series.str.extract_groups(_ISO).struct.unnest()
    parts = parts.select(
        seconds=moment.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="ms", strict=False).dt.epoch("s") - offset,
        fraction=polars.col("fraction").fill_null("").str.strip_chars_end("0"),
    )
    digits, latest = parts["fraction"].str.len_chars().max(), parts["seconds"].max()
    step = -(-int(digits or 0) // 3)  # type: ignore[arg-type]
    per_second = PER_SECOND[_UNITS[step]]
    if isinstance(latest, int) and latest >= 2**63 // per_second:
        raise UserError(f"{file}, column '{series.name}': {_FINER}")
    below = polars.col("fraction").str.pad_end(max(3 * step, 1), "0").cast(polars.Int64)
    return parts.select((polars.col("seconds") * per_second + below).alias(series.name)).to_series(), _UNITS[step]


def _numbers(series: polars.Series, file: Path) -> tuple[polars.Series, Unit]:
    if series.dtype.is_decimal():
        series = series.cast(polars.String)
    numbers = series.cast(polars.Float64, strict=False)
    whole, lossy = numbers if series.dtype.is_float() else series.cast(polars.Int64, strict=False), False
    if whole.dtype.is_float() or whole.null_count():
        lossy = series.dtype == polars.String and numbers.n_unique() < series.n_unique()
        # Texts such as 1.4e9 are whole, too, if no digits of theirs were lost.
        exact = (numbers == numbers.floor()) & (numbers.abs() < 2**63)
        rounded = numbers.set(~exact | lossy, None).cast(polars.Int64, strict=False)
        whole = rounded if whole.dtype.is_float() else whole.fill_null(rounded)
    wanted = "a time; give whole seconds, positions, or dates like 2024-05-31"
    refuse_first(series, ~numbers.is_finite().fill_null(False), file, wanted)
    largest = numbers.max()
    unit = unit_of(largest) if isinstance(largest, float) else None
    if unit:
        wanted = f"in the unit of {series[numbers.arg_max() or 0]}; give all times in one unit, and no row without one"
        refuse_first(series, numbers < FIRST_SECOND * PER_SECOND[unit], file, wanted)
    if not whole.null_count():
        return whole, unit or "position"
    # There are fractions: take the coarsest unit in which all times differ, and ranks of positions if none does.
    finer = _UNITS[_UNITS.index(unit) :] if unit else _UNITS
    if lossy:
        # Floats do not hold all digits of the text.
        decimals = {text: Decimal(text) for text in series.unique()}
        rank = {value: number for number, value in enumerate(sorted(set(decimals.values())))}
        if unit is None:
            ranks = {text: rank[value] for text, value in decimals.items()}
            return series.replace_strict(ranks, return_dtype=polars.Int64), "position"
        for step, finer_unit in enumerate(finer):
            scaled = {text: value.scaleb(3 * step) for text, value in decimals.items()}
            if all(value == int(value) < 2**63 for value in scaled.values()):
                wholes = {text: int(value) for text, value in scaled.items()}
                return series.replace_strict(wholes, return_dtype=polars.Int64), finer_unit
    else:
        for step, finer_unit in enumerate(finer[1:], 1):
            rounded = (numbers * 1000.0**step).round()
            if rounded.n_unique() == numbers.n_unique() and float(rounded.abs().max()) < 2**63:  # type: ignore[arg-type]
                return rounded.cast(polars.Int64), finer_unit if unit else "position"
        if unit is None:
            return numbers.rank("dense").cast(polars.Int64), "position"
    raise UserError(f"{file}, column '{series.name}': {_FINER}")


def refuse_first(series: polars.Series, bad: polars.Series, file: Path, wanted: str) -> None:
    """Raises UserError at the first row that is `bad`, with its value and how many such rows there are."""
    rows = bad.arg_true()
    if len(rows):
        value = series[rows[0]]
        shown = "an empty cell" if value is None else f"'{value}'"
        more = f" ({len(rows)} such rows)" if len(rows) > 1 else ""
        raise UserError(f"{file}, column '{series.name}', data row {rows[0] + 1}: {shown} is not {wanted}{more}")
