"""The step `prepare`: from a source to what may be learned from, tuned on and judged by."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import polars
from pydantic import Field

from reaemb_bench.core.artifacts import Corpus, Int32, Int64, Sequences, TestTargets, ValidationTargets
from reaemb_bench.core.component import Component, Context, Randomness, Step
from reaemb_bench.core.errors import UserError
from reaemb_bench.data.interactions import (
    FIRST_SECOND,
    PER_SECOND,
    SCHEMA,
    Interactions,
    SplitInteractions,
    shares_values,
)
from reaemb_bench.data.kinds import AnyPrompt, AnySource, AnySplit, Downloads, ManyFilters, Prompt
from reaemb_bench.data.negative_sampling import draw_unknown

_LARGE, _MANY, _SOME = 0.5, 0.1, 0.01
"""Shares of what a filter takes or training never reads, of items without text, and of lines that are malformed, above
which a warning is due."""


class Prepare(Step):
    """Read a source, filter and split its interactions, write item texts, draw the candidates of sampled metrics."""

    randomness: ClassVar[Randomness] = "data"
    version: ClassVar[int] = 2

    source: AnySource
    """Where interactions and item attributes come from."""
    filters: ManyFilters = ()
    """What takes interactions away, in order."""
    split: AnySplit = cast("AnySplit", "leave-last-two")
    """How interactions are divided into training, validation and test."""
    prompt: AnyPrompt = cast("AnyPrompt", "attributes")
    """How an item's attributes become text."""
    sampled_candidates: int = Field(default=100, ge=0)
    """Items drawn for each target, once, against which sampled metrics rank it; fewer if fewer exist."""

    def run(self, context: Context) -> tuple[Corpus, ValidationTargets, TestTargets]:
        """Returns all that later steps work on. Raises UserError if filters leave nothing to learn or to judge."""
        if isinstance(self.source, Downloads):
            self.source.fetch(context.machine, context.report)
        context.phase("reading")
        data = self.source.read(context.machine)
        _check(data)
        context.phase("filtering")
        warnings = {}
        for reason, gone in data.removed.items():
            if reason.startswith("malformed lines"):
                for count, kept in ((gone.interactions, data.frame.height), (gone.items, len(data.items))):
                    if count > _SOME * (count + kept):
                        warnings[reason] = f"{count:,} of {count + kept:,} were left out as {reason}; look at them"
        for filter_ in self.filters:
            before = data.frame.height
            data = filter_.apply(data)
            if before - data.frame.height > _LARGE * before:
                name = cast("Component", filter_).use
                taken = f"{before - data.frame.height:,} of {before:,} interactions"
                warnings[f"filter {name}"] = f"the filter {name} took {taken}; loosen it if that is too many"
        if data.frame.is_empty():
            removed = "; ".join(f"{reason} removed {gone}" for reason, gone in data.removed.items() if any(gone))
            raise UserError(
                f"{data.name}: no interaction is left ({removed or 'the source is empty'}); loosen or drop the filters"
            )
        context.phase("splitting")
        split = self.split.apply(data, context.seed)
        for name, part in (("training", split.training), ("test", split.test)):
            if part.is_empty():
                span = ""
                if (unit := data.time_unit) is not None:
                    ends = cast("list[int]", [data.frame["timestamp"].min(), data.frame["timestamp"].max()])
                    days = [datetime.fromtimestamp(end / PER_SECOND[unit], UTC).date() for end in ends]
                    span = f" (times reach from {days[0]} to {days[1]})"
                raise UserError(
                    f"{data.name}: no user has a {name} interaction{span}; choose another split or loosen the filters"
                )
        corpus, validation, test, missing = assemble(data, split, self.prompt, self.sampled_candidates, context.seed)
        cold, untrained = int((corpus.popularity[test.targets] == 0).sum()), corpus.training.lengths == 0
        same = ["user", "timestamp"]
        tied = data.frame.select(same).filter(shares_values(data.frame, same)).filter(polars.len().over(same) > 1)
        ties = {"tied_interactions": tied.height}
        for name, part in (("validation", split.validation), ("test", split.test)):
            ties[f"tied_{name}_targets"] = part.join(tied, on=same, how="semi").height
        if ties["tied_test_targets"]:
            warnings["ties"] = (
                f"{ties['tied_test_targets']:,} of {len(test.users):,} test targets share their time with another "
                "interaction of their user: which of these is the target was drawn at random; see `data check`"
            )
        if missing["items_without_text"] > _MANY * corpus.items:
            warnings["texts"] = (
                f"{missing['items_without_text']:,} of {corpus.items:,} items have no text and are called by their "
                "keys: compare the keys of the two files, and the names of the attributes"
            )
        for what, unread in (("items", corpus.popularity == 0), ("users", untrained)):
            if unread.mean() > _LARGE:
                untold = f"{int(unread.sum()):,} of {len(unread):,} {what} have no training interaction"
                warnings[f"untrained {what}"] = untold
        context.note(
            {
                "users": corpus.users,
                "items": corpus.items,
                "interactions": data.frame.height,
                "test_users": len(test.users),
                "warm_test_targets": len(test.targets) - cold,
                "cold_test_targets": cold,
                "items_without_training": int((corpus.popularity == 0).sum()),
                "users_without_training": int(untrained.sum()),
                "test_users_without_training": int(untrained[test.users].sum()),
                "test_users_without_history": len(set(split.after["user"].unique()) - set(split.test["user"])),
                "sampled_candidates": test.candidates.shape[1],
                **missing,
                **ties,
                **{f"warning: {about}": text for about, text in warnings.items()},
                **{f"removed: {reason}": str(gone) for reason, gone in data.removed.items()},
                "sha256": fingerprint(corpus, validation, test),
            }
        )
        return corpus, validation, test


