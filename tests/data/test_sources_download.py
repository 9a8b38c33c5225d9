"""Every public data set, from one word in a recipe to a table of floors and a data card, with a server in its place."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reaemb_bench.catalogue import CATALOGUE
from reaemb_bench.core.errors import RecipeError
from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import SHIPPED, load
from reaemb_bench.core.registry import build, find
from reaemb_bench.data import transfer
from reaemb_bench.data.published import MIRROR
from reaemb_bench.data.sources import movielens
from tests.conftest import Said
from tests.helpers.server import packed, serving
from tests.helpers.sources import RAW, read

Command = Callable[..., Said]
LAB = "mcauleylab.ucsd.edu/public_datasets"
GROUPLENS = "files.grouplens.org/datasets/movielens"
SNAP = "snap.stanford.edu/data/amazon/productGraph/categoryFiles"
STEAM_REVIEWS = [
    {"username": user, "hours": 2.5, "product_id": game, "date": f"2017-01-{day:02}", "text": 'it\'s "good"', "page": 1}
    for day, (user, game) in enumerate(
        [("ann", "10"), ("ben", "10"), ("ann", "20"), ("ben", "30"), ("ann", "30"), ("ben", "20"), ("cy", "40")], 1
    )
]
STEAM_GAMES = [
    {
        "id": "10",
        "title": "Rocket &amp; Co",
        "app_name": "Rocket",
        "genres": ["Action", "Indie"],
        "tags": ["Fast"],
        "specs": ["Single-player"],
        "developer": "Kotoshiro",
        "publisher": "Kotoshiro",
        "release_date": "2018-01-04",
        "price": 4.99,
        "sentiment": "Mostly Positive",
    },
    {"id": "20", "app_name": "Farm", "price": "Free To Play"},
    {"id": "30", "title": "Chess", "tags": []},
]
PLACES = [
    {
        "name": "Green Cafe",
        "gmap_id": "0x1:0x2",
        "address": "Green Cafe, Main St 1",
        "description": None,
        "category": ["Cafe", "Bakery"],
        "avg_rating": 4.5,
        "num_of_reviews": 12,
        "price": "$",
        "hours": [["Thursday", "8AM-3PM"], ["Friday", "Closed"]],
        "MISC": {"Service options": ["Takeout"]},
    },
    {"name": "Park", "gmap_id": "0x3:0x4", "category": None},
    {"name": "Hill", "gmap_id": "0x5:0x6", "category": ["Peak"]},
]
VISITS = [
    {"user_id": user, "name": "N", "time": 1_600_000_000_000 + at * 1000, "rating": 5, "text": None, "gmap_id": spot}
    for at, (user, spot) in enumerate((user, cafe["gmap_id"]) for cafe in PLACES for user in ("101", "102"))
]
RATINGS = [
    ("AU1", "B1", 1), ("AU1", "B2", 2), ("AU1", "B3", 3), ("AU1", "B4", 4), ("AU1", "B5", 5),
    ("AU2", "B2", 1), ("AU2", "B3", 2), ("AU2", "B1", 3), ("AU2", "B5", 4), ("AU2", "B4", 5),
]  # fmt: skip


def json_lines(objects: list[dict[str, Any]]) -> bytes:
    return packed("".join(json.dumps(content) + "\n" for content in objects).encode())


def python_lines(objects: list[dict[str, Any]]) -> bytes:
    """As Steam's files are written, by Python 2."""
    return packed("".join(repr(content).replace("'text': ", "u'text': u") + "\n" for content in objects).encode())


def csv(rows: list[tuple[str, str, int]]) -> bytes:
    lines = (f"{user},{item},5.0,{1_500_000_000_000 + day * 86_400_000}\n" for user, item, day in rows)
    return packed(f"user_id,parent_asin,rating,timestamp\n{''.join(lines)}".encode())


def raw(name: str) -> bytes:
    content = (RAW / name).read_bytes()
    return content if content[:2] == b"\x1f\x8b" else packed(content)


