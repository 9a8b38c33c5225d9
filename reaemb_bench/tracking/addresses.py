"""Addresses of servers and databases, and how they are shown: without their secrets."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, unquote_plus, urlsplit, urlunsplit

HIDDEN = "***"

# A password may hold a slash where a database driver reads it, so it ends with the last @ of the word.
_USER = re.compile(r"://(?:[^/\s:@]+(?::\S*)?|:\S*)@")
_VALUE = re.compile(r"([?&#;][^=&#;?\s]+=)([^&#\s'\")]+)")
_NAMED = re.compile(
    r"((?:password|passwd|pwd|token|secret|api_?key|access_?key)=)('[^']*'|[^\s&;,'\")]+)", re.IGNORECASE
)


def redacted(text: str, uri: str = "") -> str:
    """Returns a text with `***` for the secrets of all addresses in it.

    Secrets are user and password, the values of a query or of a fragment, and what follows `password=` and the like.
    uri: an address whose secrets are hidden in every other form, too, since libraries repeat them decoded and alone.
    """
    # Values such as `1` or `ro` are not secrets, and would be replaced in every word.
    secrets = {value for _, value in _VALUE.findall(uri) if len(value) > 3}
    if user := _USER.search(uri):
        name, _, password = user.group().removeprefix("://").removesuffix("@").partition(":")
        # A token alone is written as if it were a user.
        secrets.add(password or name)
    forms = {form for secret in secrets for form in (secret, unquote(secret), unquote_plus(secret)) if form}
    for secret in sorted(forms, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _NAMED.sub(rf"\1{HIDDEN}", _VALUE.sub(rf"\1{HIDDEN}", _USER.sub(f"://{HIDDEN}@", text)))


def is_server(uri: str) -> bool:
    """Returns whether the address is that of a web server, so that a browser can open it."""
    return uri.startswith(("http://", "https://"))


def page_of(uri: str) -> str:
    """Returns what to open in a browser: the server's address without user, password, query and fragment."""
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def database_file(uri: str) -> Path | None:
    """Returns the absolute file of a SQLite address, None for any other address."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]).absolute() if uri.startswith("sqlite:///") else None
