"""CRRL, the method's second stage: train the thought by reinforcement, so that items which users combine lie together.

Noisy thoughts are rewarded for ranking an item's neighbours above strangers (arXiv 2606.16703, Stage II). Only the
reasoner trains, so what the language model says about a prompt is computed once; rollouts and candidates continue it
by j + 1 tokens. Shapes: g groups of G rollouts, n = g * G, N candidates, j thoughts, d hidden size.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from reaemb_bench.core.artifacts import Corpus, Encoder, Int64, Sequences, TestTargets
from reaemb_bench.core.component import Component, Context, DataAccess, Progress, Randomness, Step
from reaemb_bench.core.distributed import all_reduce, all_reduce_gradients, broadcast, is_first, rank, world_size
from reaemb_bench.core.errors import NotFiniteError, UserError
from reaemb_bench.core.training import Checkpoints, training, update
from reaemb_bench.data.cooccurrence import checked
from reaemb_bench.data.kinds import AnyCooccurrence
from reaemb_bench.encoder.folder import open_encoder, with_reasoner
from reaemb_bench.encoder.memory import MICRO_BATCH, micro_batch
from reaemb_bench.encoder.shared_prefix import Prefix
from reaemb_bench.encoder.thought_model import ThoughtModel
from reaemb_bench.rl.candidates import Candidates, draw_candidates
from reaemb_bench.rl.kinds import AnyAdvantage, AnyPolicy, AnyReward
from reaemb_bench.rl.policies import Rollouts
from reaemb_bench.rl.prompt_cache import Prompts


class Reinforcement(Step):
    """The settings of both reinforcement steps."""

    randomness: ClassVar[Randomness] = "embedder"
    distributed: ClassVar[bool] = True

    cooccurrence: AnyCooccurrence = cast("AnyCooccurrence", "whole-history")
    """Which items are neighbours, and how much so."""
    reward: AnyReward = cast("AnyReward", "softmax-likelihood")
    """How a rollout's ranking of its candidates is judged."""
    advantage: AnyAdvantage = cast("AnyAdvantage", "leave-one-out")
    """What a rollout's reward is compared with."""
    policy: AnyPolicy = cast("AnyPolicy", "gaussian")
    """Whose density rises for good rollouts and falls for bad ones."""
    group: int = Field(default=8, ge=2)
    """Rollouts of one item, G; the first of them has no noise."""
    candidates: int = Field(default=10, ge=2)
    """Items that a rollout ranks, N."""
    positives: int = Field(default=1, ge=1)
    """How many of them are neighbours at most: the items that co-occur most often with the rollout's item."""
    noise: float = Field(default=0.1, gt=0)
    """Standard deviation of a thought's noise, as a share of the root mean square at which thoughts are injected
    (in absolute units if the reasoner does not scale them)."""
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
    cache_gb: float = Field(default=50.0, ge=0)
    """Disk for what the language model says of the prompts, in the store's folder until the step is done, in 10^9
    bytes a process; what fits into main memory is read from there. Prompts beyond it are read again at every use;
    0 writes nothing. It changes no number."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rollouts_per_step % self.group:
            raise ValueError(
                f"rollouts_per_step = {self.rollouts_per_step} is not a multiple of group = {self.group}; make it one"
            )
        if self.positives >= self.candidates:
            raise ValueError(
                f"positives = {self.positives} leave no negative among candidates = {self.candidates}; raise candidates"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """What decides the results: all settings but the size of the cache."""
        return {name: value for name, value in super().identity().items() if name != "cache_gb"}


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

    data_access: ClassVar[DataAccess] = "test"
    leaks: ClassVar[bool] = True

    reward: AnyReward = cast("AnyReward", "reciprocal-log-rank")
    """How a rollout's ranking of its candidates is judged."""
    advantage: AnyAdvantage = cast("AnyAdvantage", "batch-baseline-paper")
    """What a rollout's reward is compared with."""
    policy: AnyPolicy = cast("AnyPolicy", "token-logprob-paper")
    """Whose density rises for good rollouts and falls for bad ones."""
    max_length: int | None = Field(default=128, ge=8)
    """Most tokens of a prompt, thoughts and EOS counted; None keeps the encoder's own limit."""

    def run(self, corpus: Corpus, test_targets: TestTargets, encoder: Encoder, context: Context) -> Encoder:
        """The encoder with a reasoner that was rewarded for what users do in the test too."""
        return _run(
            self, corpus, test_targets.histories.followed_by(test_targets.users, test_targets.targets), encoder, context
        )