def reviews(name: str, items: list[str]) -> bytes:
    """A miniature of Amazon's reviews, and one user more, who bought all of these items."""
    more = ({"reviewerID": "A7", "asin": item, "overall": 5.0, "unixReviewTime": 1_4 * 10**8 + day * 86_400}
            for day, item in enumerate(items))  # fmt: skip
    return packed((RAW / name).read_bytes() + "".join(json.dumps(line) + "\n" for line in more).encode())


def release(edition: str) -> bytes:
    """A release of MovieLens as it is published: a zip file with one folder."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for file in sorted((RAW / f"movielens_{edition}").iterdir()):
            archive.writestr(f"ml-{edition}/{file.name}", file.read_bytes())
    return content.getvalue()


META_2023 = json_lines([{"parent_asin": f"B{n}", "title": f"Game {n}", "features": ["Fast"]} for n in range(1, 6)])
PARTS_2023 = {
    "train": csv([row for row in RATINGS if row[2] <= 3]),
    "valid": csv([row for row in RATINGS if row[2] == 4]),
    "test": csv([row for row in RATINGS if row[2] == 5]),
}
BOOKS, GAMES = f"{LAB}/gdrive/goodreads", f"{LAB}/data/amazon_2023"
BEAUTY = reviews("amazon_2014/reviews_Beauty.json", ["7806397051", "B00BALM000", "B00BARE000"])
SOFTWARE = reviews("amazon_2018/Industrial_5.json", ["5555991584", "B0002CUTER", "B000JUNK77"])
CASES: dict[str, tuple[dict[str, Any], dict[str, bytes]]] = {
    "amazon-2014": (
        {"category": "Beauty", "preset": "5-core"},
        {
            f"{SNAP}/reviews_Beauty_5.json.gz": BEAUTY,
            f"{SNAP}/meta_Beauty.json.gz": raw("amazon_2014/meta_Beauty.json"),
        },
    ),
    "amazon-2018": (
        {"category": "Software", "preset": "5-core"},
        {
            f"{LAB}/data/amazon_v2/categoryFilesSmall/Software_5.json.gz": SOFTWARE,
            f"{LAB}/data/amazon_v2/metaFiles2/meta_Software.json.gz": raw("amazon_2018/meta_Industrial.json"),
        },
    ),
    "amazon-2023": (
        {"category": "Video_Games"},
        {
            f"{GAMES}/raw/review_categories/Video_Games.jsonl.gz": raw("amazon_2023/Kitchen_Toys.jsonl"),
            f"{GAMES}/raw/meta_categories/meta_Video_Games.jsonl.gz": raw("amazon_2023/meta_Kitchen_Toys.jsonl.gz"),
        },
    ),
    "goodreads": (
        {"genre": "poetry"},
        {
            f"{BOOKS}/{name}.json.gz": raw(f"goodreads/{miniature}.json")
            for name, miniature in {
                "byGenre/goodreads_interactions_poetry": "goodreads_interactions_tales",
                "byGenre/goodreads_books_poetry": "goodreads_books_tales",
                "goodreads_book_authors": "goodreads_book_authors",
            }.items()
        },
    ),
    "google-local": (
        {"state": "Vermont"},
        {
            f"{LAB}/gdrive/googlelocal/review-Vermont_10.json.gz": json_lines(VISITS),
            f"{LAB}/gdrive/googlelocal/meta-Vermont.json.gz": json_lines(PLACES),
        },
    ),
    "steam": (
        {},
        {
            "cseweb.ucsd.edu/~wckang/steam_reviews.json.gz": python_lines(STEAM_REVIEWS),
            "cseweb.ucsd.edu/~wckang/steam_games.json.gz": python_lines(STEAM_GAMES),
        },
    ),
    **{
        f"movielens-{edition}": ({}, {f"{GROUPLENS}/ml-{edition}.zip": release(edition)})
        for edition in ("1m", "20m", "32m")
    },
}  # fmt: skip
"""Source -> its settings, and its files by address."""
_BY_HAND = {"movielens-100k", "recbole-atomic", "reaemb-authors", "table", "simulated", "yelp"}


def test_every_source_that_is_downloaded_is_tried_here() -> None:
    assert CASES.keys() == CATALOGUE["source"].keys() - _BY_HAND


def test_every_public_source_has_a_recipe_that_plans_without_its_data() -> None:
    sources = set()
    for file in sorted((SHIPPED / "recipes" / "public").glob("*.toml")):
        if file.stem not in ("common", "expected"):
            loaded = load(file)
            assert plan(loaded, 42).leaks == ()
            sources.add(loaded.raw["prepare"]["source"]["use"])
            assert loaded.title != load(file.with_name("common.toml")).title
    assert sources == CASES.keys() | {"yelp"}


def test_list_says_what_a_source_costs(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    said = command("list", "source")
    assert said.code == 0, said.err
    [line] = [line for line in said.out.splitlines() if line.startswith("movielens-32m")]
    assert "239 MB" in line and " 3 " in line and "GroupLens" in line
    for use in CASES:
        about = find("source", use).about  # type: ignore[attr-defined]
        assert about.download and about.minutes and about.licence, use


@pytest.fixture
def homes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits between attempts, and the digests of MovieLens are those of the miniatures."""
    monkeypatch.setattr(transfer, "PAUSE", 0.0)
    for edition in ("1m", "20m", "32m"):
        [content] = CASES[f"movielens-{edition}"][1].values()
        kind = movielens._DIGESTS[edition].partition(":")[0]
        monkeypatch.setitem(movielens._DIGESTS, edition, f"{kind}:{hashlib.new(kind, content).hexdigest()}")


