"""Which column of a file is the user, the item, the time, the rating or the title, judged by its name."""

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
from reaemb_bench.data.prepare import Prepare
from reaemb_bench.data.sources.table import Table
from reaemb_bench.data.tables import Sheet, as_text, keys, order_in_time, read_sheet

ROLES: dict[str, tuple[str, ...]] = {
    "user": ("user", "userid", "uid", "reviewerid", "customer", "customerid", "visitorid", "sessionid", "who"),
    "item": (
        *("item", "itemid", "iid", "parentasin", "asin", "product", "productid", "sku", "businessid", "gmapid"),
        *("movie", "movieid", "book", "bookid", "track", "trackid", "article", "articleid", "gameid"),
    ),
    "timestamp": (
        *("timestamp", "time", "unixreviewtime", "datetime", "date", "createdat", "reviewtime", "when", "eventtime"),
        "position",
    ),
    "rating": ("rating", "ratings", "overall", "stars", "score"),
    "title": ("title", "name", "producttitle", "productname", "itemname", "movietitle"),
}
"""Role -> names that columns of that role usually have, letters and digits alone, likeliest first."""

_KEYS_OF_ITEMS = (*ROLES["item"], "id", "key", "code")
_FUTURE = {
    *("stars", "reviewcount", "isopen", "averagerating", "ratingnumber", "ratingcount", "rating", "ratings"),
    *("salesrank", "rank", "popularity", "votecount", "voteaverage", "downloads", "playcount", "numreviews"),
}
_NO_TEXT = re.compile(r"(^|_)(ids?|urls?|images?|imurl|videos?|also_\w+|bought_together|related)$")


def guess(columns: Iterable[str], role: str) -> str:
    """The likeliest column of a role, `item_key` being that of the items' own file; empty where none looks like it."""
    usual = _KEYS_OF_ITEMS if role == "item_key" else ROLES[role]
    by_letters = {_letters(column): column for column in reversed(list(columns))}
    return next((by_letters[name] for name in usual if name in by_letters), "")


def of_the_future(columns: Iterable[str]) -> list[str]:
    """Columns whose values come from all interactions, test included, such as review counts."""
    return [column for column in columns if _letters(column) in _FUTURE]


def worth_a_prompt(columns: Iterable[str], known: Iterable[str]) -> list[str]:
    """Columns of items that may say something in a prompt: no keys, places or pictures, nothing of the future."""
    taken = {*known, *of_the_future(columns)}
    return [column for column in columns if column not in taken and not _NO_TEXT.search(column.lower())]


def _letters(column: str) -> str:
    """`User ID:token` becomes `userid`: some formats write a type behind the name."""
    return re.sub(r"[^a-z0-9]", "", column.partition(":")[0].lower())


# From the paths that a person names to the settings of the source `table` and the tables behind them.


SUFFIXES = (".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson")
"""Of the files that are looked for in a folder."""

COLUMNS = (*ROLES, "item_key")
"""Settings of `table` that name a column."""

_ALWAYS = ("use", "interactions", "items", "user", "item", "timestamp", "item_key", "title", "attributes")
"""Settings that a recipe spells out, whatever their defaults."""


@dataclass(frozen=True)
class Files:
    """What is checked: a file of interactions, one of items, or both. settings: as `[prepare.source]` has them."""

    settings: Mapping[str, Any]
    interactions: Sheet | None
    items: Sheet | None


