"""Counts of a prepared data set, in the sections of its card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from reaemb_bench.artifacts import Corpus, Holdout, Int64, Sequences, Signal
from reaemb_bench.cards.figures import Figure, Section
from reaemb_bench.evaluation.groups import groups, of_items
from reaemb_bench.evaluation.lists import gini


def whole_sequences(holdout: Holdout) -> Sequences:
    """Everything that was kept of each user, the test item included."""
    return holdout.histories.followed_by(holdout.users, holdout.targets)


def sections(
    corpus: Corpus, signal: Signal, holdout: Holdout, facts: Mapping[str, Any], tail: int, short: int
) -> dict[str, Section]:
    """The figures of a card by section: size, users, items, targets, texts.

    facts: what the step that prepared the data noted. tail, short: see `reaemb_bench.evaluation.groups`.
    """
    return {
        "size": _size(corpus, signal, holdout),
        "users": _users(corpus, holdout, short),
        "items": _items(corpus.popularity, tail),
        "targets": _targets(corpus.popularity, signal, holdout, tail),
        "texts": _texts(corpus, facts),
    }


def _size(corpus: Corpus, signal: Signal, holdout: Holdout) -> Section:
    whole = whole_sequences(holdout)
    pairs = np.unique(whole.owners * corpus.items + whole.items)
    repeated = len(whole.items) - len(pairs)
    density = _ratio(len(pairs), corpus.users * corpus.items)
    return {
        "users": Figure("users", corpus.users),
        "items": Figure("items", corpus.items),
        "interactions": Figure("interactions", len(whole.items)),
        "density": Figure("density: pairs of user and item that occur", density, share=True),
        "repeated_pairs": Figure("interactions that repeat a pair of user and item", repeated),
        "training_interactions": Figure("training interactions", len(corpus.training.items)),
        "validation_users": Figure("users with a validation target", len(signal.users)),
        "test_users": Figure("users with a test target", len(holdout.users)),
    }


def _users(corpus: Corpus, holdout: Holdout, short: int) -> Section:
    history = holdout.histories.lengths[holdout.users]
    is_short = groups(corpus.popularity[holdout.targets], history, short=short)["short"]
    return {
        **_spread("interactions a user", whole_sequences(holdout).lengths),
        "short_history_share": Figure(
            f"test users with fewer than {short} items before the target", _mean(is_short), share=True
        ),
        "without_training": Figure("users without a training interaction", int((corpus.training.lengths == 0).sum())),
    }


def _items(popularity: Int64, tail: int) -> Section:
    kinds = of_items(popularity, tail)
    return {
        **_spread("training interactions an item", popularity),
        "tail_share": Figure(f"tail items, with 1 to {tail - 1} of them", _mean(kinds["tail"]), share=True),
        "cold": Figure("cold items, with none", int(kinds["cold"].sum())),
        "gini": Figure("Gini index (0: all items equally often)", gini(popularity) if popularity.any() else None),
    }


def _targets(popularity: Int64, signal: Signal, holdout: Holdout, tail: int) -> Section:
    made = {}
    for name, targets in (("validation", signal.targets), ("test", holdout.targets)):
        kinds = of_items(popularity[targets], tail)
        made[f"{name}_tail_share"] = Figure(f"{name} targets that are tail items", _mean(kinds["tail"]), share=True)
        made[f"{name}_cold"] = Figure(f"{name} targets that are cold items", int(kinds["cold"].sum()))
    return made


def _texts(corpus: Corpus, facts: Mapping[str, Any]) -> Section:
    characters = np.array([len(text) for text in corpus.texts], dtype=np.int64)
    return {
        "without_text": Figure("items without any text", facts.get("items_without_text")),
        "without_title": Figure("items without a title", facts.get("items_without_title")),
        "duplicates": Figure("items whose text another item has already", corpus.items - len(set(corpus.texts))),
        "characters_mean": Figure("characters a text: mean", _mean(characters)),
        "characters_max": Figure("characters a text: longest", int(characters.max(initial=0))),
    }


def _spread(words: str, counts: Int64) -> Section:
    return {
        "mean": Figure(f"{words}: mean", _mean(counts)),
        "median": Figure(f"{words}: median", float(np.median(counts)) if len(counts) else None),
        "min": Figure(f"{words}: least", int(counts.min()) if len(counts) else None),
        "max": Figure(f"{words}: most", int(counts.max()) if len(counts) else None),
    }


def _mean(values: np.ndarray[Any, Any]) -> float | None:
    return float(values.mean()) if len(values) else None


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
