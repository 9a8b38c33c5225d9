"""What columns of your own files usually are called, and which role a column therefore has."""

from __future__ import annotations

import re
from collections.abc import Iterable

ROLES = {
    "user": "user userid uid reviewerid customer customerid visitorid sessionid who",
    "item": "item itemid iid parentasin asin product productid sku businessid gmapid "
    "movie movieid book bookid track trackid article articleid gameid",
    "timestamp": "timestamp time unixreviewtime datetime date createdat reviewtime when eventtime position",
    "rating": "rating ratings overall stars score",
    "title": "title name producttitle productname itemname movietitle",
}
ROLES["item_key"] = f"{ROLES['item']} id key code"
"""Role -> names that columns of that role usually have, letters and digits alone, likeliest first."""


def guess(columns: Iterable[str], role: str) -> str:
    """Returns the likeliest column of a role (`item_key` is that of the items' own file), or nothing."""
    by_letters = {letters(column): column for column in reversed(list(columns))}
    return next((by_letters[name] for name in ROLES[role].split() if name in by_letters), "")


def letters(column: str) -> str:
    """Returns letters and digits alone, without a type after the name: `User ID:token` becomes `userid`."""
    return re.sub(r"[^a-z0-9]", "", column.partition(":")[0].lower())