def recipe(folder: Path, use: str, settings: dict[str, Any], split: str = "leave-last-two") -> Path:
    given = "".join(f", {name} = {json.dumps(value)}" for name, value in settings.items())
    file = folder / "public.toml"
    file.write_text(
        'steps = ["prepare", "floors"]\n[prepare]\nsampled_candidates = 1\n'
        f'source = {{ use = "{use}"{given} }}\nsplit = "{split}"\n',
        encoding="utf-8",
    )
    return file


@pytest.mark.usefixtures("homes")
@pytest.mark.parametrize("use", CASES)
def test_one_word_is_enough_for_floors_and_a_card(
    use: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, files = CASES[use]
    file, cache = recipe(tmp_path, use, settings), tmp_path / "cache"
    with serving(files) as home:
        monkeypatch.setenv(MIRROR, home.address)
        home.broken = 1
        said = command("run", file, "--cache", cache)
        assert said.code == 0, said.err
        assert "popularity" in said.out
        assert f"{use}: downloads" in said.err and "terms: " in said.err
        assert sorted(files) == sorted({path.lstrip("/") for method, path, _ in home.asked if method == "GET"})
    # Nothing is asked for again, and the result is found again.
    monkeypatch.setenv(MIRROR, "http://127.0.0.1:9")
    said = command("data", "describe", file, "--cache", cache, "--out", tmp_path / "card")
    assert said.code == 0, said.err
    assert "prepare: cached" in said.out
    card = (tmp_path / "card" / "card.md").read_text(encoding="utf-8")
    source = build("source", {"use": use, **settings})
    assert source.about.licence in card  # type: ignore[attr-defined]
    assert source.about.citation in " ".join(card.split())  # type: ignore[attr-defined]


@pytest.mark.usefixtures("homes")
def test_without_a_connection_a_run_says_what_to_put_where(command: Command, tmp_path: Path) -> None:
    settings, files = CASES["amazon-2023"]
    file = recipe(tmp_path, "amazon-2023", settings)
    said = command("run", file, "--cache", tmp_path / "cache")
    assert said.code == 2
    address, meta = files
    assert f"download https://{address} by other means and save it as" in " ".join(said.err.split())
    for name in (address, meta):
        kept_at = tmp_path / "cache" / "downloads" / name
        kept_at.parent.mkdir(parents=True, exist_ok=True)
        kept_at.write_bytes(files[name])
    assert command("run", file, "--cache", tmp_path / "cache").code == 0


def test_steam_and_google_local_become_readable_texts(tmp_path: Path) -> None:
    files = {}
    for use in ("steam", "google-local"):
        for held, content in zip(("reviews", "metadata"), CASES[use][1].values(), strict=True):
            files[use, held] = tmp_path / f"{use}-{held}.json.gz"
            files[use, held].write_bytes(content)
    steam = read("steam", reviews=files["steam", "reviews"], metadata=files["steam", "metadata"])
    assert steam.frame.rows()[:2] == [("ann", "10", 1483228800, None), ("ben", "10", 1483315200, None)]
    assert steam.items["10"] == {
        "title": "Rocket & Co",
        "genres": ["Action", "Indie"],
        "tags": ["Fast"],
        "specs": ["Single-player"],
        "developer": "Kotoshiro",
        "publisher": "Kotoshiro",
        "release_date": "2018-01-04",
    }
    assert steam.items["20"]["title"] == "Farm"
    places = read("google-local", reviews=files["google-local", "reviews"], metadata=files["google-local", "metadata"])
    assert places.time_unit == "ms"
    assert places.items["0x1:0x2"] == {
        "title": "Green Cafe",
        "category": ["Cafe", "Bakery"],
        "address": "Green Cafe, Main St 1",
        "description": "",
        "price": "$",
        "hours": ["Thursday, 8AM-3PM", "Friday, Closed"],
        "offers": ["Service options: Takeout"],
    }


@pytest.mark.usefixtures("homes")
def test_the_parts_of_amazon_2023_are_split_as_published(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{GAMES}/benchmark/5core/last_out/Video_Games.{part}.csv.gz": rows for part, rows in PARTS_2023.items()}
    files[f"{GAMES}/raw/meta_categories/meta_Video_Games.jsonl.gz"] = META_2023
    file = recipe(tmp_path, "amazon-2023", {"category": "Video_Games", "preset": "last-out"}, "published")
    with serving(files) as home:
        monkeypatch.setenv(MIRROR, home.address)
        said = command("data", "prepare", file, "--cache", tmp_path / "cache")
    assert said.code == 0, said.err
    counted = {
        words: count for words, _, count in (" ".join(line.split()).rpartition(" ") for line in said.out.splitlines())
    }
    assert (counted["users"], counted["items"], counted["training interactions"]) == ("2", "5", "6")
    assert (counted["validation users"], counted["test users"]) == ("2", "2")
    # The same files by hand are the same parts.
    for part, rows in PARTS_2023.items():
        (tmp_path / f"mine.{part}.csv.gz").write_bytes(rows)
    (tmp_path / "meta.jsonl.gz").write_bytes(META_2023)
    data = read("amazon-2023", reviews=tmp_path / "mine.train.csv.gz", metadata=tmp_path / "meta.jsonl.gz")
    split = build("split", "published").apply(data, 1)  # type: ignore[attr-defined]
    assert split.test.select("user", "item").rows() == [("AU1", "B5"), ("AU2", "B4")]
    assert split.validation.select("user", "item").rows() == [("AU1", "B4"), ("AU2", "B5")]
    source = build("source", {"use": "amazon-2023", "reviews": str(tmp_path / "mine.train.csv.gz"),
                              "metadata": str(tmp_path / "meta.jsonl.gz")})  # fmt: skip
    before = source.identity()
    (tmp_path / "mine.test.csv.gz").write_bytes(PARTS_2023["valid"])
    assert source.identity() != before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"use": "amazon-2023", "category": "Video Games"}, "'Video Games'. Did you mean 'Video_Games'?"),
        ({"use": "amazon-2018"}, 'name a category, as in category = "Video_Games", or give both reviews and metadata'),
        ({"use": "amazon-2014", "category": "Beauty", "preset": "last-out"}, "'all' or '5-core'"),
        ({"use": "goodreads"}, 'name a genre, as in genre = "poetry"'),
        ({"use": "google-local"}, 'name a state, as in state = "Vermont"'),
    ],
)  # fmt: skip
def test_a_source_that_names_no_files_is_one_line(source: dict[str, str], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build("source", source)
    assert message in str(caught.value)


def yelp_archives(folder: Path) -> list[Path]:
    """The archive as it is published, a gzip tar file within a zip file, and parts of it that people unpack."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        for file in sorted((RAW / "yelp").iterdir()):
            archive.add(file, f"./{file.name}")
    (folder / "yelp_dataset.tar").write_bytes(inner.getvalue())
    with zipfile.ZipFile(folder / "Yelp-JSON.zip", "w") as whole:
        whole.writestr("Yelp JSON/yelp_dataset.tar", inner.getvalue())
        whole.writestr("__MACOSX/Yelp JSON/._yelp_dataset.tar", b"\0")
        whole.writestr("Yelp JSON/Dataset_User_Agreement.pdf", b"%PDF")
    return [folder / "Yelp-JSON.zip", folder / "yelp_dataset.tar", RAW / "yelp"]


def test_yelp_takes_the_archive_as_it_comes_and_says_how_to_get_it(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {held: RAW / "yelp" / f"yelp_academic_dataset_{name}.json" for held, name in
             {"reviews": "review", "metadata": "business"}.items()}  # fmt: skip
    whole = read("yelp", **names)
    for archive in yelp_archives(tmp_path):
        data = read("yelp", archive=archive)
        assert data.frame.equals(whole.frame) and data.items == whole.items
        assert (
            "archive_sha256" in build("source", {"use": "yelp", "archive": str(archive)}).identity() or archive.is_dir()
        )
    said = command("data", "prepare", recipe(tmp_path, "yelp", {}))
    assert said.code == 2
    assert "accept the terms at https://business.yelp.com/data/resources/open-dataset" in " ".join(said.err.split())
    (tmp_path / "cut.tar").write_bytes((tmp_path / "yelp_dataset.tar").read_bytes()[:-200])
    (tmp_path / "other.zip").write_bytes(release("1m"))
    for name, message in (("cut.tar", "is not a whole tar file"), ("other.zip", "holds no file called")):
        said = command("data", "prepare", recipe(tmp_path, "yelp", {"archive": name}))
        assert said.code == 2
        assert message in " ".join(said.err.split())


def test_an_atomic_data_set_in_parts_is_split_as_published(tmp_path: Path) -> None:
    (tmp_path / "shop.item").write_text(
        "item_id:token\ttitle:token_seq\n" + "".join(f"{n}\tItem {n}\n" for n in "1234")
    )
    for part, rows in {"train": "a\t1\t10\na\t2\t11\n", "valid": "a\t3\t9\n", "test": "a\t4\t12\na\t1\t13\n"}.items():
        header = "user_id:token\titem_id:token\ttimestamp:float\n"
        (tmp_path / f"shop.{part}.inter").write_text(header + rows)
    data = read("recbole-atomic", path=tmp_path)
    assert data.name == "shop"
    split = build("split", "published").apply(data, 1)  # type: ignore[attr-defined]
    # The published order of parts holds, also where a time contradicts it.
    parts = {name: [item for _, item, *_ in getattr(split, name).rows()] for name in vars(split)}
    assert {name: items for name, items in parts.items() if items} == {
        "training": ["1", "2"], "validation": ["3"], "between": ["4"], "test": ["1"]
    }  # fmt: skip
    first = build("split", {"use": "published", "target": "first"}).apply(data, 1)  # type: ignore[attr-defined]
    assert [item for _, item, *_ in first.test.rows()] == ["4"]
