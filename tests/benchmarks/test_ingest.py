"""Both sides of the benchmark of raw files do the same job."""

from pathlib import Path

from benchmarks.ingest import sides
from benchmarks.ingest.simulate import write_metadata, write_reviews


def test_plain_python_and_ours_make_the_same_of_the_same_files(tmp_path: Path) -> None:
    reviews, metadata = tmp_path / "reviews.jsonl", tmp_path / "metadata.jsonl"
    _, items = write_reviews(reviews, 3_000)
    write_metadata(metadata, items)
    plain, ours = (side(reviews, metadata)["made"] for side in (sides.plain, sides.ours))
    assert plain["users"] > 50
    assert plain["interactions"] > 500
    # Where items are few, ours gives all users as many candidates as the one with the most touched items can have.
    assert {**plain, "candidates": 0} == {**ours, "candidates": 0}
