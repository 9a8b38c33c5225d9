"""Item prompts."""

from __future__ import annotations

import pytest

from reaemb_bench.core.errors import UserError
from reaemb_bench.data.prompts import Attributes

ITEM: dict[str, str | list[str]] = {
    "title": "Tea; green\nloose",
    "tags": ["hot", "", "leaf"],
    "price": "",
    "note": "x" * 120,
}


def test_the_paper_s_form() -> None:
    made = Attributes().text(ITEM)
    assert made == "title is Tea. green loose; tags is hot, leaf; price is none; note is " + "x" * 100
    assert made.count(";") == 3


def test_order_limits_and_empty() -> None:
    prompt = Attributes(order=("tags", "price", "title"), list_limit=1, value_length=4, empty="leave-out")
    assert prompt.text(ITEM) == "tags is hot; title is Tea."


def test_unknown_attribute_is_named() -> None:
    with pytest.raises(UserError, match=r"prompt\.order: items have no 'titel'\. Did you mean 'title'"):
        Attributes(order=("titel",)).text(ITEM)
