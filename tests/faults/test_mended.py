"""What mutated input once broke, each in a few lines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars
import pytest

from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.recipe import load
from reaemb_bench.data.prepare import sorted_keys
from reaemb_bench.data.sources.table import Table
from tests.helpers.sources import RAW, read, texts


def _table(folder: Path, rows: list[dict[str, Any]]) -> Table:
    for name, content in {"rows": rows, "items": [{"item_id": 7, "title": "Tea"}]}.items():
        lines = "\n".join(json.dumps(line) for line in content)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return Table(interactions=folder / "rows.jsonl", items=folder / "items.jsonl", rating="rating")


def _row(**changed: Any) -> dict[str, Any]:
    return {"user_id": "u", "item_id": 7, "timestamp": 1_600_000_000, "rating": 3.0, **changed}


def test_a_key_that_is_no_number_is_missing(tmp_path: Path) -> None:
    data = _table(tmp_path, [_row(), _row(item_id=float("nan")), _row(user_id=float("nan"))]).read(Machine())
    assert data.frame["item"].to_list() == ["7"]
    assert data.removed["rows without user or item"].interactions == 2
    frame = polars.DataFrame({"user_id": ["u", "v"], "item_id": [7.0, float("nan")], "timestamp": [1, 2]})
    frame.write_parquet(tmp_path / "rows.parquet")
    source = Table(interactions=tmp_path / "rows.parquet", items=tmp_path / "items.jsonl")
    assert source.read(Machine()).frame["item"].to_list() == ["7"]


def test_a_rating_that_is_no_number_is_none_and_no_high_one(tmp_path: Path) -> None:
    data = _table(tmp_path, [_row(rating=float("nan")), _row(rating=2.0, timestamp=1_600_000_001)]).read(Machine())
    assert data.frame["rating"].to_list() == [None, 2.0]
    with pytest.raises(UserError, match=r"column 'rating', data row 1: 'inf' is not a number"):
        _table(tmp_path, [_row(rating=float("inf"))]).read(Machine())


@pytest.mark.parametrize("other", [1_600_000_000_000, 253_402_300_799])
def test_seconds_among_other_units_are_refused(tmp_path: Path, other: int) -> None:
    wanted = rf"data row 1: '1600000000' is not in the unit of {other}; give all times in one unit"
    with pytest.raises(UserError, match=wanted):
        _table(tmp_path, [_row(), _row(timestamp=other)]).read(Machine())


def test_a_list_for_a_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"column 'user_id'.*holds lists; name one of single values"):
        _table(tmp_path, [_row(), _row(user_id=["u"])]).read(Machine())


def test_keys_of_thousands_of_digits_are_sorted_as_numbers() -> None:
    long = "9" * 5_000
    assert sorted_keys([long, "10", "9", "009", f"1{long}", "x2y10", "x2y9"]) == [
        *("009", "9", "10", long, f"1{long}", "x2y9", "x2y10"),
    ]


def test_texts_that_begin_like_objects_stay_texts(tmp_path: Path) -> None:
    shutil.copytree(RAW / "yelp", tmp_path / "yelp")
    file = tmp_path / "yelp" / "yelp_academic_dataset_business.json"
    written = file.read_text(encoding="utf-8").splitlines()
    # The miniature itself has a line that is not JSON.
    lines = [json.loads(line) for line in written if line.startswith('{"')]
    for line in lines:
        line.update(name="{[ a bar", attributes={"WiFi": "{[]: 1}"})
    file.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    data = read("yelp", reviews=file.parent / "yelp_academic_dataset_review.json", metadata=file)
    assert all("title is {[ a bar" in text and "WiFi: {[]: 1}" in text for text in texts(data).values())


def test_a_release_without_a_movie_is_refused(tmp_path: Path) -> None:
    shutil.copytree(RAW / "movielens_1m", tmp_path / "ml")
    (tmp_path / "ml" / "movies.dat").write_bytes(b"PK\x05\x06\n")
    with pytest.raises(UserError, match=r"holds no movie \(1 of its lines .* first: 1\); fetch it again"):
        read("movielens-1m", path=tmp_path / "ml")


def test_settings_are_finite_numbers() -> None:
    with pytest.raises(RecipeError, match=r"train\.learning_rate: give a finite number, not nan"):
        load("quickstart", ["train.learning_rate=nan"])


def test_a_plug_in_that_leaves_python_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text("raise SystemExit('gone')\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"leaves\.py fails on import: SystemExit: gone; correct it there"):
        load("quickstart", [f"reduce.reducer={tmp_path}/leaves.py:Thing"])


def test_an_endless_message_keeps_place_and_cure() -> None:
    with pytest.raises(RecipeError) as refused:
        load("quickstart", [f"reduce.reducer={'x' * 100_000}"])
    message = str(refused.value)
    assert len(message) < 2_100
    assert message.startswith("reduce.reducer: no reducer is called 'xxx")
    assert message.endswith("whitening")


@pytest.mark.parametrize("name", ["a\\u0000b", "x" * 300])
@pytest.mark.parametrize("source", ["recbole-atomic", "movielens-1m"])
def test_a_path_that_no_file_can_have_is_refused(source: str, name: str) -> None:
    with pytest.raises(RecipeError, match=r"prepare\.source\.path: give a name that a file can have"):
        load("quickstart", [f'prepare.source={{use = "{source}", path = "{name}"}}'])
