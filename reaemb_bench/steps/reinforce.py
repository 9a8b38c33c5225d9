"""Stage two: train the thought by reinforcement, so that items which users combine come to lie together."""

from __future__ import annotations

import shutil
from typing import Any, ClassVar, Self, cast

from pydantic import Field, model_validator

from reaemb_bench.artifacts import Corpus, Encoder, Holdout, Sequences
from reaemb_bench.component import Component, Randomness, Sight, Step
from reaemb_bench.context import Context
from reaemb_bench.distributed import is_first
from reaemb_bench.kinds import AnyAdvantage, AnyCooccurrence, AnyPolicy, AnyReward

_CACHE = ("cache_gb", "cache_disk_gb")


class Reinforcement(Step):
    """The settings of both reinforcement steps."""

    randomness: ClassVar[Randomness] = "embedder"
    together: ClassVar[bool] = True

    cooccurrence: AnyCooccurrence = cast("AnyCooccurrence", "whole-history")
    """Which items are neighbours, and how much so."""
    reward: AnyReward = cast("AnyReward", "softmax-likelihood")
    """How a rollout's ranking of its candidates is judged."""
    advantage: AnyAdvantage = cast("AnyAdvantage", "leave-one-out")
    """What a rollout's reward is compared with."""
    policy: AnyPolicy = cast("AnyPolicy", "gaussian")
    """Whose density is raised for good rollouts and lowered for bad ones."""
    group: int = Field(default=8, ge=2)
    """Rollouts of one item, G; the first of them has no noise."""
    candidates: int = Field(default=10, ge=2)
    """Items that a rollout ranks, N."""
    positives: int = Field(default=1, ge=1)
    """Most of them that are neighbours: the items that co-occur most often with the rollout's item."""
    noise: float = Field(default=0.1, gt=0)
    """Standard deviation of a thought's noise, as a share of the root mean square at which thoughts are injected
    (in absolute units where the reasoner does not scale them)."""
    rollouts_per_step: int = Field(default=32, ge=2)
    """Rollouts sampled at once; a multiple of `group`."""
    iterations: int = Field(default=2, ge=1)
    """Updates on each sample."""
    epochs: int = Field(default=1, ge=0)
    """Passes over the items that have candidates."""
    steps: int | None = Field(default=None, ge=0)
    """Samples to take; None takes as many as `epochs` needs."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """AdamW's highest learning rate."""
    warmup: int = Field(default=200, ge=0)
    """Updates over which the learning rate rises; it falls to 0 along a cosine afterwards. A run of fewer
    updates (samples times `iterations`) never reaches the highest rate."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""
    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    max_length: int | None = Field(default=None, ge=8)
    """Most tokens of a prompt, thoughts and EOS counted; None keeps the encoder's own limit."""
    cache_gb: float = Field(default=4.0, ge=0)
    """Main memory for what the language model says of the prompts, in 10^9 bytes a process; it changes no number."""
    cache_disk_gb: float = Field(default=50.0, ge=0)
    """Disk for what does not fit into `cache_gb`, in the store's folder until the step is done, in 10^9 bytes a
    process; it changes no number. Prompts beyond it are read again at every use; 0 writes nothing."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rollouts_per_step % self.group:
            raise ValueError(
                f"rollouts_per_step = {self.rollouts_per_step} is no multiple of group = {self.group}; make it one"
            )
        if self.positives >= self.candidates:
            raise ValueError(
                f"positives = {self.positives} leave no negative among candidates = {self.candidates}; raise candidates"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """What decides the results: all settings but those of the cache."""
        return {name: value for name, value in super().identity().items() if name not in _CACHE}


class Reinforce(Reinforcement):
    """Collaborative reward reinforcement learning on the training sequences. Source: arXiv 2606.16703, stage II."""

    def run(self, corpus: Corpus, encoder: Encoder, context: Context) -> Encoder:
        """The encoder with a reasoner that was rewarded for ranking training neighbours above strangers."""
        return _run(self, corpus, corpus.training, encoder, context)


class ReinforceLeakyPaper(Reinforcement):
    """`reinforce` as the authors' code has it: co-occurrence is counted on whole histories, test items included.

    The reward has thus seen the test answers, so its numbers say nothing about ranking unseen items. One difference
    remains: items without any neighbour are left out, where the authors reward a random item as the positive.
    """

    sees: ClassVar[Sight] = "test"
    leaks: ClassVar[bool] = True

    reward: AnyReward = cast("AnyReward", "reciprocal-log-rank")
    """How a rollout's ranking of its candidates is judged."""
    advantage: AnyAdvantage = cast("AnyAdvantage", "batch-baseline-paper")
    """What a rollout's reward is compared with."""
    policy: AnyPolicy = cast("AnyPolicy", "token-logprob-paper")
    """Whose density is raised for good rollouts and lowered for bad ones."""
    max_length: int | None = Field(default=128, ge=8)
    """Most tokens of a prompt, thoughts and EOS counted; None keeps the encoder's own limit."""

    def run(self, corpus: Corpus, holdout: Holdout, encoder: Encoder, context: Context) -> Encoder:
        """The encoder with a reasoner that was rewarded for what users do in the test too."""
        return _run(self, corpus, holdout.histories.followed_by(holdout.users, holdout.targets), encoder, context)


def _run(settings: Reinforcement, corpus: Corpus, histories: Sequences, encoder: Encoder, context: Context) -> Encoder:
    from reaemb_bench.data.candidates import draw_candidates
    from reaemb_bench.data.cooccurrence import checked
    from reaemb_bench.encoding.folder import open_encoder, with_reasoner
    from reaemb_bench.reinforcement.learning import reinforce

    counted = settings.cooccurrence
    pairs = checked(counted.counts(histories, corpus.items), corpus.items, cast("Component", counted).use)
    drawn = draw_candidates(pairs, settings.positives, settings.candidates, context.seed)
    model = open_encoder(encoder, context.machine)
    reinforce(model, corpus, drawn, settings, context)
    if not is_first():
        return encoder
    assert model.reasoner is not None
    folder = context.scratch / "encoder"
    # An interrupted run may have left one behind.
    shutil.rmtree(folder, ignore_errors=True)
    return with_reasoner(encoder, folder, model.reasoner.state_dict())
