"""Mutated data: a small shop for the source `table` in four formats, and the miniatures of published data sets."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars

from tests.faults.damages import damaged
from tests.helpers.sources import RAW

Rows = list[dict[str, Any]]
FORMATS = ("csv", "tsv", "parquet", "jsonl")
_TYPES = (
    polars.Binary, polars.Categorical, polars.Decimal(18, 2), polars.Time, polars.Duration,
    polars.Date, polars.Datetime("us", "UTC"), polars.Boolean, polars.UInt64, polars.Int8, polars.Null,
    polars.Float32, polars.String,
)  # fmt: skip
_START = 1_600_000_000
_DAY = 86_400

MINIATURES: dict[str, dict[str, str]] = {
    "amazon-2014": {"reviews": "amazon_2014/reviews_Beauty.json", "metadata": "amazon_2014/meta_Beauty.json"},
    "amazon-2018": {"reviews": "amazon_2018/Industrial_5.json", "metadata": "amazon_2018/meta_Industrial.json"},
    "amazon-2023": {
        "reviews": "amazon_2023/Kitchen_Toys.jsonl",
        "metadata": "amazon_2023/meta_Kitchen_Toys.jsonl.gz",
    },
    "yelp": {
        "reviews": "yelp/yelp_academic_dataset_review.json",
        "metadata": "yelp/yelp_academic_dataset_business.json",
    },
    "goodreads": {
        "reviews": "goodreads/goodreads_interactions_tales.json",
        "metadata": "goodreads/goodreads_books_tales.json",
        "authors": "goodreads/goodreads_book_authors.json",
    },
    "movielens-1m": {"path": "movielens_1m"},
    "movielens-20m": {"path": "movielens_20m"},
    "movielens-32m": {"path": "movielens_32m"},
    "recbole-atomic": {"path": "recbole/shop"},
    "reaemb-authors": {"interactions": "authors/inter.txt", "items": "authors/item_info.jsonline"},
}


@dataclass(frozen=True)
class Case:
    """A mutated data set: the settings of its source, and each user's items in time order where that is known."""

    label: str
    source: dict[str, Any]
    split: str = "leave-last-two"
    expected: dict[str, list[str]] | None = None


@dataclass
class _Shop:
    """A shop while it is mutated."""

    rng: random.Random
    rows: Rows
    items: Rows
    settings: dict[str, Any] = field(default_factory=dict)


