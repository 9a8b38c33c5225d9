"""One file a data source; here is what those that read files share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from reaemb_bench.core.component import Component, Progress
from reaemb_bench.core.files import file_digests
from reaemb_bench.core.machine import Machine
from reaemb_bench.data.interactions import About
from reaemb_bench.data.published import PublishedFile, fetch
from reaemb_bench.data.published_split import PARTS


class FileSource(Component):
    """A source whose identity is what its files hold and what it is called in tables, not where the files lie."""

    about: ClassVar[About] = About()

    @property
    def data_name(self) -> str:
        """The name in tables."""
        return self.use

    def published(self) -> Mapping[str, PublishedFile]:
        """What is downloaded in place of paths that are not given, by what it holds."""
        return {}

    def identity(self) -> dict[str, Any]:
        """Settings and contents without paths: the same files in another folder are the same data."""
        paths = {name: "" for name, value in self if isinstance(value, Path | None)}
        return {**super().identity(), **paths, "name": self.data_name}

    def fingerprint(self) -> dict[str, Any]:
        """The sha256 of all files, or the first that is missing; of downloads what they are pinned by."""
        downloads = {f"{name}_file": file.identity() for name, file in self.published().items()}
        return {**file_digests(self.paths()), **downloads}

    def paths(self) -> dict[str, Path]:
        """The files that settings name, by what they hold."""
        return {name: value for name, value in self if isinstance(value, Path)}

    def fetch(self, machine: Machine, report: Callable[[Progress], None] = lambda _: None) -> dict[str, Path]:
        """Returns all files by what they hold, those that no setting names after a download.

        Raises UserError if one cannot be downloaded or is not the one that was pinned.
        """
        return self.paths() | fetch(self.published(), self.use, self.about, machine, report)


def split_files(file: Path) -> dict[str, Path]:
    """The three files of a published split by part, if the name is that of one (`X.train.csv`); else nothing."""
    return {
        part: file.with_name(file.name.replace(".train.", f".{word}."))
        for part, word in PARTS.items()
        if ".train." in file.name
    }
