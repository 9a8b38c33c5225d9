"""MovieLens-1M, -20M and -32M (Harper & Konstan, 2015) as they are published: one file of ratings, one of movies."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field as Setting

from reaemb_bench.component import Component
from reaemb_bench.data.delimited import read_delimited
from reaemb_bench.data.interactions import About, Interactions, Removed, without_duplicates
from reaemb_bench.data.lines import MALFORMED_LIMIT, Field, Malformed
from reaemb_bench.data.movies import CITATION, INSTRUCTION, Movies, movie
from reaemb_bench.data.released import fingerprint, released
from reaemb_bench.errors import UserError
from reaemb_bench.machine import Machine

_COLUMNS = ("user", "item", "rating", "timestamp")
_FIELDS = {
    "user": Field("text", required=True),
    "item": Field("text", required=True),
    "timestamp": Field("whole", required=True),
    "rating": Field("number", required=True),
}


@dataclass(frozen=True)
class Layout:
    """How a release is written: its two files, and between their fields a separator.

    headers: the first lines of ratings and movies, empty where there are none. fields: a line of movies -> its fields.
    """

    ratings: str
    movies: str
    separator: str
    encoding: str
    headers: tuple[str, str]
    fields: Callable[[str], list[str]]

    @property
    def files(self) -> tuple[str, str]:
        """Names of ratings and movies."""
        return self.ratings, self.movies


def _comma_separated(line: str) -> list[str]:
    return next(csv.reader([line], strict=True))


DOUBLE_COLONS = Layout("ratings.dat", "movies.dat", "::", "latin-1", ("", ""), lambda line: line.split("::"))
_HEADERS = ("userId,movieId,rating,timestamp", "movieId,title,genres")
COMMAS = Layout("ratings.csv", "movies.csv", ",", "utf-8", _HEADERS, _comma_separated)


def _about(edition: str, redistribution: str) -> About:
    return About(
        home=f"https://grouplens.org/datasets/movielens/{edition}/",
        licence=f"GroupLens usage licence: research, no commercial use without permission, {redistribution}",
        citation=CITATION,
    )


class MovieLensFiles(Component):
    """The settings of sources that read a release of MovieLens; a release adds its layout and its terms."""

    layout: ClassVar[Layout]
    about: ClassVar[About]

    path: Path
    """Folder that holds the files of ratings and of movies, or the zip file in which they are published."""
    malformed_limit: int = Setting(default=MALFORMED_LIMIT, ge=0)
    """Malformed lines that are tolerated in each file; they are counted and left out."""

    def identity(self) -> dict[str, Any]:
        """Contents, not places: the same files in another folder are the same data."""
        return {**super().identity(), "path": ""}

    def fingerprint(self) -> dict[str, Any]:
        """The sha256 of both files, or the first that is missing."""
        return fingerprint(self.path, self.layout.files)


class MovieLens1M(MovieLensFiles):
    """MovieLens-1M: 1,000,209 ratings of 6,040 users with seconds, as implicit feedback; title, year and genres.

    Movies without a line of their own keep their ratings and are called by their key.
    """

    layout: ClassVar[Layout] = DOUBLE_COLONS
    about: ClassVar[About] = _about("1m", "no redistribution")

    path: Path = Path("data/ml-1m")
    """Folder with ratings.dat and movies.dat, or the zip file that holds them."""

    def read(self, machine: Machine) -> Interactions:
        """All ratings and movies. Raises UserError where a file is missing or no release of MovieLens."""
        return read_movielens("movielens-1m", self, machine.cache)


class MovieLens20M(MovieLensFiles):
    """MovieLens-20M: 20,000,263 ratings of 138,493 users with seconds, as implicit feedback; title, year and genres.

    Movies without a line of their own keep their ratings and are called by their key.
    """

    layout: ClassVar[Layout] = COMMAS
    about: ClassVar[About] = _about("20m", "redistribution under the same terms")

    path: Path = Path("data/ml-20m")
    """Folder with ratings.csv and movies.csv, or the zip file that holds them."""

    def read(self, machine: Machine) -> Interactions:
        """All ratings and movies. Raises UserError where a file is missing or no release of MovieLens."""
        return read_movielens("movielens-20m", self, machine.cache)


class MovieLens32M(MovieLensFiles):
    """MovieLens-32M: 32,000,204 ratings of 200,948 users with seconds, as implicit feedback; title, year and genres.

    Movies without a line of their own keep their ratings and are called by their key. All ratings are in
    memory at once.
    """

    layout: ClassVar[Layout] = COMMAS
    about: ClassVar[About] = _about("32m", "redistribution under the same terms")

    path: Path = Path("data/ml-32m")
    """Folder with ratings.csv and movies.csv, or the zip file that holds them."""

    def read(self, machine: Machine) -> Interactions:
        """All ratings and movies. Raises UserError where a file is missing or no release of MovieLens."""
        return read_movielens("movielens-32m", self, machine.cache)


def read_movielens(name: str, source: MovieLensFiles, scratch: Path) -> Interactions:
    """A release of MovieLens under this name. scratch: where a zip file is unpacked meanwhile."""
    place, layout = source.path, source.layout
    broken_ratings, broken_movies = (Malformed(place / file, source.malformed_limit) for file in layout.files)
    with released(place, layout.files, source.about.home, scratch) as files:
        for file, header in zip(layout.files, layout.headers, strict=True):
            _require_header(files[file], header, place / file)
        has_header = bool(layout.headers[0])
        frame = read_delimited(files[layout.ratings], _COLUMNS, _FIELDS, layout.separator, has_header, broken_ratings)
        movies, repeated = read_movies(files[layout.movies], layout, broken_movies)
    if not movies:
        raise UserError(f"{place / layout.movies} holds no movie; fetch it again from {source.about.home}")
    removed = {
        **broken_ratings.removed("interactions"),
        **broken_movies.removed("items"),
        "repeated items": Removed(items=repeated),
    }
    return without_duplicates(Interactions(name, frame, movies, INSTRUCTION, removed, source.about))


def _require_header(file: Path, header: str, called: Path) -> None:
    with file.open("rb") as stream:
        found = stream.readline(1000).removeprefix(b"\xef\xbb\xbf").decode("latin-1").strip()
    if header and found != header:
        raise UserError(f"{called} starts with '{found[:80]}' and not with '{header}'; give the published file")


def read_movies(file: Path, layout: Layout, malformed: Malformed) -> tuple[Movies, int]:
    """Movies by key, and how many lines repeat a key that was there before. Malformed lines are counted."""
    movies: Movies = {}
    sound = 0
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if (number == 1 and layout.headers[1]) or not line.strip():
                continue
            try:
                key, title, genres = layout.fields(line.decode(layout.encoding).rstrip("\r\n"))
            except (ValueError, csv.Error) as error:
                malformed.add(number, "not in UTF-8" if isinstance(error, UnicodeError) else "not three fields")
                continue
            sound += 1
            movies.setdefault(key.strip(), movie(title, genres.split("|")))
    return movies, sound - len(movies)