def open_files(paths: Sequence[Path], columns: Mapping[str, str]) -> Files:
    """Read the files of a recipe, of a folder, or as named, in either order.

    columns: setting -> column, for what cannot be told from the names. Raises UserError where a file cannot be read
    or nothing tells what is in it.
    """
    if unknown := [setting for setting in columns if setting not in COLUMNS]:
        hint = nearest(unknown[0], COLUMNS)
        raise UserError(f"--column {unknown[0]}=...: no column has this role.{hint} Roles: {', '.join(COLUMNS)}")
    if len(paths) == 1 and paths[0].suffix == ".toml":
        if columns:
            raise UserError(f"--column goes with files; {paths[0]} names the columns itself, in [prepare.source]")
        return _of_recipe(paths[0])
    files = [file for path in paths for file in (_inside(path) if path.is_dir() else [path])]
    if len(files) > 2:
        raise UserError(f"name one file of interactions and one of items, not {', '.join(map(str, files))}")
    settings: dict[str, Any] = {"use": "table"}
    sheets: dict[str, Sheet] = {}
    for file in files:
        sheet = read_sheet(file, "auto", "", '"', "interactions")
        what = "interactions" if columns.get("user", guess(sheet.columns, "user")) in sheet.columns else "items"
        if what in sheets:
            raise UserError(
                f"{sheets[what].file} and {file} both look like {what}; one file must have a column of users: "
                "name it with --column user=NAME"
            )
        sheets[what] = sheet
        settings |= {what: str(file), **_guessed(sheet, what, columns)}
    return Files(settings, sheets.get("interactions"), sheets.get("items"))


def named_columns(texts: Sequence[str]) -> dict[str, str]:
    """`role=name` texts as role -> name. Raises UserError."""
    made = {}
    for text in texts:
        role, equals, column = text.partition("=")
        if not equals or not role.strip():
            raise UserError(f"--column takes role=name, such as user=customer, not '{text}'")
        made[role.strip()] = column.strip()
    return made


def source_table(files: Files) -> dict[str, Any]:
    """The table `[prepare.source]` of a recipe that reads these files."""
    usual = Table.model_fields
    return {
        name: value
        for name, value in files.settings.items()
        if name in _ALWAYS or (name in usual and value != usual[name].default)
    }


def _guessed(sheet: Sheet, what: str, columns: Mapping[str, str]) -> dict[str, Any]:
    """Settings of the columns of one file. Raises UserError where a key is not to be found."""
    roles = ("user", "item", "timestamp", "rating") if what == "interactions" else ("item_key", "title")
    found: dict[str, Any] = {role: columns.get(role, guess(sheet.columns, role)) for role in roles}
    for role, column in found.items():
        if column:
            sheet.require(column, role)
        elif role in ("user", "item", "item_key"):
            raise UserError(
                f"{sheet.file}: none of the columns {', '.join(sheet.columns)} looks like the {role}; "
                f"name it with --column {role}=NAME"
            )
    if what == "items":
        found["attributes"] = worth_a_prompt(sheet.columns, found.values())
    return found


def _of_recipe(file: Path) -> Files:
    recipe = load(file)
    source = next((step.source for step in recipe.steps.values() if isinstance(step, Prepare)), None)
    if not isinstance(source, Table):
        raise UserError(f"{file}: the source is no `table`, so there are no files of yours to check")
    sheets = [
        read_sheet(path, form, source.separator, source.quote, what)
        for what, path, form in (
            ("interactions", source.interactions, source.interactions_format),
            ("items", source.items, source.items_format),
        )
    ]
    spec = source.spec()
    for sheet, roles in zip(sheets, (("user", "item", "timestamp", "rating"), ("item_key", "title")), strict=True):
        for role in roles:
            if spec[role]:
                sheet.require(spec[role], f"source.{role}")
    return Files(spec, *sheets)


def _inside(folder: Path) -> list[Path]:
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f"{folder} holds no file with one of the suffixes {', '.join(SUFFIXES)}")
    return found


# What a check of data finds, and how its examples are chosen.


_EXAMPLES = 3
_CHARACTERS = 40


@dataclass(frozen=True)
class Finding:
    """A count of something, out of `total` where that says more; warns: it may spoil results if left so."""

    subject: str
    what: str
    count: int
    total: int | None = None
    examples: tuple[str, ...] = ()
    warns: bool = True


