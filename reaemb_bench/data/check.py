"""What `data check` tells of your files: which column is the user, the item or the time, and what may spoil results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.recipe import load
from reaemb_bench.core.registry import nearest
from reaemb_bench.data.columns import ROLES, guess, letters
from reaemb_bench.data.interactions import shares_values
from reaemb_bench.data.prepare import Prepare
from reaemb_bench.data.sources.table import SUFFIXES, Table, TableFile, keys, read_table, require_column
from reaemb_bench.data.text import as_text, attribute_text
from reaemb_bench.data.times import whole_times
from reaemb_bench.data.vectors import ReadVectors

_ROLES_OF = {"interactions": ("user", "item", "timestamp", "rating"), "items": ("item_key", "title")}
_FUTURE = (
    *("stars", "reviewcount", "isopen", "averagerating", "ratingnumber", "ratingcount", "rating", "ratings"),
    *("salesrank", "rank", "popularity", "votecount", "voteaverage", "downloads", "playcount", "numreviews"),
)
_NO_TEXT = re.compile(r"(^|_)(ids?|urls?|images?|imurl|videos?|also_\w+|bought_together|related)$")
_ALWAYS = ("use", "interactions", "items", "user", "item", "timestamp", "item_key", "title", "attributes")
"""Settings that a recipe spells out, even if they are defaults."""


def worth_a_prompt(columns: Iterable[str], known: Iterable[str]) -> list[str]:
    """Returns columns of items that may say something in a prompt: no keys or pictures, nothing of the future."""
    return [
        column
        for column in columns
        if column not in known and letters(column) not in _FUTURE and not _NO_TEXT.search(column.lower())
    ]


@dataclass(frozen=True)
class Files:
    """What is checked: interactions, items, or both, and vectors. settings: as `[prepare.source]` has them."""

    settings: Mapping[str, Any]
    interactions: TableFile | None = None
    items: TableFile | None = None
    vectors: ReadVectors | None = None


def open_files(paths: Sequence[Path], columns: Mapping[str, str], vectors: Path | None = None) -> Files:
    """Reads the files of a recipe, of a folder, or as named, in either order.

    columns: setting -> column, for what the names do not tell. vectors: their file or exported folder; it may lie among
    the others, and a recipe names its own. Raises UserError if a file cannot be read or nothing
    tells what is in it.
    """
    for role in columns:
        if role not in ROLES:
            hint = nearest(role, ROLES)
            raise UserError(f"--column {role}=...: no column has this role.{hint} Roles: {', '.join(ROLES)}")
    tables: dict[str, TableFile] = {}
    step = None if vectors is None else ReadVectors(path=vectors)
    if len(paths) == 1 and paths[0].suffix == ".toml":
        if columns:
            raise UserError(f"--column goes with files; {paths[0]} names the columns itself, in [prepare.source]")
        steps = load(paths[0]).steps.values()
        step = step or next((step for step in steps if isinstance(step, ReadVectors)), None)
        source = next((step.source for step in steps if isinstance(step, Prepare)), None)
        if not isinstance(source, Table):
            raise UserError(f"{paths[0]}: the source is not `table`, so there are no files of yours to check")
        spec = source.spec()
        for what, roles in _ROLES_OF.items():
            table = read_table(Path(spec[what]), spec[f"{what}_format"], source.separator, source.quote, what)
            for role in filter(spec.get, roles):
                require_column(table.file, table.columns, spec[role], f"source.{role}")
            tables[what] = table
        return Files(spec, **tables, vectors=step)
    files: list[Path] = []
    of_vectors = [] if step is None else [file.resolve() for file in step.files() if file is not None]
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            inside = [file for file in inside if file.resolve() not in of_vectors]
        if not inside:
            raise UserError(f"{path} holds no file with one of the suffixes {', '.join(SUFFIXES)}")
        files += inside
    if len(files) > 2:
        raise UserError(f"name one file of interactions and one of items, not {', '.join(map(str, files))}")
    settings: dict[str, Any] = {"use": "table"}
    for file in files:
        table = read_table(file, "auto", "", '"', "interactions")
        what = "interactions" if columns.get("user", guess(table.columns, "user")) in table.columns else "items"
        if what in tables:
            raise UserError(
                f"{tables[what].file} and {file} both look like {what}; one file must have a column of users: "
                "name it with --column user=NAME"
            )
        tables[what] = table
        named = {role: columns.get(role, guess(table.columns, role)) for role in _ROLES_OF[what]}
        for role, column in named.items():
            if column:
                require_column(file, table.columns, column, role)
            elif role in ("user", "item", "item_key"):
                raise UserError(
                    f"{file}: none of the columns {', '.join(table.columns)} looks like the {role}; "
                    f"name it with --column {role}=NAME"
                )
        settings |= {what: str(file), **named}
        if what == "items":
            settings["attributes"] = worth_a_prompt(table.columns, named.values())
    return Files(settings, **tables, vectors=step)


def named_columns(texts: Sequence[str]) -> dict[str, str]:
    """Returns `role=name` texts as role -> name. Raises UserError."""
    columns = {}
    for text in texts:
        role, equals, column = text.partition("=")
        if not equals or not role.strip():
            raise UserError(f"--column takes role=name, such as user=customer, not '{text}'")
        columns[role.strip()] = column.strip()
    return columns


def source_table(files: Files) -> dict[str, Any]:
    """Returns the table `[prepare.source]` of a recipe that reads these files."""
    usual = Table.model_fields
    return {
        name: value
        for name, value in files.settings.items()
        if name in _ALWAYS or (name in usual and value != usual[name].default)
    }


# Findings.

SUBJECTS = ("size", "order", "duplicates", "ids", "texts")
_EXAMPLES = 3
_CHARACTERS = 40
_FEW = (3, 5, 10)
_FEW_OF_ITEMS = 5
_NOTHING = ("0", "-1", "nan", "none", "null", "na", "n/a", "unknown", "undefined", "<na>")
_ODD = {
    "leading zeros, which another program may have cut elsewhere": r"^0[0-9]+$",
    'a ".0" at the end, as of numbers that were read with gaps': r"^[0-9]+\.0+$",
    "control characters": r"[\x00-\x1f\x7f]",
    "exponents, as of long numbers from a spreadsheet": r"^[0-9](\.[0-9]+)?[eE]\+?[0-9]+$",
}
_CODE = r"<[a-zA-Z/][^>]*>|&[a-z]+;|&#[0-9]+;"


@dataclass(frozen=True)
class Finding:
    """A count of something, out of `total` if that says more. warns: it may spoil results if left so."""

    subject: str
    what: str
    count: int
    total: int | None = None
    examples: tuple[str, ...] = ()
    warns: bool = True


class _Findings(list[Finding]):
    def add(
        self,
        subject: str,
        what: str,
        values: polars.Series | int,
        total: int | None = None,
        warns: bool = True,
        examples: Sequence[str] = (),
    ) -> None:
        """Counts `values`; unless examples are given, they are the first few different ones of these."""
        if isinstance(values, polars.Series):
            examples = examples or [short(value) for value in values.unique(maintain_order=True).head(_EXAMPLES)]
            values = len(values)
        self.append(Finding(subject, what, values, total, tuple(examples), warns))


def check_files(files: Files) -> list[Finding]:
    """Returns all findings, also those that count nothing, by subject in the order of SUBJECTS.

    Raises UserError if no interaction has both a user and an item.
    """
    findings = _Findings()
    rows = item_keys = None
    if files.interactions is not None:
        rows = _check_interactions(findings, files.settings, files.interactions)
        _check_keys(findings, rows["user"], "users")
        _check_keys(findings, rows["item"], "items")
    if files.items is not None:
        item_keys = _check_items(findings, files.settings, files.items)
        if rows is None:
            _check_keys(findings, item_keys, "items")
    if rows is not None and item_keys is not None:
        bought, described = map(_distinct, (rows["item"], item_keys))
        without_text = bought.filter(~bought.is_in(described.implode()))
        unused = described.filter(~described.is_in(bought.implode()))
        lost = rows.filter(polars.col("item").is_in(without_text.cast(polars.Categorical).implode())).height
        findings.add("ids", f"items with interactions and without a text ({lost:,} rows)", without_text, len(bought))
        what = "items with a text and without interactions, which are left out"
        findings.add("ids", what, unused, len(described), warns=False)
    if files.vectors is not None:
        parts, width = [], 0
        for ids, block in files.vectors.blocks():
            parts.append(ids)
            width = block.shape[1]
        owners = polars.concat(parts)
        findings.add("size", "vectors", len(owners), warns=False)
        findings.add("size", "numbers of each vector", width, warns=False)
        listed = item_keys if rows is None else rows["item"]
        if listed is not None:
            catalogue = _distinct(listed)
            without = catalogue.filter(~catalogue.is_in(owners.implode()))
            findings.add(
                "ids", "items without a vector; the setting `missing` says what they get", without, len(catalogue)
            )
            surplus = owners.filter(~owners.is_in(catalogue.implode()))
            findings.add("ids", "vectors of no item, which are left out", surplus, len(owners), warns=False)
    return sorted(findings, key=lambda finding: SUBJECTS.index(finding.subject))


def _categories(series: polars.Series) -> polars.Series:
    """Keys as `keys` has them, each kept once."""
    if series.dtype == polars.Categorical:
        distinct = _distinct(series)
        if (distinct == distinct.str.strip_chars()).all() and not (distinct == "").any():
            return series
    return keys(series).cast(polars.Categorical)


def _distinct(values: polars.Series) -> polars.Series:
    """The different keys as text, in the order in which they occur."""
    return values.drop_nulls().unique(maintain_order=True).cast(polars.String)


def short(value: object) -> str:
    """Returns a value on one line, cut if it is long."""
    text = " ".join(str(value).split()) if str(value).strip() else repr(value)
    return text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 1]}…"


def _check_interactions(findings: _Findings, settings: Mapping[str, Any], table: TableFile) -> polars.DataFrame:
    """Counts sizes, duplicates, rows that lack a key, histories out of order and times that do not order them.

    Returns the rows with both keys, columns user, item and time (the place in the file if there is no usable time).
    """
    add, height = findings.add, len(table.content)
    user, item = (_categories(table.column(settings[role], role)) for role in ("user", "item"))
    time = polars.int_range(height, dtype=polars.Int64, eager=True)
    if not settings["timestamp"]:
        add("order", "no column of times: the order of the file is taken", height)
    else:
        written = table.column(settings["timestamp"], "timestamp")
        try:
            time, _ = whole_times(written, table.file, settings.get("time_format", ""))
            span = f"{short(written[time.arg_min() or 0])} to {short(written[time.arg_max() or 0])}"
            distinct = 1 + int((time.sort().diff() != 0).sum())
            add("order", "distinct times", distinct, warns=False, examples=[span])
        except UserError as error:
            add("order", f"times cannot be read, and `run` would stop: {error}", height)
    lacking = (user.is_null() | item.is_null()).arg_true()
    what = "rows without user or item, which are dropped"
    add("ids", what, lacking, height, examples=[f"row {row + 1}" for row in lacking.head(_EXAMPLES)])
    rows = polars.DataFrame({"user": user, "item": item, "time": time}).drop_nulls(["user", "item"])
    if rows.is_empty():
        raise UserError(
            f"{table.file}: every row lacks '{settings['user']}' or '{settings['item']}'; name other columns"
        )

    users = rows.group_by("user").len().sort("len", "user", descending=[True, False])
    items = rows.group_by("item").len().sort("item")
    longest = f"{short(users['user'][0])} ({users['len'][0]:,})"
    add("size", "interactions", rows.height, warns=False)
    add("size", "users, the one with most interactions", users.height, warns=False, examples=[longest])
    add("size", "items", items.height, warns=False)
    for few in _FEW:
        group = f"users with fewer than {few} interactions" + (", who only train" if few == _FEW[0] else "")
        add("size", group, users.filter(polars.col("len") < few)["user"], users.height, warns=False)
    add("size", "median interactions of a user", int(users["len"].median() or 0), warns=False)  # type: ignore[arg-type]
    rare = items.filter(polars.col("len") < _FEW_OF_ITEMS)["item"]
    add("size", f"items with fewer than {_FEW_OF_ITEMS} interactions", rare, items.height, warns=False)

    row = ["user", "item", "time"]
    suspects = rows.with_row_index("row").filter(shares_values(rows, row))
    repeats = suspects.filter(polars.struct(row).is_first_distinct().not_())
    once = rows.with_row_index("row").join(repeats, on="row", how="anti", maintain_order="left").drop("row")
    back = once.filter((polars.col("time").diff() < 0).over("user"))["user"].unique(maintain_order=True)
    add("order", "users whose rows are not in time order; they are sorted", back, users.height, warns=False)
    ties = once.filter(shares_values(once, ["user", "time"])).filter(polars.len().over("user", "time") > 1)["user"]
    add("order", "interactions at the same time as another of the user, ordered at random", ties, once.height)
    ends = once.sort("user", "time").group_by("user", maintain_order=True).tail(2)
    tied = ends.filter((polars.len().over("user") == 2) & (polars.col("time").n_unique().over("user") == 1))
    what = "users whose last two interactions, validation and test, have the same time"
    add("order", what, tied["user"].unique(maintain_order=True), users.height)
    pair = polars.concat_str("user", "item", separator=" / ").alias("pair")
    add(
        "duplicates",
        "rows that repeat user, item and time, which are dropped",
        repeats.select(pair)["pair"],
        rows.height,
    )
    suspects = once.filter(shares_values(once, ["user", "item"]))
    pairs = suspects.filter(polars.struct("user", "item").is_first_distinct().not_()).select(pair)["pair"]
    what = "rows that repeat user and item at another time, which stay (filter drop-repeats)"
    add("duplicates", what, pairs, rows.height, warns=False)
    return rows


def _check_keys(findings: _Findings, values: polars.Series, whose: str) -> None:
    """Counts keys that stand for nothing or were changed on their way through another program."""
    distinct = values.drop_nulls().unique().cast(polars.String).sort()
    nothing = distinct.filter(distinct.str.to_lowercase().is_in(_NOTHING))
    rows = values.is_in(nothing.cast(values.dtype).implode()).sum()
    whole, folded = distinct.str.contains(r"^-?[0-9]+$"), distinct.str.to_lowercase()
    checks = {f"{whose} whose key often stands for none ({rows:,} rows)": nothing}
    checks |= {
        f"keys of {whose} with {oddity}": distinct.filter(distinct.str.contains(_ODD[oddity])) for oddity in _ODD
    }
    mixed = f"keys of {whose} that are numbers among words, or words among numbers"
    checks[mixed] = distinct.filter(whole if whole.sum() * 2 <= len(distinct) else ~whole)
    checks[f"keys of {whose} that differ from another in capitals alone"] = distinct.filter(folded.is_duplicated())
    for what, suspicious in checks.items():
        findings.add("ids", what, suspicious, len(distinct))


def _check_items(findings: _Findings, settings: Mapping[str, Any], table: TableFile) -> polars.Series:
    """Counts what is wrong with the texts of items, with their keys as examples; returns the keys."""
    add, rows, title = findings.add, table.rows(), settings["title"]
    height = len(rows)
    item_keys = keys(polars.Series([as_text(row.get(settings["item_key"])) for row in rows], dtype=polars.String))
    twice = item_keys.filter(item_keys.is_duplicated()).unique(maintain_order=True)
    add("ids", "items whose key stands twice; the first counts", twice, height)
    columns = list(filter(None, dict.fromkeys((title, *settings["attributes"]))))
    if not columns:
        add("texts", "no column looks like a text: items are called by their keys", height)
        return item_keys
    texts: dict[str, list[str]] = {}
    for column in columns:
        values = [attribute_text("title" if column == title else column, row.get(column)) for row in rows]
        texts[column] = [value if isinstance(value, str) else ", ".join(value) for value in values]
        empty = item_keys.filter(polars.Series(texts[column]) == "")
        add("texts", f"items whose '{column}' is empty", empty, height, warns=column == title)
    whole = polars.Series([" ".join(filter(None, parts)) for parts in zip(*texts.values(), strict=True)])
    without = item_keys.filter(whole == "")
    add("texts", "items without any text, which are called by their keys", without, height)
    alike = (whole != "") & whole.is_duplicated()
    what = "items whose whole text another has too: no text embedding can tell them apart"
    shared = whole.filter(alike).unique(maintain_order=True).head(_EXAMPLES)
    add("texts", what, item_keys.filter(alike), height, examples=[*map(short, shared)])
    raw = polars.Series([" ".join(str(row.get(column)) for column in columns) for row in rows])
    marked = item_keys.filter(raw.str.contains(_CODE))
    add("texts", "items with HTML in their text, which is taken out", marked, height, warns=False)
    longest = whole.str.len_chars().arg_max() or 0
    what = "characters of the longest text; prompt.value_length cuts each value"
    example = f"{short(item_keys[longest])}: {short(whole[longest])}"
    add("texts", what, len(whole[longest]), warns=False, examples=[example])
    late = polars.Series([column for column in table.columns if letters(column) in _FUTURE], dtype=polars.String)
    what = "columns that only the future knew, to be kept out of prompts"
    add("texts", what, late, len(table.columns), warns=bool({*late} & {*settings["attributes"]}))
    return item_keys