def _check(data: Interactions) -> None:
    """Raises UserError if a source, such as a plug-in, returns rows that cannot be put in order."""
    for column, dtype in SCHEMA.items():
        if column not in data.frame.columns:
            raise UserError(f"{data.name}: the source returns no column '{column}'; it needs {', '.join(SCHEMA)}")
        series = data.frame[column]
        text = dtype == polars.String and isinstance(series.dtype, polars.Categorical | polars.Enum)
        if series.dtype != dtype and not text and series.null_count() < len(series):
            raise UserError(f"{data.name}: the source's column '{column}' is {series.dtype}; make it {dtype()}")
        if series.null_count() and column != "rating":
            raise UserError(f"{data.name}: the source's column '{column}' has {series.null_count():,} nulls; drop them")
    if data.unit == "unknown" and data.time_unit is not None:
        other = data.frame["timestamp"]
        other = other.filter(other < FIRST_SECOND * PER_SECOND[data.time_unit])
        if len(other):
            raise UserError(
                f"{data.name}: {len(other):,} times, such as {other[0]}, are not in the unit of the others "
                f"({data.time_unit}); give all in one, or name it in Interactions(unit=...)"
            )


def assemble(
    data: Interactions, split: SplitInteractions, prompt: Prompt, candidates: int, seed: int
) -> tuple[Corpus, ValidationTargets, TestTargets, dict[str, int]]:
    """Numbers users and items, writes item texts, draws candidates; counts items that lack a text or a title.

    Items are all that occur in any part of the split, numbered by their sorted keys, so that a number says nothing
    about where an item occurs first.
    """
    item_keys = sorted_keys(data.frame["item"].unique().to_list())
    user_keys = sorted_keys(data.frame["user"].unique().to_list())

    enums = {"user": polars.Enum(user_keys), "item": polars.Enum(item_keys)}
    numbered = {
        name: [part[column].cast(enum).to_physical().to_numpy() for column, enum in enums.items()]
        for name, part in vars(split).items()
    }

    def sequences(*names: str) -> Sequences:
        """The sequences of all users, each part of the split after the one before."""
        owners, items = (np.concatenate(parts) for parts in zip(*(numbered[name] for name in names), strict=True))
        offsets = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(user_keys)))])
        return Sequences(items[np.argsort(owners, kind="stable")].astype(np.int32), offsets.astype(np.int64))

    training, validation, test = map(sequences, ("training", "validation", "test"))
    touched = sequences(*numbered)
    # An item without text and title is called by its key.
    texts, titles, missing = [], [], {"items_without_text": 0, "items_without_title": 0}
    for key in item_keys:
        attributes = data.items.get(key) or dict.fromkeys(data.attribute_names or ("title",), "")
        title = str(attributes.get("title", ""))
        for name, value in attributes.items():
            filled = any(value) if isinstance(value, list) else bool(value)
            missing[f"items_with: {name}"] = missing.get(f"items_with: {name}", 0) + filled
        if not any(attributes.values()):
            missing["items_without_text"] += 1
            attributes = {**attributes, "title": key}
        missing["items_without_title"] += not title
        texts.append(prompt.text(attributes))
        titles.append(title or key)
    corpus = Corpus(
        name=data.name,
        training=training,
        item_keys=tuple(item_keys),
        user_keys=tuple(user_keys),
        instruction=data.instruction,
        texts=tuple(texts),
        titles=tuple(titles),
    )
    validation_candidates, test_candidates = (
        draw_candidates(part.owners, touched, len(item_keys), candidates, int(state))
        for part, state in zip((validation, test), np.random.SeedSequence(seed).generate_state(2), strict=True)
    )
    validation_targets = ValidationTargets(validation.owners, validation.items, validation_candidates)
    histories = sequences("training", "gap", "validation", "between")
    return corpus, validation_targets, TestTargets(test.owners, test.items, test_candidates, histories), missing


