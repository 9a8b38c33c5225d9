"""The Yelp Open Dataset: exactly what the miniature holds, and what of it only the future knew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import polars
import pytest

from reaemb_bench.catalogue import CATALOGUE
from reaemb_bench.core.registry import build
from reaemb_bench.data.interactions import Removed
from reaemb_bench.data.kinds import Filter, Split
from reaemb_bench.data.prepare import assemble, fingerprint
from reaemb_bench.data.prompts import Attributes
from reaemb_bench.data.sources.yelp import Yelp
from tests.helpers.sources import RAW, counted, read, texts

FILES = {
    "reviews": RAW / "yelp" / "yelp_academic_dataset_review.json",
    "metadata": RAW / "yelp" / "yelp_academic_dataset_business.json",
}
UMA, VIC = "mh_-eMZ6K5RLWhZyISBhwA", "OyoGAe7OKpv6SyGZT5g77Q"
CAFE, GYM, GONE = "XQfwVwDr-v0ZS3_CbbE5Xw", "7ATYjTIgM3jUlt4UM3IypQ", "YjUWPpI6HXG530lwP-fb2A"
CAFE_TEXT = (
    "title is Turning Wheel Café; address is 1460 Example Rd; city is Ardmore; state is PA; postal_code is 19003; "
    "latitude is 40.0233381; longitude is -75; attributes is WiFi: free, BusinessParking: street, lot, "
    "ByAppointmentOnly: False, Music: not a constant; categories is Cafes, Breakfast & Brunch. Vegan; "
    "hours is Monday: 7:0-20:0, Sunday: 0:0-0:0"
)
GYM_TEXT = (
    "title is [solidcore]; address is none; city is Reno; state is NV; postal_code is none; latitude is 0; "
    "longitude is 0; attributes is none; categories is none; hours is none"
)


def test_it_holds_these_interactions_with_their_seconds() -> None:
    data = read("yelp", **FILES)
    assert data.frame.rows() == [
        (UMA, CAFE, 1531001351, 3.0),
        (VIC, CAFE, 1325604498, 5.0),
        (VIC, GYM, 1391632230, 4.0),
        (UMA, GYM, 1420329663, 1.0),
        (UMA, GONE, 1420416000, 4.0),
        (UMA, CAFE, 1467929351, 2.0),
    ]
    assert data.name == "yelp"
    assert data.time_unit == "s"
    assert data.about.licence


def test_it_holds_these_businesses() -> None:
    data = read("yelp", **FILES)
    assert texts(data) == {CAFE: CAFE_TEXT, GYM: GYM_TEXT}
    assert data.items[CAFE]["categories"] == ["Cafes", "Breakfast & Brunch; Vegan"]
    assert {tuple(attributes) for attributes in data.items.values()} == {data.attribute_names}


def test_stars_counts_and_closures_of_the_day_of_publication_come_only_when_asked_for() -> None:
    data = read("yelp", **FILES, with_final_counts=True)
    assert texts(data) == {
        CAFE: f"{CAFE_TEXT}; stars is 4.5; review_count is 7; is_open is 1",
        GYM: f"{GYM_TEXT}; stars is 2; review_count is 1200; is_open is 0",
    }
    assert Yelp(**FILES).identity() != Yelp(**FILES, with_final_counts=True).identity()


def test_it_counts_what_it_leaves_out() -> None:
    assert counted(read("yelp", **FILES)) == {
        "malformed lines of yelp_academic_dataset_review.json (first: 5, 6, 9)": Removed(interactions=3),
        "reviews without user or item": Removed(interactions=1),
        "malformed lines of yelp_academic_dataset_business.json (first: 4)": Removed(items=1),
        "metadata of items without reviews": Removed(items=1),
        "items without metadata (they stay)": Removed(items=1),
        "exact duplicates": Removed(interactions=1),
    }


@pytest.mark.parametrize("split", sorted(CATALOGUE["split"].keys() - {"published"}))
@pytest.mark.parametrize("filtered", [{"use": "k-core", "user_minimum": 2, "item_minimum": 2}, {"use": "rating"}])
def test_keys_that_are_kept_once_each_go_through_filters_and_splits_as_text_does(
    filtered: dict[str, Any], split: str
) -> None:
    data = read("yelp", **FILES)
    text = replace(data, frame=data.frame.cast({"user": polars.String, "item": polars.String}))
    made = []
    for each in (data, text):
        kept = cast("Filter", build("filter", filtered)).apply(each)
        divided = cast("Split", build("split", split)).apply(kept, 1)
        corpus, validation_targets, test_targets, _ = assemble(kept, divided, Attributes(), 1, 1)
        made.append((fingerprint(corpus, validation_targets, test_targets), kept.removed))
    assert made[0] == made[1]
