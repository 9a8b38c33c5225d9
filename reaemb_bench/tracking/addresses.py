"""Addresses of servers and databases: shown without their secrets."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

HIDDEN = "***"
"""Stands for a secret."""

_SQLITE = "sqlite:///"
# A password may hold a slash where a database driver reads it, so it ends with the last @ of the word.
_USER = re.compile(r"://(?:[^/\s:@]+(?::\S*)?|:\S*)@")
_QUERY = re.compile(r"([?&][^=&#\s]+=)[^&#\s'\")]+")


def redacted(text: str) -> str:
    """An address, or a line with addresses in it, with `***` for user, password and the values of a query."""
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(f"://{HIDDEN}@", text))


def without_secrets(text: str, uri: str) -> str:
    """What a library said about `uri`, without the secrets in it, however they are written."""
    for secret in _secrets(uri):
        text = text.replace(secret, HIDDEN)
    return redacted(text)


def is_server(uri: str) -> bool:
    """Whether the address is a web server's, so that it can be opened in a browser."""
    return uri.startswith(("http://", "https://"))


def page_of(uri: str) -> str:
    """What to open in a browser: the server's address without user, password and query."""
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def database_file(uri: str) -> Path | None:
    """The absolute file of a SQLite address, None for any other."""
    return Path(uri.removeprefix(_SQLITE)).absolute() if uri.startswith(_SQLITE) else None


def _secrets(uri: str) -> list[str]:
    """The password of an address as it is written and as it is meant."""
    found = _USER.search(uri)
    if found is None:
        return []
    user, _, password = found.group().removeprefix("://").removesuffix("@").partition(":")
    # A token alone stands where a user stands.
    secret = password or user
    return list(dict.fromkeys(each for each in (secret, unquote(secret)) if each))