def mutated(seed: int, folder: Path) -> Case:
    """The data of this number, written below `folder`, which is new: two of three for `table`."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    return _published(seed, rng, folder) if seed % 3 == 2 else _own(seed, rng, folder)


def _own(seed: int, rng: random.Random, folder: Path) -> Case:
    shop = _shop(rng)
    edits = [] if rng.random() < 0.25 else [rng.choice(_EDITS) for _ in range(rng.choice((1, 1, 2)))]
    for edit in edits:
        edit(shop)
    names = [edit.__name__.strip("_") for edit in edits]
    form = rng.choice(FORMATS)
    files = {"interactions": folder / f"rows.{form}", "items": folder / f"items.{form}"}
    for (setting, file), rows in zip(files.items(), (shop.rows, shop.items), strict=True):
        file.write_bytes(_written(rng, rows, form))
        if not edits and setting == rng.choice(list(files)):
            names.append(f"{setting} {damaged(rng, file)}")
    whole = form != "parquet" and all(edit in _KNOWN for edit in edits)
    expected = _expected(shop.rows) if whole and len(names) == len(edits) else None
    source = {"use": "table", **{name: str(file) for name, file in files.items()}, **shop.settings}
    split = "leave-last-two" if expected is not None or rng.random() < 0.7 else "temporal"
    return Case(f"{seed} ({form}: {', '.join(names)})", source, split, expected)


def _shop(rng: random.Random) -> _Shop:
    rows = []
    for user in range(12):
        bought = rng.sample(range(15), rng.randrange(4, 9))
        moments = rng.sample(range(400), len(bought))
        rows += [
            {"user_id": f"u{user:02}", "item_id": f"i{item}", "timestamp": _START + moment * _DAY, "rating": 4.0}
            for item, moment in zip(bought, moments, strict=True)
        ]
    rng.shuffle(rows)
    items = [{"item_id": f"i{item}", "title": f"Thing {item}", "brand": f"brand {item % 4}"} for item in range(15)]
    return _Shop(rng, rows, items, {"attributes": ["brand"], "rating": "rating"})


def _expected(rows: Rows) -> dict[str, list[str]]:
    moments: dict[str, dict[str, int]] = {}
    for row in rows:
        moments.setdefault(str(row["user_id"]).strip(), {})[str(row["item_id"]).strip()] = row["timestamp"]
    return {user: sorted(items, key=items.__getitem__) for user, items in moments.items()}


def _written(rng: random.Random, rows: Rows, form: str) -> bytes:
    if form == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "surrogatepass")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if form == "parquet":
        return _parquet(rng, rows, columns)
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns, delimiter="," if form == "csv" else "\t")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def _parquet(rng: random.Random, rows: Rows, columns: list[str]) -> bytes:
    out = io.BytesIO()
    content = {name: [row.get(name) for row in rows] for name in columns}
    try:
        frame = polars.DataFrame(content)
    except (TypeError, OverflowError, UnicodeEncodeError, polars.exceptions.PolarsError):
        texts = {
            name: [str(value).encode("utf-8", "replace").decode() for value in values]
            for name, values in content.items()
        }
        frame = polars.DataFrame(texts)
    if columns and rng.random() < 0.3:
        column = rng.choice(columns)
        with suppress(polars.exceptions.PolarsError):
            frame = frame.with_columns(frame[column].cast(rng.choice(_TYPES), strict=False))
    frame.write_parquet(out)
    return out.getvalue()


def _some(shop: _Shop, rows: Rows) -> Rows:
    return shop.rng.sample(rows, min(len(rows), shop.rng.choice((1, 3, len(rows) // 2, len(rows)))))


def _as_numbers(shop: _Shop) -> None:
    """Keys become numbers of another kind, the same in both files."""
    kind: Callable[[int], Any] = shop.rng.choice(
        (int, float, lambda n: -n - 1, lambda n: 10**30 + n, lambda n: f"00{n}", lambda n: 2**63 + n, lambda n: n / 2)
    )
    for row in [*shop.rows, *shop.items]:
        for column in ("user_id", "item_id"):
            if column in row and str(row[column])[1:].isdigit():
                row[column] = kind(int(str(row[column])[1:]))


def _odd_keys(shop: _Shop) -> None:
    column = shop.rng.choice(("user_id", "item_id"))
    odd = shop.rng.choice(
        ("", " ", None, float("nan"), "nan", "null", True, ["a"], {"a": 1}, "🦊", "א", "a,b", 'say "x"', "a\tb", "a\nb",
         "x\x00y", "\ufeff", "9" * 5000, "k" * 10**6, "\x1f", "\u2028", "\udcff", 1e308, float("inf"), 10**400)
    )  # fmt: skip
    for row in _some(shop, shop.rows):
        row[column] = odd


def _odd_times(shop: _Shop) -> None:
    odd = shop.rng.choice(
        (-5, -(10**15), 0, "", None, "yesterday", "2024-05-31", "2024-05-31T10:00:00+02:00", "31.05.2024", 253402300799,
         "9999-12-31", "99999-01-01", 1.5, float("nan"), float("inf"), 10**30, _START * 1000, _START * 10**6, True, [1],
         "1e9", " 1600000000 ", "0x10", "2024-02-30", {"$date": 1})
    )  # fmt: skip
    for row in _some(shop, shop.rows):
        row["timestamp"] = odd


def _all_dates(shop: _Shop) -> None:
    form = shop.rng.choice(("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%d/%m/%Y", "%Y-%m-%d %H:%M:%S+00:00", "%c"))
    for row in shop.rows:
        row["timestamp"] = datetime.fromtimestamp(shop.rng.randrange(_START), UTC).strftime(form)


def _other_unit(shop: _Shop) -> None:
    factor = shop.rng.choice((1000, 10**6, 10**9))
    for row in shop.rows:
        if isinstance(row.get("timestamp"), int):
            row["timestamp"] *= factor


def _odd_ratings(shop: _Shop) -> None:
    odd = shop.rng.choice((None, "", "five", float("nan"), float("inf"), -1, "4,5", True, [5], "nan", 10**400))
    for row in _some(shop, shop.rows):
        row["rating"] = odd


def _odd_titles(shop: _Shop) -> None:
    odd = shop.rng.choice(
        ("", None, "🦊👩‍👩‍👧", "ספר \u202e!", "x" * 10**6, "a;b;c", "line\nfeed", "\x00", 'un"balanced', 7, 2.5, True,
         float("nan"), ["a", ["b", None]], {"x": {"y": [1]}}, "title is none", "\udc80", 10**400, "\x1b[2J", "é" * 1000)
    )  # fmt: skip
    column = shop.rng.choice(("title", "brand"))
    for row in _some(shop, shop.items):
        row[column] = odd


def _spaces(shop: _Shop) -> None:
    for row in _some(shop, shop.rows):
        column = shop.rng.choice(("user_id", "item_id"))
        row[column] = f"{row.get(column, '')}{shop.rng.choice((' ', '  ', chr(160)))}"


def _duplicates(shop: _Shop) -> None:
    shop.rows += [dict(row) for row in _some(shop, shop.rows)]
    shop.items += [dict(row) for row in _some(shop, shop.items)]


def _no_column(shop: _Shop) -> None:
    rows = shop.rng.choice((shop.rows, shop.items))
    gone = shop.rng.choice(("user_id", "item_id", "timestamp", "rating", "title", "brand"))
    for row in rows:
        row.pop(gone, None)


def _more_columns(shop: _Shop) -> None:
    for row in [*shop.rows, *shop.items]:
        row[shop.rng.choice(("extra", "note", "item_id ", "Title"))] = shop.rng.choice((1, "x", None, 2.5))


def _one_user(shop: _Shop) -> None:
    shop.rows[:] = [row for row in shop.rows if row.get("user_id") == "u03"]


def _one_item(shop: _Shop) -> None:
    for row in shop.rows:
        row["item_id"] = "i3"


def _all_cold(shop: _Shop) -> None:
    """No item is bought twice."""
    shop.items = [
        {"item_id": f"i{number}", "title": f"Thing {number}", "brand": ""} for number in range(len(shop.rows))
    ]
    for number, row in enumerate(shop.rows):
        row["item_id"] = f"i{number}"


def _long_history(shop: _Shop) -> None:
    shop.rows += [
        {"user_id": "u00", "item_id": f"i{number % 15}", "timestamp": _START + number, "rating": 1.0}
        for number in range(700)
    ]


def _few(shop: _Shop) -> None:
    del shop.rows[shop.rng.randrange(6) :]


def _no_items(shop: _Shop) -> None:
    shop.items[:] = shop.rng.choice(([], shop.items[:1], [{"item_id": "other", "title": "x", "brand": "y"}]))


def _more_items(shop: _Shop) -> None:
    shop.items += [{"item_id": f"never{number}", "title": "Unsold", "brand": ""} for number in range(20)]


def _other_settings(shop: _Shop) -> None:
    name, value = shop.rng.choice(
        (("user", "who"), ("timestamp", ""), ("title", ""), ("attributes", ["brand", "brand"]), ("separator", ";"),
         ("separator", "ab"), ("separator", "\n"), ("quote", ""), ("quote", "ab"), ("quote", "é"), ("separator", "é"),
         ("interactions_format", "jsonl"), ("items_format", "parquet"), ("interactions_format", "csv"),
         ("user", "item_id"),
         ("attributes", ["item_id"]), ("item_key", "title"), ("rating", "user_id"), ("timestamp", "rating"),
         ("timestamp", "user_id"), ("name", "a/b\n"), ("title", "brand"), ("name", ""), ("instruction", ""))
    )  # fmt: skip
    shop.settings[name] = value


_KNOWN = (_duplicates, _more_columns, _other_unit, _more_items, _few, _spaces)
"""Edits after which it is known what must come out."""
_EDITS: tuple[Callable[[_Shop], None], ...] = (
    *_KNOWN, _as_numbers, _as_numbers, _odd_keys, _odd_keys, _odd_keys, _odd_times, _odd_times, _odd_times, _all_dates,
    _odd_ratings, _odd_titles, _odd_titles, _no_column, _one_user, _one_item, _all_cold, _long_history, _no_items,
    _other_settings, _other_settings,
)  # fmt: skip


def _published(seed: int, rng: random.Random, folder: Path) -> Case:
    use = rng.choice(list(MINIATURES))
    settings: dict[str, Any] = {"use": use}
    files: list[Path] = []
    for setting, name in MINIATURES[use].items():
        there = folder / name
        there.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (RAW / name).is_dir() else shutil.copy)(RAW / name, there)
        settings[setting] = str(there)
        files += sorted(there.iterdir()) if there.is_dir() else [there]
    names = []
    if rng.random() < 0.9:
        file = rng.choice(files)
        names.append(f"{file.name} {damaged(rng, file)}")
    if use.startswith("movielens") and rng.random() < 0.4:
        settings["path"], kind = _zipped(rng, folder, files)
        names.append(kind)
    if rng.random() < 0.2:
        settings["malformed_limit"] = 0
    split = rng.choice(("leave-last-two", "temporal"))
    return Case(f"{seed} ({use}, {split}: {', '.join(names)})", settings, split)


def _zipped(rng: random.Random, folder: Path, files: list[Path]) -> tuple[str, str]:
    release = folder / "release.zip"
    with zipfile.ZipFile(release, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            if file.is_file():
                archive.write(file, f"ml/{file.name}")
    content = bytearray(release.read_bytes())
    kind = rng.choice(("whole", "whole", "cut", "empty", "bytes", "no zip"))
    match kind:
        case "cut":
            del content[rng.randrange(len(content)) :]
        case "empty":
            content.clear()
        case "no zip":
            content[:] = b"no zip file at all"
        case "bytes":
            for _ in range(10):
                content[rng.randrange(len(content))] = rng.randrange(256)
    release.write_bytes(content)
    return str(release), f"zip: {kind}"
