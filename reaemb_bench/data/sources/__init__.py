"""One file a data source; here is what those that read files share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reaemb_bench.core.component import Component
from reaemb_bench.core.files import file_digests


class FileSource(Component):
    """A source whose identity is what its files hold and what it is called in tables, not where the files lie."""

    @property
    def data_name(self) -> str:
        """The name in tables."""
        return self.use

    def identity(self) -> dict[str, Any]:
        """Settings and contents without paths: the same files in another folder are the same data."""
        paths = {name: "" for name, value in self if isinstance(value, Path | None)}
        return {**super().identity(), **paths, "name": self.data_name}

    def fingerprint(self) -> dict[str, Any]:
        """The sha256 of all files, or the first that is missing."""
        return file_digests({name: value for name, value in self if isinstance(value, Path)})
