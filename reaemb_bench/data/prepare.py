"""From split interactions to artefacts: numbering, sequences, item texts and the stored candidates."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
from pydantic import Field

from reaemb_bench.core.artifacts import Corpus, Int32, Int64, Sequences, TestTargets, ValidationTargets
from reaemb_bench.core.component import Context, Randomness, Step
from reaemb_bench.core.errors import UserError
from reaemb_bench.data.interactions import Attributes, Interactions, Removed, SplitInteractions
from reaemb_bench.data.kinds import AnyPrompt, AnySource, AnySplit, ManyFilters
from reaemb_bench.data.negative_sampling import draw_unknown

if TYPE_CHECKING:
    import polars

    from reaemb_bench.data.kinds import Prompt


@dataclass(frozen=True)
class Numbered:
    """Interactions by number: users and items (n,), row i is one interaction; rows keep their users' time order."""

    users: Int64
    items: Int32


@dataclass(frozen=True)
class Catalogue:
    """Texts of the items in the order of their numbers, and how many items lack one."""

    texts: tuple[str, ...]
    titles: tuple[str, ...]
    without_text: int
    without_title: int


def sorted_keys(keys: list[str]) -> list[str]:
    """Keys in an order that reads numbers as numbers ("9" before "10") and depends on nothing but the keys."""

    split = re.compile(r"([0-9]+)").split

    def natural(key: str) -> tuple[list[str | tuple[int, str]], str]:
        parts: list[str | tuple[int, str]] = [*split(key)]
        # Of two numbers the longer one is larger; numbers of thousands of digits cannot be converted.
        parts[1::2] = [(len(digits), digits) for digits in (part.lstrip("0") for part in split(key)[1::2])]
        # The key itself comes last, for "07" and "7" are different keys.
        return parts, key

    return sorted(keys, key=natural)


def numbered(frame: polars.DataFrame, user_keys: list[str], item_keys: list[str]) -> Numbered:
    """The rows of a frame, each key replaced by its place in the key lists."""
    import polars

    def place(column: str, keys: list[str]) -> Int64:
        return frame[column].cast(polars.Enum(keys)).to_physical().to_numpy().astype(np.int64)

    return Numbered(place("user", user_keys), place("item", item_keys).astype(np.int32))


def by_user(rows: Numbered) -> Numbered:
    """The same rows in the order of user numbers, each user's in time order."""
    order = np.argsort(rows.users, kind="stable")
    return Numbered(rows.users[order], rows.items[order])


def joined(*parts: Numbered) -> Numbered:
    """The rows of all parts, one part after the other."""
    return Numbered(np.concatenate([part.users for part in parts]), np.concatenate([part.items for part in parts]))


