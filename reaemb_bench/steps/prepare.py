"""The step that turns a source into what may be learned from, tuned on and judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

from pydantic import Field

from reaemb_bench.artifacts import Corpus, Holdout, Signal
from reaemb_bench.component import Randomness, Step
from reaemb_bench.context import Context
from reaemb_bench.data.interactions import Removed, SplitInteractions
from reaemb_bench.errors import UserError
from reaemb_bench.kinds import AnyPrompt, AnySource, AnySplit, ManyFilters


class Prepare(Step):
    """Read a source, filter and split its interactions, write item texts, draw the candidates of sampled metrics."""

    randomness: ClassVar[Randomness] = "data"

    source: AnySource
    """Where interactions and item attributes come from."""
    filters: ManyFilters = ()
    """What takes interactions away, in order."""
    split: AnySplit = cast("AnySplit", "leave-last-two")
    """How interactions are divided into training, validation and test."""
    prompt: AnyPrompt = cast("AnyPrompt", "attributes")
    """How an item's attributes become text."""
    sampled_candidates: int = Field(default=100, ge=0)
    """Untouched items drawn for each target, once, against which sampled metrics rank it; fewer where fewer exist."""

    def run(self, context: Context) -> tuple[Corpus, Signal, Holdout]:
        """Everything that later steps work on. Raises UserError where filters leave nothing to learn or to judge."""
        from reaemb_bench.data.assemble import assemble, fingerprint

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
        corpus, signal, holdout, written = assemble(data, split, self.prompt, self.sampled_candidates, context.seed)
        context.note(
            {
                "users": corpus.users,
                "items": corpus.items,
                "interactions": data.frame.height,
                "test_users": len(holdout.users),
                **_cold(corpus, holdout, split),
                "sampled_candidates": holdout.candidates.shape[1],
                "items_without_text": written.without_text,
                "items_without_title": written.without_title,
                **{f"removed: {reason}": str(gone) for reason, gone in data.removed.items()},
                "sha256": fingerprint(corpus, signal, holdout),
            }
        )
        return corpus, signal, holdout


def _cold(corpus: Corpus, holdout: Holdout, split: SplitInteractions) -> dict[str, int]:
    """How many test targets and users were never seen in training, and who is not judged for want of a history."""
    never = int((corpus.popularity[holdout.targets] == 0).sum())
    without_training = corpus.training.lengths == 0
    return {
        "warm_test_targets": len(holdout.targets) - never,
        "cold_test_targets": never,
        "items_without_training": int((corpus.popularity == 0).sum()),
        "users_without_training": int(without_training.sum()),
        "test_users_without_training": int(without_training[holdout.users].sum()),
        "test_users_without_history": len(set(split.after["user"].unique()) - set(split.test["user"])),
    }


def _in_words(removed: Mapping[str, Removed]) -> str:
    return (
        "; ".join(f"{reason} removed {gone}" for reason, gone in removed.items() if any(gone)) or "the source is empty"
    )
