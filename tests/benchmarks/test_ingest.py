"""Both sides of the benchmark of raw files do the same job."""

from pathlib import Path

import polars

from benchmarks.ingest import sides
from benchmarks.ingest.simulate import write_metadata, write_movielens, write_reviews


def test_plain_python_and_ours_make_the_same_of_the_same_files(tmp_path: Path) -> None:
    reviews, metadata = tmp_path / "reviews.jsonl", tmp_path / "metadata.jsonl"
    _, items = write_reviews(reviews, 3_000)
    write_metadata(metadata, items)
    plain, ours = (side(reviews, metadata)["made"] for side in (sides.plain, sides.ours))
    assert plain["users"] > 50
    assert plain["interactions"] > 500
    # Where items are few, ours gives all users as many candidates as the one with the most touched items can have.
    assert {**plain, "candidates": 0} == {**ours, "candidates": 0}


def test_generated_ratings_have_the_form_and_the_number_asked_for(tmp_path: Path) -> None:
    write_movielens(str(tmp_path), 30_000)
    ratings = polars.read_csv(tmp_path / "ratings.csv")
    assert ratings.columns == ["userId", "movieId", "rating", "timestamp"]
    assert ratings.height == 30_000
    assert ratings.select("userId", "movieId").rows() == sorted(ratings.select("userId", "movieId").rows())
    assert ratings.group_by("userId").len().sort("userId")["len"][:-1].min() >= 20  # type: ignore[operator]
    assert {*ratings["movieId"]} <= {*polars.read_csv(tmp_path / "movies.csv")["movieId"]}
