"""Which column of a file is the user, the item, the time, the rating or the title, judged by its name."""

from __future__ import annotations

import re
from collections.abc import Iterable

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