def sequences(rows: Numbered, users: int) -> Sequences:
    """Sequences of all `users` users from rows in time order."""
    counts = np.bincount(rows.users, minlength=users)
    return Sequences(by_user(rows).items, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def catalogue(data: Interactions, item_keys: list[str], prompt: Prompt) -> Catalogue:
    """Text and title of each item; an item without either is called by its key."""
    nothing: Attributes = dict.fromkeys(data.attribute_names or ("title",), "")
    texts, titles, without_text, without_title = [], [], 0, 0
    for key in item_keys:
        attributes = data.items.get(key, nothing)
        title = str(attributes.get("title", ""))
        if not any(attributes.values()):
            without_text += 1
            attributes = {**attributes, "title": key}
        without_title += not title
        texts.append(prompt.text(attributes))
        titles.append(title or key)
    return Catalogue(tuple(texts), tuple(titles), without_text, without_title)


def draw_candidates(users: Int64, touched: Sequences, items: int, wanted: int, seed: int) -> Int32:
    """Candidates for sampled metrics: for each of `users`, distinct items that the user never touched, uniformly.

    touched: all interactions of all users. Gives (len(users), c) item numbers, where c is `wanted`, or fewer if some
    user has touched so much that fewer items are left: all rows have the same number.
    """
    rng = np.random.default_rng(seed)
    # A sort is several times faster than np.unique, which hashes.
    pairs = np.sort(touched.owners * items + touched.items)
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    return draw_unknown(users, pairs, items, wanted, rng)


def assemble(
    data: Interactions, split: SplitInteractions, prompt: Prompt, candidates: int, seed: int
) -> tuple[Corpus, ValidationTargets, TestTargets, Catalogue]:
    """Number users and items, write item texts, draw candidates.

    Items are all that occur in any part of the split, numbered by their sorted keys: a number tells nothing about
    where an item occurs first.
    """
    item_keys = sorted_keys(data.frame["item"].unique().to_list())
    user_keys = sorted_keys(data.frame["user"].unique().to_list())
    training, validation, test, between, after = (
        numbered(part, user_keys, item_keys)
        for part in (split.training, split.validation, split.test, split.between, split.after)
    )
    learned = sequences(training, len(user_keys))
    histories = sequences(joined(training, validation, between), len(user_keys))
    touched = sequences(joined(training, validation, between, test, after), len(user_keys))
    written = catalogue(data, item_keys, prompt)
    corpus = Corpus(
        name=data.name,
        training=learned,
        item_keys=tuple(item_keys),
        user_keys=tuple(user_keys),
        instruction=data.instruction,
        texts=written.texts,
        titles=written.titles,
    )
    for_signal, for_holdout = np.random.SeedSequence(seed).generate_state(2)
    validation, test = by_user(validation), by_user(test)
    beside_validation = draw_candidates(validation.users, touched, len(item_keys), candidates, int(for_signal))
    beside_test = draw_candidates(test.users, touched, len(item_keys), candidates, int(for_holdout))
    return (
        corpus,
        ValidationTargets(validation.users, validation.items, beside_validation),
        TestTargets(test.users, test.items, beside_test, histories),
        written,
    )


def fingerprint(corpus: Corpus, validation_targets: ValidationTargets, test_targets: TestTargets) -> str:
    """Hex sha256 of everything that was prepared, to compare data sets across machines."""
    digest = hashlib.sha256()
    facts = [corpus.name, corpus.instruction, corpus.item_keys, corpus.user_keys, corpus.texts, corpus.titles]
    digest.update(json.dumps(facts, ensure_ascii=False).encode())
    arrays: list[npt.NDArray[Any]] = [corpus.training.items, corpus.training.offsets]
    for part in (validation_targets, test_targets):
        arrays += [part.users, part.targets, part.candidates]
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


# The step that turns a source into what may be learned from, tuned on and judged by.


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
    """Items drawn for each target, once, against which sampled metrics rank it; fewer where fewer exist."""

    def run(self, context: Context) -> tuple[Corpus, ValidationTargets, TestTargets]:
        """Everything that later steps work on. Raises UserError where filters leave nothing to learn or to judge."""

        data = self.source.read(context.machine)
        for each in self.filters:
            data = each.apply(data)
        if data.frame.is_empty():
            raise UserError(
                f"{data.name}: no interaction is left ({_in_words(data.removed)}); loosen or drop the filters"
            )
        split = self.split.apply(data, context.seed)
        if split.test.is_empty():
            raise UserError(f"{data.name}: no user has a test interaction; choose another split or loosen the filters")
        corpus, validation_targets, test_targets, written = assemble(
            data, split, self.prompt, self.sampled_candidates, context.seed
        )
        context.note(
            {
                "users": corpus.users,
                "items": corpus.items,
                "interactions": data.frame.height,
                "test_users": len(test_targets.users),
                **_cold(corpus, test_targets, split),
                "sampled_candidates": test_targets.candidates.shape[1],
                "items_without_text": written.without_text,
                "items_without_title": written.without_title,
                **{f"removed: {reason}": str(gone) for reason, gone in data.removed.items()},
                "sha256": fingerprint(corpus, validation_targets, test_targets),
            }
        )
        return corpus, validation_targets, test_targets


def _cold(corpus: Corpus, test_targets: TestTargets, split: SplitInteractions) -> dict[str, int]:
    """How many test targets and users were never seen in training, and who is not judged for want of a history."""
    never = int((corpus.popularity[test_targets.targets] == 0).sum())
    without_training = corpus.training.lengths == 0
    return {
        "warm_test_targets": len(test_targets.targets) - never,
        "cold_test_targets": never,
        "items_without_training": int((corpus.popularity == 0).sum()),
        "users_without_training": int(without_training.sum()),
        "test_users_without_training": int(without_training[test_targets.users].sum()),
        "test_users_without_history": len(set(split.after["user"].unique()) - set(split.test["user"])),
    }


def _in_words(removed: Mapping[str, Removed]) -> str:
    return (
        "; ".join(f"{reason} removed {gone}" for reason, gone in removed.items() if any(gone)) or "the source is empty"
    )
