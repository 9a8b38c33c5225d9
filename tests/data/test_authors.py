"""The files that ReaEmb's authors released: exactly what the miniature holds, wherever the items' numbers stand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from reaemb_bench.core.errors import UserError
from reaemb_bench.data.interactions import Removed
from reaemb_bench.data.sources.reaemb_authors import ReaEmbAuthors
from tests.helpers.sources import RAW, counted, read, texts

FILES = {"interactions": RAW / "authors" / "inter.txt", "items": RAW / "authors" / "item_info.jsonline"}


def test_it_holds_these_interactions_in_the_order_of_the_file() -> None:
    data = read("reaemb-authors", **FILES)
    pairs = [(user, item) for user, item, *_ in data.frame.sort("timestamp").rows()]
    users = {user: [item for owner, item in pairs if owner == user] for user in "123"}
    assert users == {"1": ["3", "1", "3"], "2": ["2", "1", "4"], "3": ["2", "1", "3"]}
    assert data.frame["rating"].null_count() == data.frame.height
    assert data.time_unit is None
    assert data.name == "authors"
    assert data.about.home.endswith("/ReaEmb")


def test_it_holds_these_items() -> None:
    data = read("reaemb-authors", **FILES)
    assert data.instruction == "The games item has the following attributes:"
    assert texts(data) == {
        "1": "title is Sky Race: This is War; category is Video Games, Racing; price is 19.99; store is None Such; "
        "features is none; description is none",
        "2": "title is Farm. the Game; category is Video Games; price is none; store is Plough; "
        "features is Plants Sheep.; description is A farm.",
        "3": "title is Odd Values. left open; category is Video Games; price is 5; store is none; features is none; "
        "description is none",
    }


def test_it_counts_what_it_leaves_out() -> None:
    assert counted(read("reaemb-authors", **FILES)) == {
        "malformed lines of inter.txt (first: 8, 9)": Removed(interactions=2),
        "malformed lines of item_info.jsonline (first: 7)": Removed(items=1),
        "metadata without item": Removed(items=1),
        "repeated metadata": Removed(items=1),
        "metadata of items without interactions": Removed(items=1),
        "items without metadata (they stay)": Removed(items=1),
    }


def written(folder: Path, items: list[dict[str, Any]], interactions: str = "1 2\n1 1\n") -> dict[str, Path]:
    files = {"interactions": folder / "inter.txt", "items": folder / "items.jsonline"}
    files["interactions"].write_text(interactions)
    files["items"].write_text("".join(json.dumps(item) + "\n" for item in items))
    return files


@pytest.mark.parametrize("places", [{"item_id": "2"}, {"id": 2}, {"id": "2", "item": "B00"}])
def test_the_number_stands_in_item_id_or_id(places: dict[str, Any], tmp_path: Path) -> None:
    data = read("reaemb-authors", **written(tmp_path, [{"input": "Said: \n title is Second", **places}]))
    assert texts(data) == {"2": "title is Second"}


def test_without_numbers_the_lines_place_counts_and_a_malformed_line_is_an_error(tmp_path: Path) -> None:
    items = [{"input": f"Said: \n title is {name}"} for name in ("First", "Second")]
    data = read("reaemb-authors", **written(tmp_path, items))
    assert {key: text for key, text in sorted(texts(data).items())} == {"1": "title is First", "2": "title is Second"}
    with pytest.raises(UserError, match=r"without 'item_id' a line's number is the item's, and lines 1 are"):
        read("reaemb-authors", **written(tmp_path, [{}, *items]))


def test_yelps_final_counts_come_only_when_asked_for(tmp_path: Path) -> None:
    prompt = "The item has the following attributes: \n name is Café; city is Reno; stars is 4.5; review_count is 7"
    files = written(tmp_path, [{"input": prompt + "; is_open is 1", "item_id": 1}])
    assert texts(read("reaemb-authors", **files)) == {"1": "title is Café; city is Reno"}
    whole = texts(read("reaemb-authors", **files, with_final_counts=True))["1"]
    assert whole == "title is Café; city is Reno; stars is 4.5; review_count is 7; is_open is 1"


def test_prompts_without_an_instruction_get_ours(tmp_path: Path) -> None:
    data = read("reaemb-authors", **written(tmp_path, [{"input": "title is Bare", "item_id": 1}]))
    assert data.instruction == "The item has the following attributes:"
    assert texts(data) == {"1": "title is Bare"}


def test_files_that_hold_nothing_or_do_not_belong_together_are_errors(tmp_path: Path) -> None:
    item = {"input": "Said: \n title is Ninth", "item_id": 9}
    with pytest.raises(UserError, match=r"no item of .*inter\.txt \(such as '2'\) occurs in"):
        read("reaemb-authors", **written(tmp_path, [item]))
    with pytest.raises(UserError, match=r"items\.jsonline has no lines"):
        read("reaemb-authors", **written(tmp_path, []))
    with pytest.raises(UserError, match=r"inter\.txt has no lines"):
        read("reaemb-authors", **written(tmp_path, [item], interactions="\n"))
    with pytest.raises(UserError, match="more than 0 malformed lines"):
        read("reaemb-authors", **FILES, malformed_limit=0)
    with pytest.raises(UserError, match="there is no file"):
        read("reaemb-authors", interactions=tmp_path / "absent.txt", items=FILES["items"])


def test_the_data_set_is_called_by_the_folder_above_handled_and_its_place_does_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "games" / "handled"
    shutil.copytree(RAW / "authors", folder)
    there = ReaEmbAuthors(interactions=folder / "inter.txt", items=folder / "item_info.jsonline")
    assert there.data_name == "games"
    assert there.identity() == ReaEmbAuthors(**FILES, name="games").identity()
    assert there.identity() != ReaEmbAuthors(**FILES).identity()
