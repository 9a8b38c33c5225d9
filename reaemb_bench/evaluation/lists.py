"""What a recommender puts before people: how much of the catalogue, how evenly, how popular and how rare.

Every measure takes recommended (users, k), item numbers or -1 where a list is shorter than k, and popularity (items,),
the training interactions of each item of the catalogue. None knows what the users wanted.
"""

from __future__ import annotations

import numpy as np

from reaemb_bench.core.artifacts import Int32, Int64
from reaemb_bench.evaluation.groups import TAIL, of_items


def measures(recommended: Int32, popularity: Int64, tail: int = TAIL) -> dict[str, float]:
    """coverage, gini, popularity, tail_share and cold_share of the lists; nothing where no item is listed.

    coverage: share of the catalogue that stands in at least one list (Herlocker et al., TOIS 2004). gini: see `gini`.
    popularity: mean training interactions of an item of a list, averaged over lists (ARP; Yin et al., VLDB 2012).
    tail_share, cold_share: share of an average list that are items with 1 to `tail` - 1, or no, training interactions
    (APLT; Abdollahpouri et al., FLAIRS 2019).
    """
    lists = recommended[(recommended >= 0).any(axis=1)] if recommended.size else recommended[:0]
    if not len(lists):
        return {}
    listed = lists >= 0
    share = listed / np.count_nonzero(listed, axis=1)[:, None] / len(lists)
    exposure = np.bincount(lists[listed], minlength=len(popularity)).astype(np.int64)
    weight = np.bincount(lists[listed], weights=share[listed], minlength=len(popularity))
    kinds = of_items(popularity, tail)
    return {
        "coverage": int(np.count_nonzero(exposure)) / len(popularity),
        "gini": gini(exposure),
        "popularity": float(weight @ popularity),
        "tail_share": float(weight[kinds["tail"]].sum()),
        "cold_share": float(weight[kinds["cold"]].sum()),
    }


def gini(exposure: Int64) -> float:
    """Gini index of how often each item of the catalogue is listed (items,): 0 if all are equally often.

    It is the mean absolute difference of two items' exposures over twice their mean; where one item alone is listed,
    1 - 1 / items. Raises ZeroDivisionError where none is.
    """
    items = len(exposure)
    ordered = np.sort(exposure)
    total = int(ordered.sum())
    return int((2 * np.arange(1, items + 1) - items - 1) @ ordered) / (items * total)