def found(
    subject: str,
    what: str,
    values: polars.Series,
    total: int | None = None,
    *,
    warns: bool = True,
    beside: Iterable[str] = (),
) -> Finding:
    """A finding about each of `values`, with the first few different ones as examples, or those of `beside`."""
    shown = list(beside) or values.unique(maintain_order=True).to_list()
    return Finding(subject, what, len(values), total, tuple(map(short, shown[:_EXAMPLES])), warns)


def short(value: object) -> str:
    """A value on one line, cut where it is long."""
    text = " ".join(str(value).split()) if str(value).strip() else repr(value)
    return text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 1]}…"


# Checks of keys: those that stand for nothing, were changed on their way through another program, or do not meet.


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


# Checks of interactions: sizes, order in time, duplicates.


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


# Checks of items: keys that stand twice, texts that are missing, alike, long or not clean.


_CODE = r"<[a-zA-Z/][^>]*>|&[a-z]+;|&#[0-9]+;"


def keys_of_items(files: Files, sheet: Sheet) -> polars.Series:
    """The items' keys as the source reads them, null where a cell is empty."""
    values = [as_text(row.get(files.settings["item_key"])) for row in sheet.rows()]
    return keys(polars.Series("item_key", values, polars.String))


def texts(files: Files, sheet: Sheet, item_keys: polars.Series) -> list[Finding]:
    """What is wrong with the texts of items, with their keys as examples."""
    settings, rows = files.settings, sheet.rows()
    columns = [column for column in dict.fromkeys((settings["title"], *settings["attributes"])) if column]
    twice = item_keys.filter(item_keys.is_duplicated()).unique(maintain_order=True)
    made = [found("ids", "items whose key stands twice; the first counts", twice, len(rows))]
    if not columns:
        return [*made, Finding("texts", "no column looks like a text: items are called by their keys", len(rows))]
    words = [polars.Series([_words(row.get(column)) for row in rows], dtype=polars.String) for column in columns]
    for column, each in zip(columns, words, strict=True):
        without = item_keys.filter(each == "")
        warns = column == settings["title"]
        made.append(found("texts", f"items whose '{column}' is empty", without, len(rows), warns=warns))
    whole = polars.Series([" ".join(filter(None, each)) for each in zip(*words, strict=True)], dtype=polars.String)
    return [*made, *_of_whole(whole, item_keys), _future(sheet, settings["attributes"])]


def _of_whole(whole: polars.Series, item_keys: polars.Series) -> list[Finding]:
    """What is wrong with the whole texts of items, all columns together."""
    total = len(whole)
    alike = (whole != "") & whole.is_duplicated()
    longest = whole.str.len_chars().arg_max() or 0
    return [
        found("texts", "items without any text, which are called by their keys", item_keys.filter(whole == ""), total),
        found(
            "texts",
            "items whose whole text another has too: no text embedding can tell them apart",
            item_keys.filter(alike),
            total,
            beside=whole.filter(alike).unique(maintain_order=True).to_list(),
        ),
        found("texts", "items with HTML in their text", item_keys.filter(whole.str.contains(_CODE)), total),
        Finding(
            "texts",
            "characters of the longest text; prompt.value_length cuts each value",
            len(whole[longest]),
            examples=(f"{short(item_keys[longest])}: {short(whole[longest])}",),
            warns=False,
        ),
    ]


def _future(sheet: Sheet, chosen: Sequence[str]) -> Finding:
    """Columns that should stay out of prompts; a warning where a recipe shows them."""
    late = of_the_future(sheet.columns)
    return found(
        "texts",
        "columns that only the future knew, to be kept out of prompts",
        polars.Series(late, dtype=polars.String),
        len(sheet.columns),
        warns=bool(set(late) & set(chosen)),
    )


def _words(value: object) -> str:
    """A cell as one text, lists joined."""
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(_words, value)))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_words(each)}" for key, each in value.items() if each is not None)
    return as_text(value)