def _run(settings: Reinforcement, corpus: Corpus, histories: Sequences, encoder: Encoder, context: Context) -> Encoder:
    counted = settings.cooccurrence
    pairs = checked(counted.counts(histories, corpus.items), corpus.items, cast("Component", counted).use)
    candidates = draw_candidates(pairs, settings.positives, settings.candidates, context.seed)
    model = open_encoder(encoder, context.machine)
    reinforce(model, corpus, candidates, settings, context)
    if not is_first():
        return encoder
    assert model.reasoner is not None
    folder = context.scratch / "encoder"
    # An interrupted run may have left one there.
    shutil.rmtree(folder, ignore_errors=True)
    return with_reasoner(encoder, folder, model.reasoner.state_dict())


def reinforce(
    model: ThoughtModel, corpus: Corpus, candidates: Candidates, settings: Reinforcement, context: Context
) -> None:
    """Trains the reasoner of `model` in place on the candidate lists; progress and facts go to `context`."""
    reasoner = model.reasoner
    if reasoner is None:
        raise UserError("reinforce trains the thought, and llm.reasoner is none: drop this step too")
    if not len(candidates.items):
        raise UserError(
            f"reinforce: no item has {settings.candidates} candidates "
            f"({candidates.without_neighbours} items have no neighbour, "
            f"{candidates.without_strangers} too few strangers); lower reinforce.candidates or drop this step"
        )
    parameters = list(reasoner.requires_grad_(True).parameters())
    context.note(
        {
            "trained_parameters": sum(parameter.numel() for parameter in parameters),
            "skipped_items": candidates.without_neighbours + candidates.without_strangers,
            "skipped_without_neighbours": candidates.without_neighbours,
            "skipped_without_strangers": candidates.without_strangers,
        }
    )
    texts = model.tokenize(corpus.texts, settings.max_length)
    at_once = micro_batch(context.machine, model.shape, max(map(len, texts)) + model.thoughts + 1, learns=False)
    # Hosts may differ in free memory, but all processes must compute the same sums.
    learner = Learner(model, settings, broadcast(at_once)[0])
    context.note({"micro_batch": learner.micro_batch})
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    checkpoints = Checkpoints(context.scratch, optimiser, shared=True)
    order = batches(len(candidates.items), settings, context.seed)
    if len(checkpoints.curve) < len(order):
        prompts = _read_prompts(learner, texts, candidates, order, context)

    def learn(step: int) -> dict[str, float]:
        # Every step has a seed of its own, so that a resumed run draws the same noise.
        seed = int(np.random.SeedSequence((context.seed, 2, step)).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        return learner.step(step, len(order), order[step - 1], prompts, candidates, generator, optimiser)

    for step, values in training(len(order), learn, checkpoints):
        context.report(Progress(step, len(order), "steps", values))
    if order:
        context.note({"dead_groups": sum(values["dead_groups"] for values in checkpoints.curve) / len(order)})
    reasoner.requires_grad_(False)


def batches(items: int, settings: Reinforcement, seed: int) -> list[Int64]:
    """Numbers of candidate lists in random order, epoch after epoch: what each step of a stage rolls out."""
    size = settings.rollouts_per_step // settings.group
    steps = settings.epochs * math.ceil(items / size) if settings.steps is None else settings.steps
    drawn: list[Int64] = []
    while len(drawn) < steps:
        # Another stream than the one that drew the candidates.
        order = np.random.default_rng((seed, 1, len(drawn))).permutation(items)
        drawn += [order[start : start + size] for start in range(0, items, size)]
    return drawn[:steps]


def _read_prompts(
    learner: Learner, texts: list[list[int]], candidates: Candidates, order: list[Int64], context: Context
) -> Prompts:
    """The prompts of all items that this process rolls out or embeds as candidates in the stage."""
    rolled_out = candidates.items[np.concatenate([chosen[own_groups(len(chosen))] for chosen in order])]
    ranked = np.unique(candidates.lists[np.unique(np.concatenate(order))])
    prompts = Prompts(
        learner.model,
        texts,
        np.unique(np.concatenate([rolled_out, ranked[ranked % world_size() == rank()]])),
        context.scratch / f"prompts-{rank()}",
        learner.settings.cache_gb * 1e9,
        learner.micro_batch,
        lambda done, total: context.report(Progress(done, total, "prompts")),
    )
    context.note({"prompt_cache_mb": round(prompts.size / 1e6, 3), "prompts_without_room": prompts.without_room})
    return prompts


@dataclass(frozen=True)
class Sample:
    """What a step samples and then learns from.

    prefix: the prompts of the g items that this process rolls out. thoughts: (g, j, d), theirs, with gradient.
    advantages: (g, G). rewards: (groups, G), those of all processes.
    """

    prefix: Prefix
    thoughts: Tensor
    rollouts: Rollouts
    rewards: Tensor
    advantages: Tensor


@dataclass(frozen=True)
class Learner:
    """A model whose reasoner is trained under one group of settings."""

    model: ThoughtModel
    settings: Reinforcement
    micro_batch: int = MICRO_BATCH

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise, in units of the thought's entries."""
        return self.settings.noise * self.model.thought_scale

    def step(
        self,
        number: int,
        steps: int,
        chosen: Int64,
        prompts: Prompts,
        candidates: Candidates,
        generator: torch.Generator,
        optimiser: torch.optim.Optimizer,
    ) -> dict[str, float]:
        """One step of `steps`, numbered from 1, on the candidate lists `chosen`; returns what was measured.

        Raises NotFiniteError if a reward, an advantage, a loss or a gradient is not finite.
        """
        settings, device, where = self.settings, self.model.device, f"step {number}"
        items, groups = candidates.items[chosen], len(chosen)
        own = own_groups(groups)

        # Prompts, and the candidates' vectors under the current reasoner, each of them embedded once.
        prefix = prompts(items[own])
        ranked, columns = np.unique(candidates.lists[chosen], return_inverse=True)
        columns = columns.reshape(groups, -1)[own]
        vectors = self._candidate_vectors(prompts, ranked)[torch.from_numpy(columns).to(device)]
        counts = torch.from_numpy(candidates.counts[chosen[own]]).to(device, torch.float32)

        # Thoughts, noise, rewards, advantages.
        noise = self.noise(groups, generator)[torch.from_numpy(own).to(device)].flatten(0, 1)
        sample = self.sample(prefix, noise, vectors, counts / counts.sum(1, keepdim=True), groups)
        _check_groups("reward", sample.rewards, items, where)
        _check_groups("advantage", sample.advantages, items[own], where)

        # The policy's loss and an update, several times on one sample.
        updates = steps * settings.iterations
        for iteration, loss in enumerate(self.losses(sample)):
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            total = loss.detach().clone()
            all_reduce([total])
            all_reduce_gradients(self.model.reasoner.parameters() if self.model.reasoner is not None else [])
            rate = schedule((number - 1) * settings.iterations + iteration, updates, settings.warmup)
            measured = update(
                optimiser,
                total,
                where,
                items,
                clip_norm=settings.gradient_clip,
                learning_rate=settings.learning_rate * rate,
            )
        return {**self._measured(sample), "loss": measured}

    def noise(self, groups: int, generator: torch.Generator) -> Tensor:
        """(g, G, j, d): Gaussian noise, zero for the first of each group. Drawn on the CPU, alike everywhere."""
        shape = (groups, self.settings.group, self.model.thoughts, self.model.width)
        noise = torch.randn(shape, generator=generator) * self.sigma
        noise[:, 0] = 0
        return noise.to(self.model.device)

    def sample(
        self, prefix: Prefix, noise: Tensor, candidates: Tensor, weights: Tensor, groups: int | None = None
    ) -> Sample:
        """Rolls out and judges: noise (n, j, d), candidates (g, N, d), weights (g, N), the positives' shares.

        groups: how many groups all processes roll out in this step; None says that these are all.
        """
        group = self.settings.group
        groups = len(candidates) if groups is None else groups
        thoughts = self.model.think(prefix)
        with torch.no_grad():
            actions = thoughts.repeat_interleave(group, dim=0) + noise
            vectors = self._complete(prefix, actions, group).view(-1, group, self.model.width)
            scores = vectors @ candidates.transpose(1, 2)
            rewards = self.settings.reward.reward(scores, weights.unsqueeze(1))
            # Ranks of scores that are not numbers look like numbers, so the scores decide.
            rewards = of_all(rewards.where(scores.isfinite().all(-1), torch.nan), groups)
            # Some advantages compare with the rewards of the whole step.
            advantages = self.settings.advantage.advantage(rewards)
        noisy = torch.ones(len(noise), dtype=torch.bool, device=noise.device)
        noisy[::group] = False
        own = torch.from_numpy(own_groups(groups)).to(rewards.device)
        return Sample(prefix, thoughts, Rollouts(actions, noise, self.sigma, noisy), rewards, advantages[own])

    def losses(self, sample: Sample) -> Iterator[Tensor]:
        """The policy's loss for each iteration over a sample; the caller updates the reasoner in between.

        The first goes through the sample's own thoughts, so a sample can be learned from once. With several processes
        each yields its part of the loss, and the parts add up to it.
        """
        policy, old = self.settings.policy, None
        for iteration in range(self.settings.iterations):
            thoughts = self.model.think(sample.prefix) if iteration else sample.thoughts
            means = thoughts.repeat_interleave(self.settings.group, dim=0)
            new = policy.log_density(self.model, sample.prefix, means, sample.rollouts)
            old = new.values.detach() if old is None else old
            terms = new.counted.sum() if new.settled is None else new.counted.sum() + new.settled.sum()
            yield policy.loss(new, old, sample.advantages.flatten()) * share_of(terms, len(sample.rewards))

    @torch.no_grad()
    def vectors(self, prefix: Prefix) -> Tensor:
        """Clean vectors (n, d) of prompts under the current reasoner."""
        return self._complete(prefix, self.model.think(prefix), 1)

    def _candidate_vectors(self, prompts: Prompts, items: Int64) -> Tensor:
        """Clean vectors (n, d) of different items; each process embeds the items whose prompts it caches."""
        vectors = torch.zeros(len(items), self.model.width, device=self.model.device)
        own = np.flatnonzero(items % world_size() == rank())
        for start in range(0, len(own), self.micro_batch):
            some = own[start : start + self.micro_batch]
            vectors[torch.from_numpy(some).to(vectors.device)] = self.vectors(prompts(items[some]))
        all_reduce([vectors])
        return vectors

    def _complete(self, prefix: Prefix, thoughts: Tensor, times: int) -> Tensor:
        """Vectors (n * times, d) of prompts, each with `times` of the thoughts in a row, in micro-batches."""
        size = max(1, self.micro_batch // times)
        parts = [
            self.model.complete(prefix.part(start, start + size), thoughts[start * times : (start + size) * times])
            for start in range(0, len(prefix.ids), size)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def _measured(self, sample: Sample) -> dict[str, float]:
        """Progress in numbers; shift is how far a step moved the thoughts, in standard deviations of the noise.

        Far above 1, the rollouts said nothing about where the thoughts went: the learning rate is too high for the
        noise.
        """
        before = sample.rollouts.actions[:: self.settings.group]
        moved = of_all((self.model.think(sample.prefix) - before).flatten(1).norm(dim=1), len(sample.rewards))
        spread = sample.rewards.amax(1) - sample.rewards.amin(1)
        return {
            "reward": float(sample.rewards.mean()),
            "clean_reward": float(sample.rewards[:, 0].mean()),
            "dead_groups": float((spread == 0).float().mean()),
            "shift": float(moved.mean()) / self.sigma,
        }


def schedule(update: int, updates: int, warmup: int) -> float:
    """Share of the learning rate at an update, from 0: a linear rise over `warmup` updates, then half a cosine to 0."""
    if update < warmup:
        return (update + 1) / warmup
    done = (update - warmup) / max(1, updates - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _check_groups(what: str, values: Tensor, items: Int64, where: str) -> None:
    """Raises NotFiniteError naming the items whose group of `values` (groups, G) holds a number that is not finite."""
    bad = ~values.isfinite().all(dim=1).cpu().numpy()
    if bad.any():
        raise NotFiniteError(f"the {what} is not finite", items[bad], where=where)


# How several processes share a step: each rolls out its groups and embeds its candidates, and all learn the same.


def own_groups(groups: int) -> Int64:
    """Numbers of the groups that this process rolls out.

    If a step has fewer groups than there are processes, one without a group of its own repeats the first, and
    `of_all` and `share_of` leave that out.
    """
    own = np.arange(rank(), groups, world_size())
    return own if len(own) else np.zeros(1, dtype=np.int64)


def of_all(own: Tensor, groups: int) -> Tensor:
    """The rows of all groups (groups, ...) in every process, from those of each process's own groups."""
    if world_size() == 1:
        return own
    everyone = own.new_zeros(groups, *own.shape[1:])
    mine = everyone[rank() :: world_size()]
    mine.copy_(own[: len(mine)])
    all_reduce([everyone])
    return everyone


def share_of(terms: Tensor, groups: int) -> Tensor:
    """The share of this process's terms (a scalar) among those of all processes."""
    own = terms.float() if rank() < groups else torch.zeros_like(terms, dtype=torch.float32)
    total = own.clone()
    all_reduce([total])
    return own / total
