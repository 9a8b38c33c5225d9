"""MovieLens-1M, -20M and -32M from miniatures in the published formats, sound, odd and broken lines among them."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from reaemb_bench.core.component import Context
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
from reaemb_bench.data.interactions import Interactions, Removed
from reaemb_bench.data.prepare import Prepare
from reaemb_bench.data.sources.movielens import MovieLens1M, MovieLens20M, MovieLens32M, movie
from tests.conftest import Said

RAW = Path(__file__).parents[1] / "fixtures" / "raw"
Release = MovieLens1M | MovieLens20M | MovieLens32M
KINDS: dict[str, type[Release]] = {
    "movielens_1m": MovieLens1M,
    "movielens_20m": MovieLens20M,
    "movielens_32m": MovieLens32M,
}


def source(name: str, place: Path | None = None, limit: int = 100) -> Release:
    return KINDS[name](path=place or RAW / name, malformed_limit=limit)


def read(name: str, place: Path | None = None, limit: int = 100, cache: Path = Path()) -> Interactions:
    return source(name, place, limit).read(Machine(cache=cache))


def copied(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(RAW / name, folder / name))


def packed(name: str, folder: Path, inside: str = "ml/") -> Path:
    place = folder / f"{name}.zip"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (RAW / name).iterdir():
            archive.write(file, f"{inside}{file.name}")
    return place


def test_one_million_is_read_as_it_is_published() -> None:
    data = read("movielens_1m")
    assert data.frame.rows() == [
        ("1", "1", 978300760, 5.0),
        ("1", "2", 978302109, 3.0),
        ("1", "3", 978301968, 4.0),
        ("1", "5", 978300275, 1.0),
        ("2", "1", 978299000, 4.0),
        ("2", "7", 978299100, 2.0),
        ("2", "2", 978299620, 5.0),
        ("2", "8", 978299839, 3.0),
        ("3", "5", 978297039, 3.0),
        ("3", "8", 978297068, 4.0),
        # No line of movies.dat tells of movie 9; its rating counts all the same.
        ("3", "9", 978297100, 4.0),
        ("4", "2", 978294199, 4.0),
        ("4", "3", 978294230, 4.0),
        ("4", "5", 978294282, 2.0),
        ("5", "1", 978246162, 3.0),
        ("5", "7", 978246189, 4.0),
    ]
    assert data.items == {
        "1": {"title": "The Lantern Keeper", "year": "1994", "genres": ["Drama", "Mystery"]},
        "2": {"title": "Un Été à la mer (A Summer by the Sea)", "year": "1987", "genres": ["Comedy", "Romance"]},
        "3": {"title": "Paper Boats", "year": "", "genres": ["Animation", "Children's"]},
        "5": {"title": "Nine: The Long Way Home", "year": "1999", "genres": ["Sci-Fi"]},
        "7": {"title": "L'Enfer des glaces", "year": "1994", "genres": ["Thriller"]},
        "8": {"title": "Harbour & Sons", "year": "1972", "genres": ["Drama"]},
    }
    assert data.removed == {
        "malformed lines of ratings.dat (first: 10, 14, 15, 18, 20)": Removed(interactions=6),
        "malformed lines of movies.dat (first: 5)": Removed(items=1),
        "repeated items": Removed(items=1),
        "exact duplicates": Removed(interactions=1),
    }


def test_twenty_million_has_quoted_titles_and_carriage_returns() -> None:
    data = read("movielens_20m")
    assert data.frame.rows() == [
        ("1", "1", 1112486027, 3.5),
        ("1", "2", 1112484676, 4.0),
        ("1", "3", 1112484819, 0.5),
        ("2", "1", 974820889, 5.0),
        ("2", "5", 974820598, 4.5),
        ("2", "7", 974820691, 4.0),
        ("3", "8", 944919407, 3.0),
        ("3", "10", 944917859, 2.0),
        ("4", "1", 1573944252, 3.0),
        ("4", "5", 1573943455, 2.0),
    ]
    assert data.items == {
        "1": {"title": "The Lantern Keeper", "year": "1994", "genres": ["Drama", "Mystery"]},
        "2": {"title": "Un Été à la mer (A Summer by the Sea)", "year": "1987", "genres": ["Comedy", "Romance"]},
        "3": {"title": "Paper Boats", "year": "", "genres": []},
        "5": {"title": "Nine: The Long Way Home", "year": "1999", "genres": ["Sci-Fi", "IMAX"]},
        "7": {"title": '"Good Evening," She Said', "year": "2003", "genres": ["Thriller"]},
        "8": {"title": "A Harbour", "year": "2006", "genres": ["Drama"]},
    }
    assert data.removed == {
        "malformed lines of ratings.csv (first: 9, 12, 13, 14)": Removed(interactions=4),
        "malformed lines of movies.csv (first: 8, 9)": Removed(items=2),
        "repeated items": Removed(),
        "exact duplicates": Removed(interactions=1),
    }


def test_thirty_two_million_lies_beside_files_that_nobody_reads() -> None:
    data = read("movielens_32m")
    assert data.frame.rows() == [
        ("1", "1", 944249077, 4.0),
        ("1", "2", 944250228, 1.0),
        ("1", "3", 943230976, 1.0),
        ("2", "1", 974820000, 4.5),
        ("2", "4", 974820100, 2.5),
        ("3", "3", 1084485217, 3.0),
        ("3", "1", 1084485301, 3.5),
    ]
    assert data.items == {
        "1": {"title": "The Lantern Keeper", "year": "1994", "genres": ["Drama", "Mystery"]},
        "2": {"title": "Two Moons", "year": "2011", "genres": ["Comedy"]},
        "3": {"title": "Série sans nom", "year": "2019", "genres": []},
    }
    assert data.removed == {
        "malformed lines of ratings.csv (first: 7)": Removed(interactions=1),
        "malformed lines of movies.csv (first: 5)": Removed(items=1),
        "repeated items": Removed(),
        "exact duplicates": Removed(),
    }


@pytest.mark.parametrize(
    ("catalogue", "title", "year"),
    [
        ("(7) Days of Rain (2009)", "(7) Days of Rain", "2009"),
        ("1984 (1956) (1984)", "1984 (1956)", "1984"),
        ("Serial, The (1975-1979)", "The Serial", "1975"),
        ("No Year", "No Year", ""),
        ("(2005)", "(2005)", ""),
    ],
)
def test_the_year_comes_out_of_the_title(catalogue: str, title: str, year: str) -> None:
    assert movie(catalogue, []) == {"title": title, "year": year, "genres": []}


@pytest.mark.parametrize("name", KINDS)
def test_each_names_its_terms(name: str) -> None:
    data = read(name)
    assert data.name == name.replace("_", "-")
    assert data.instruction == "The movie has the following attributes:"
    assert data.about == KINDS[name].about
    assert data.about.home.startswith("https://grouplens.org/datasets/movielens/")
    assert "GroupLens" in data.about.licence
    assert "2827872" in data.about.citation


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("inside", ["", "ml/"])
def test_a_zip_file_is_the_same_data_as_its_folder(name: str, inside: str, tmp_path: Path) -> None:
    place = packed(name, tmp_path, inside)
    from_zip, from_folder = read(name, place, cache=tmp_path / "cache"), read(name)
    assert from_zip.frame.equals(from_folder.frame)
    assert from_zip.items == from_folder.items
    assert from_zip.removed == from_folder.removed
    assert source(name, place).identity() == source(name).identity()
    assert not list((tmp_path / "cache").iterdir()), "what was unpacked is left behind"


def test_identity_follows_content_and_not_the_place(tmp_path: Path) -> None:
    moved = copied("movielens_1m", tmp_path)
    assert source("movielens_1m", moved).identity() == source("movielens_1m").identity()
    with (moved / "ratings.dat").open("a") as file:
        file.write("\n6::1::5::978246162")
    assert source("movielens_1m", moved).identity() != source("movielens_1m").identity()
    (moved / "movies.dat").unlink()
    assert source("movielens_1m", moved).fingerprint() == {"missing": str(moved / "movies.dat")}


@pytest.mark.parametrize(
    ("name", "limit", "words"),
    [
        (
            "movielens_1m",
            5,
            [r"ratings\.dat: more than 5 malformed lines", "lines 10, 14, 15, 18, 20; line 23: not in"],
        ),
        ("movielens_1m", 1, ["lines 10, 14; line 14: fewer fields than 4", "raise malformed_limit"]),
        ("movielens_20m", 0, [r"ratings\.csv.* line 9: 'rating' is not a number"]),
    ],
)
def test_more_malformed_lines_than_tolerated_are_one_line(name: str, limit: int, words: list[str]) -> None:
    for word in words:
        with pytest.raises(UserError, match=word):
            read(name, limit=limit)


def test_movies_have_a_limit_too(tmp_path: Path) -> None:
    place = copied("movielens_32m", tmp_path)
    (place / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,944249077\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"movies\.csv: more than 0 .*line 5: not in UTF-8"):
        read("movielens_32m", place, limit=0)


def _write(place: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (place / name).write_bytes(content)
    return place


def test_what_is_no_release_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no folder or zip file absent .*source\.path.*fetch it from https://grouplens"
    ):
        read("movielens_1m", Path("absent"))
    with pytest.raises(UserError, match=r"no file .*movielens_20m/ratings\.dat"):
        read("movielens_1m", RAW / "movielens_20m")
    with pytest.raises(UserError, match=r"movielens_20m\.zip holds no file called ratings\.dat"):
        read("movielens_1m", packed("movielens_20m", tmp_path), cache=tmp_path)
    _write(tmp_path, {"cut.zip": packed("movielens_1m", tmp_path).read_bytes()[:-30]})
    with pytest.raises(UserError, match=r"cut\.zip is not a whole zip file"):
        read("movielens_1m", tmp_path / "cut.zip", cache=tmp_path)
    assert source("movielens_1m", tmp_path / "cut.zip").fingerprint() == {"missing": str(tmp_path / "cut.zip")}
    place = _write(copied("movielens_20m", tmp_path), {"ratings.csv": b"movieId,userId,rating,timestamp\n1,1,1,1\n"})
    with pytest.raises(UserError, match=r"ratings\.csv starts with 'movieId,.*give the published file"):
        read("movielens_20m", place)


def test_a_control_character_costs_its_own_line_alone(tmp_path: Path) -> None:
    place = copied("movielens_20m", tmp_path)
    sound = b"1,1,4.0,978300760\n"
    _write(
        place,
        {"ratings.csv": b"userId,movieId,rating,timestamp\n" + sound + b"1,2,4\x1f5,978300761\n2,1,4,978300762\n"},
    )
    data = read("movielens_20m", place)
    assert [row[0] for row in data.frame.rows()] == ["1", "2"]
    assert data.removed["malformed lines of ratings.csv (first: 3)"] == Removed(interactions=1)


def test_the_corpus_of_the_miniature() -> None:
    step = build("step", {"use": "prepare", "source": {"use": "movielens-1m", "path": RAW / "movielens_1m"}})
    assert isinstance(step, Prepare)
    corpus, validation_targets, test_targets = step.run(
        Context(1, Machine(), lambda tick: None, lambda facts: None, Path())
    )
    assert corpus.user_keys == ("1", "2", "3", "4", "5")
    assert corpus.item_keys == ("1", "2", "3", "5", "7", "8", "9")
    assert corpus.texts == (
        "title is The Lantern Keeper; year is 1994; genres is Drama, Mystery",
        "title is Un Été à la mer (A Summer by the Sea); year is 1987; genres is Comedy, Romance",
        "title is Paper Boats; year is none; genres is Animation, Children's",
        "title is Nine: The Long Way Home; year is 1999; genres is Sci-Fi",
        "title is L'Enfer des glaces; year is 1994; genres is Thriller",
        "title is Harbour & Sons; year is 1972; genres is Drama",
        "title is 9; year is none; genres is none",
    )
    learned = [[int(item) for item in corpus.training.of(user)] for user in range(5)]
    # In time order user 1 rated the movies 5, 1, 3 and 2; user 5 has two ratings, too few for a target.
    assert learned == [[3, 0], [0, 4], [3], [1], [0, 4]]
    assert validation_targets.targets.tolist() == [2, 1, 5, 2]
    assert test_targets.targets.tolist() == [1, 5, 6, 3]


def test_data_prepare_counts_what_was_malformed(tmp_path: Path, command: Callable[..., Said]) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        f'steps = ["prepare"]\n[prepare]\nsource = {{ use = "movielens-1m", path = "{RAW / "movielens_1m"}" }}\n',
        encoding="utf-8",
    )
    said = command("data", "prepare", recipe)
    assert said.code == 0, said.err
    assert re.search(r"movies\.dat \(first: 5\) +1 items", said.out)
