"""The same job as research code does it: `json.loads` a line, dictionaries, lists and loops; no library at all."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = tuple[str, str, int]
History = list[str]


@dataclass(frozen=True)
class Made:
    """What both sides must make equal: users in order, their training items, targets, and the items' texts in order."""

    users: list[str]
    training: list[History]
    validation: list[str]
    test: list[str]
    texts: dict[str, str]
    candidates: int


def prepare(reviews: Path, metadata: Path, minimum: int, candidates: int) -> Made:
    """Read, drop repeats, keep the k-core, leave the last two out, write texts, draw candidates."""
    rows = core(read_rows(reviews), minimum)
    histories = in_time_order(rows)
    items = {item for _, item, _ in rows}
    users = sorted(histories, key=natural)
    ordered = sorted(items, key=natural)
    number = {item: position for position, item in enumerate(ordered)}
    texts = read_texts(metadata, items)
    drawn = 0
    for user in users:
        touched = {number[item] for item in histories[user]}
        drawn += sum(len(draw(len(ordered), touched, candidates)) for _ in ("validation", "test"))
    return Made(
        users,
        [histories[user][:-2] for user in users],
        [histories[user][-2] for user in users],
        [histories[user][-1] for user in users],
        {item: texts[item] for item in ordered},
        drawn,
    )


def read_rows(file: Path) -> list[Row]:
    """User, item and time of every review, exact repeats left out."""
    seen: set[Row] = set()
    rows: list[Row] = []
    with file.open(encoding="utf-8") as stream:
        for line in stream:
            review = json.loads(line)
            row = (review["user_id"], review["parent_asin"], review["timestamp"])
            if row not in seen:
                seen.add(row)
                rows.append(row)
    return rows


def core(rows: list[Row], minimum: int) -> list[Row]:
    """The rows between users and items that all have enough of them."""
    while True:
        users, items = Counter(user for user, _, _ in rows), Counter(item for _, item, _ in rows)
        kept = [row for row in rows if users[row[0]] >= minimum and items[row[1]] >= minimum]
        if len(kept) == len(rows):
            return rows
        rows = kept


def in_time_order(rows: list[Row]) -> dict[str, History]:
    """Each user's items, oldest first."""
    timed: dict[str, list[tuple[int, str]]] = {}
    for user, item, time in rows:
        timed.setdefault(user, []).append((time, item))
    return {user: [item for _, item in sorted(pairs)] for user, pairs in timed.items()}


def natural(key: str) -> tuple[list[str | int], str]:
    """A key under which "9" comes before "10", and "07" and "7" have an order too."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"(\d+)", key))], key


def read_texts(file: Path, items: set[str]) -> dict[str, str]:
    """The prompts of the wanted items."""
    texts: dict[str, str] = {}
    with file.open(encoding="utf-8") as stream:
        for line in stream:
            item = json.loads(line)
            if item["parent_asin"] in items:
                texts[item["parent_asin"]] = text(item)
    return texts


def text(item: dict[str, Any]) -> str:
    """One item's prompt: `title is ...; category is ...; ...`."""
    main = item["main_category"]
    features: list[str] = []
    for feature in item["features"]:
        short = feature.split(" - ")[0].strip()
        if short and short not in features:
            features.append(short)
    values = {
        "title": item["title"],
        "category": ", ".join([main, *(name for name in item["categories"] if name.lower() != main.lower())]),
        "price": "" if item["price"] is None else f"{item['price']:g}",
        "store": item["store"],
        "features": ", ".join(features[:4]),
        "description": re.split(r"(?<=[.!?])\s", item["description"][0])[0],
    }
    return "; ".join(f"{name} is {one_line(value) or 'none'}" for name, value in values.items())


def one_line(value: str) -> str:
    """At most 100 characters on one line without ";"."""
    return re.sub(r"\s+", " ", value.replace(";", ".")).strip()[:100].strip()


def draw(items: int, touched: set[int], wanted: int) -> list[int]:
    """Distinct items that a user never touched."""
    drawn: set[int] = set()
    while len(drawn) < min(wanted, items - len(touched)):
        item = random.randrange(items)
        if item not in touched:
            drawn.add(item)
    return list(drawn)