def sorted_keys(keys: list[str]) -> list[str]:
    """Returns keys in an order that reads numbers as numbers ("9" before "10") and depends only on the keys."""

    def natural(key: str) -> tuple[list[str | tuple[int, str]], str]:
        words = re.split(r"([0-9]+)", key)
        parts: list[str | tuple[int, str]] = [*words]
        # Of two numbers the longer one is larger; numbers of thousands of digits cannot be converted.
        parts[1::2] = [(len(digits), digits) for digits in (word.lstrip("0") for word in words[1::2])]
        # The key itself comes last, because "07" and "7" are different keys.
        return parts, key

    return sorted(keys, key=natural)


def draw_candidates(users: Int64, touched: Sequences, items: int, wanted: int, seed: int) -> Int32:
    """Returns candidates for sampled metrics: for each of `users`, distinct items that the user never touched.

    touched: all interactions of all users. The result is (len(users), c) item numbers, drawn uniformly, where c is
    `wanted`, or fewer if some user has touched so much that fewer items are left: all rows have the same number.
    """
    # A sort in place is several times faster than np.unique, which hashes, and needs no memory.
    pairs = touched.owners * items
    pairs += touched.items
    pairs.sort()
    pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)]]
    return draw_unknown(users, pairs, items, wanted, np.random.default_rng(seed))


def fingerprint(corpus: Corpus, validation_targets: ValidationTargets, test_targets: TestTargets) -> str:
    """Returns the hex sha256 of everything that was prepared, to compare data sets across machines."""
    digest = hashlib.sha256()
    facts = [corpus.name, corpus.instruction, corpus.item_keys, corpus.user_keys, corpus.texts, corpus.titles]
    digest.update(json.dumps(facts, ensure_ascii=False).encode())
    arrays: list[npt.NDArray[Any]] = [corpus.training.items, corpus.training.offsets]
    for part in (validation_targets, test_targets):
        arrays += [part.users, part.targets, part.candidates]
    arrays += [test_targets.histories.items, test_targets.histories.offsets]
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
