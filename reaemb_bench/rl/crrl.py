"""Stage two: train the thought by reinforcement, so that items which users combine come to lie together."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from torch import Tensor

from reaemb_bench.core.artifacts import Corpus, Encoder, Int64, Sequences, TestTargets
from reaemb_bench.core.component import Component, Context, DataAccess, Progress, Randomness, Step
from reaemb_bench.core.distributed import all_reduce, all_reduce_gradients, broadcast, is_first, rank, world_size
from reaemb_bench.core.errors import NotFiniteError, UserError, check_finite, check_parameters, gradient_norm
from reaemb_bench.data.kinds import AnyCooccurrence
from reaemb_bench.encoder.memory import MICRO_BATCH, micro_batch
from reaemb_bench.encoder.shared_prefix import Prefix
from reaemb_bench.encoder.thought_model import ThoughtModel
from reaemb_bench.rl.candidates import Candidates
from reaemb_bench.rl.checkpoint import Checkpoints
from reaemb_bench.rl.kinds import AnyAdvantage, AnyPolicy, AnyReward
from reaemb_bench.rl.policies import LogDensity, Rollouts
from reaemb_bench.rl.prompt_cache import CacheBudget, Prompts

_CACHE = ("cache_gb", "cache_disk_gb")


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

    data_access: ClassVar[DataAccess] = "test"
    leaks: ClassVar[bool] = True

    reward: AnyReward = cast("AnyReward", "reciprocal-log-rank")
    """How a rollout's ranking of its candidates is judged."""
    advantage: AnyAdvantage = cast("AnyAdvantage", "batch-baseline-paper")
    """What a rollout's reward is compared with."""
    policy: AnyPolicy = cast("AnyPolicy", "token-logprob-paper")
    """Whose density is raised for good rollouts and lowered for bad ones."""
    max_length: int | None = Field(default=128, ge=8)
    """Most tokens of a prompt, thoughts and EOS counted; None keeps the encoder's own limit."""

    def run(self, corpus: Corpus, test_targets: TestTargets, encoder: Encoder, context: Context) -> Encoder:
        """The encoder with a reasoner that was rewarded for what users do in the test too."""
        return _run(
            self, corpus, test_targets.histories.followed_by(test_targets.users, test_targets.targets), encoder, context
        )


def _run(settings: Reinforcement, corpus: Corpus, histories: Sequences, encoder: Encoder, context: Context) -> Encoder:
    from reaemb_bench.data.cooccurrence import checked
    from reaemb_bench.encoder.folder import open_encoder, with_reasoner
    from reaemb_bench.rl.candidates import draw_candidates

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


# How several processes share a step: each rolls out its groups and embeds its candidates, and all learn the same.


def own_groups(groups: int) -> Int64:
    """Places of the groups that this process rolls out.

    Where a step has fewer groups than there are processes, one without a group of its own repeats the first, and
    `of_all` and `share_of` leave that out.
    """
    own = np.arange(rank(), groups, world_size())
    return own if len(own) else np.zeros(1, dtype=np.int64)


def of_all(own: Tensor, groups: int) -> Tensor:
    """The rows of all groups (groups, ...) in every process, from those of each process's own groups."""
    if world_size() == 1:
        return own
    made = own.new_zeros(groups, *own.shape[1:])
    mine = made[rank() :: world_size()]
    mine.copy_(own[: len(mine)])
    all_reduce([made])
    return made


def share_of(terms: Tensor, groups: int) -> Tensor:
    """What part of all processes' terms (a scalar) those of this process are."""
    own = terms.float() if rank() < groups else torch.zeros_like(terms, dtype=torch.float32)
    total = own.clone()
    all_reduce([total])
    return own / total


# Collaborative reward reinforcement learning: noisy thoughts, rewarded for ranking neighbours above strangers.
#
# Only the reasoner trains, so what the language model says about a prompt is computed once; rollouts and candidates are
# continuations of it by j + 1 tokens. Shapes: g groups of G rollouts, n = g * G, N candidates, j thoughts, width d.


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

    def noise(self, groups: int, generator: torch.Generator) -> Tensor:
        """(g, G, j, d): Gaussian noise, zero for the first of each group. Drawn on the CPU, alike everywhere."""
        shape = (groups, self.settings.group, self.model.thoughts, self.model.width)
        drawn = torch.randn(shape, generator=generator) * self.sigma
        drawn[:, 0] = 0
        return drawn.to(self.model.device)

    @torch.no_grad()
    def vectors(self, prefix: Prefix) -> Tensor:
        """Clean vectors (n, d) of prompts under the current reasoner."""
        return self._complete(prefix, self.model.think(prefix), 1)

    def sample(
        self, prefix: Prefix, noise: Tensor, candidates: Tensor, weights: Tensor, groups: int | None = None
    ) -> Sample:
        """Roll out and judge: noise (n, j, d), candidates (g, N, d), weights (g, N), the positives' shares.

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
            sampled = torch.ones(len(noise), dtype=torch.bool, device=noise.device)
            sampled[::group] = False
            rollouts = Rollouts(actions, noise, self.sigma, sampled)
            # Some advantages compare with the rewards of the whole step.
            advantages = self.settings.advantage.advantage(rewards)
        own = torch.from_numpy(own_groups(groups)).to(rewards.device)
        return Sample(prefix, thoughts, rollouts, rewards, advantages[own])

    def losses(self, sample: Sample) -> Iterator[Tensor]:
        """The policy's loss for each iteration over a sample; the caller updates the reasoner in between.

        The first goes through the sample's own thoughts, so a sample can be learned from once. Of several processes
        each gives its part of the loss, and the parts add up to it.
        """
        policy, group = self.settings.policy, self.settings.group
        old = None
        for iteration in range(self.settings.iterations):
            thoughts = self.model.think(sample.prefix) if iteration else sample.thoughts
            means = thoughts.repeat_interleave(group, dim=0)
            new = policy.log_density(self.model, sample.prefix, means, sample.rollouts)
            old = new.values.detach() if old is None else old
            yield policy.loss(new, old, sample.advantages.flatten()) * share_of(_terms(new), len(sample.rewards))

    def _complete(self, prefix: Prefix, thoughts: Tensor, times: int) -> Tensor:
        """Vectors (n * times, d) of prompts, each with `times` of the thoughts in a row, in micro-batches."""
        size = max(1, self.micro_batch // times)
        parts = [
            self.model.complete(rows(prefix, start, start + size), thoughts[start * times : (start + size) * times])
            for start in range(0, len(prefix.ids), size)
        ]
        return torch.cat(parts)


def reinforce(
    model: ThoughtModel, corpus: Corpus, candidates: Candidates, settings: Reinforcement, context: Context
) -> None:
    """Train the reasoner of `model` in place on the candidate lists; progress and facts go to `context`."""
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
            "trained_parameters": sum(each.numel() for each in parameters),
            "skipped_items": candidates.without_neighbours + candidates.without_strangers,
            "skipped_without_neighbours": candidates.without_neighbours,
            "skipped_without_strangers": candidates.without_strangers,
        }
    )
    texts = model.tokenize(corpus.texts, settings.max_length)
    longest = max(map(len, texts)) + model.thoughts + 1
    # Hosts may differ in free memory, but all processes must do the same sums.
    room = broadcast(micro_batch(context.machine, model.shape, longest, learns=False))[0]
    learner = Learner(model, settings, room)
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    checkpoints = Checkpoints(context.scratch / "checkpoints", parameters, optimiser)
    order = batches(len(candidates.items), settings, context.seed)
    rate = _Schedule(settings.warmup, len(order) * settings.iterations)
    curve = checkpoints.restore()
    if broadcast(len(curve)) != [len(curve)]:
        raise UserError("this process finds another checkpoint than process 0; give all hosts the same --store")
    if len(curve) < len(order):
        prompts = _read_prompts(learner, texts, candidates, order, context)
    for step in range(1, len(order) + 1):
        if step > len(curve):
            chosen = order[step - 1]
            generator = torch.Generator().manual_seed(_step_seed(context.seed, step))
            sample = _sampled(learner, prompts, candidates, chosen, generator)
            items, where = candidates.items[chosen], f"step {step}"
            check_groups("reward", sample.rewards, items, where)
            check_groups("advantage", sample.advantages, items[own_groups(len(items))], where)
            loss, norm = _learned(learner, sample, optimiser, rate, step)
            check_finite("loss", loss, where, items)
            check_finite("gradient norm", norm, where, items)
            curve.append({**_measured(learner, sample), "loss": loss})
            if is_first():
                checkpoints.save(curve)
        context.report(Progress(step, len(order), "steps", curve[step - 1]))
    if curve:
        check_parameters(parameters, f"step {len(curve)}")
        context.note({"dead_groups": sum(values["dead_groups"] for values in curve) / len(curve)})
    reasoner.requires_grad_(False)


def batches(items: int, settings: Reinforcement, seed: int) -> list[Int64]:
    """Places of items in random order, epoch after epoch: what each step of a stage rolls out."""
    size = settings.rollouts_per_step // settings.group
    steps = settings.epochs * math.ceil(items / size) if settings.steps is None else settings.steps
    made: list[Int64] = []
    while len(made) < steps:
        # Another stream than the one that drew the candidates.
        order = np.random.default_rng((seed, 1, len(made))).permutation(items)
        made += [order[start : start + size] for start in range(0, items, size)]
    return made[:steps]


def _step_seed(seed: int, step: int) -> int:
    """Seed of the noise of one step, so that a resumed run draws the same."""
    return int(np.random.SeedSequence((seed, 2, step)).generate_state(1)[0])


def _read_prompts(
    learner: Learner, texts: list[list[int]], candidates: Candidates, order: list[Int64], context: Context
) -> Prompts:
    """The prompts of all items that this process rolls out or embeds as candidates in the stage."""
    settings = learner.settings
    rolled_out = candidates.items[np.concatenate([chosen[own_groups(len(chosen))] for chosen in order])]
    ranked = np.unique(candidates.lists[np.unique(np.concatenate(order))])
    items = np.unique(np.concatenate([rolled_out, ranked[_embeds(ranked)]]))
    folder = context.scratch / f"prompts-{rank()}"
    room = CacheBudget(settings.cache_gb * 1e9, settings.cache_disk_gb * 1e9, folder)
    prompts = Prompts(
        learner.model,
        texts,
        items,
        room,
        learner.micro_batch,
        lambda done, total: context.report(Progress(done, total, "prompts")),
    )
    context.note(
        {
            "prompt_cache_mb": round(prompts.size / 1e6, 3),
            "prompt_disk_mb": round(prompts.disk_size / 1e6, 3),
            "prompts_without_room": prompts.without_room,
        }
    )
    return prompts


def check_groups(what: str, values: Tensor, items: Int64, where: str) -> None:
    """Raise NotFiniteError naming the items whose group of `values` (groups, G) holds a number that is not finite."""
    bad = ~values.isfinite().all(dim=1).cpu().numpy()
    if bad.any():
        raise NotFiniteError(f"the {what} is not finite", items[bad], where=where)


def _learned(
    learner: Learner, sample: Sample, optimiser: torch.optim.Optimizer, rate: _Schedule, step: int
) -> tuple[float, float]:
    """Update the reasoner on a sample; loss and gradient norm of the last iteration, or of the first in which one of
    them is not finite, from which nothing is learned.
    """
    settings, loss, norm = learner.settings, math.nan, math.nan
    [group] = optimiser.param_groups
    for iteration, value in enumerate(learner.losses(sample)):
        total = value.detach().clone()
        all_reduce([total])
        group["lr"] = settings.learning_rate * rate((step - 1) * settings.iterations + iteration)
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        all_reduce_gradients(group["params"])
        # Both at once, because a GPU waits each time that a number is asked for.
        loss, norm = torch.stack([total, gradient_norm(group["params"], settings.gradient_clip)]).tolist()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            break
        optimiser.step()
    return loss, norm


def rows(prefix: Prefix, start: int, stop: int) -> Prefix:
    """Some of the prompts of a batch, as views."""
    cache = tuple((keys[start:stop], values[start:stop]) for keys, values in prefix.cache)
    part = slice(start, stop)
    return Prefix(prefix.states[part], prefix.ids[part], prefix.mask[part], prefix.positions[part], cache)


def _sampled(
    learner: Learner, prompts: Prompts, candidates: Candidates, chosen: Int64, generator: torch.Generator
) -> Sample:
    """Roll out the items at places `chosen` of `candidates`, or this process's share of them."""
    device, own = learner.model.device, own_groups(len(chosen))
    needed, places = np.unique(candidates.lists[chosen], return_inverse=True)
    places = places.reshape(len(chosen), -1)[own]
    lists = _vectors(learner, prompts, needed)[torch.from_numpy(places).to(device)]
    counts = torch.from_numpy(candidates.counts[chosen[own]]).to(device, torch.float32)
    noise = learner.noise(len(chosen), generator)[torch.from_numpy(own).to(device)].flatten(0, 1)
    prefix = prompts(candidates.items[chosen[own]])
    return learner.sample(prefix, noise, lists, counts / counts.sum(1, keepdim=True), len(chosen))


def _vectors(learner: Learner, prompts: Prompts, items: Int64) -> Tensor:
    """Clean vectors (n, d) of different items, each embedded once, by one process."""
    made = torch.zeros(len(items), learner.model.width, device=learner.model.device)
    own = np.flatnonzero(_embeds(items))
    for start in range(0, len(own), learner.micro_batch):
        some = own[start : start + learner.micro_batch]
        made[torch.from_numpy(some).to(made.device)] = learner.vectors(prompts(items[some]))
    all_reduce([made])
    return made


def _embeds(items: Int64) -> npt.NDArray[np.bool_]:
    """Which of these items this process embeds where they are ranked: always the same, so that it reads no others."""
    mine: npt.NDArray[np.bool_] = items % world_size() == rank()
    return mine


def _terms(density: LogDensity) -> Tensor:
    """How many terms the objective is a mean of, a scalar."""
    counted = density.counted.sum()
    return counted if density.settled is None else counted + density.settled.sum()


@torch.no_grad()
def _measured(learner: Learner, sample: Sample) -> dict[str, float]:
    """Progress in numbers; shift is how far a step moved the thoughts, in standard deviations of the noise.

    Far above 1, the rollouts said nothing about where the thoughts went: the learning rate is too high for the noise.
    """
    before = sample.rollouts.actions[:: learner.settings.group]
    moved = (learner.model.think(sample.prefix) - before).flatten(1).norm(dim=1)
    moved = of_all(moved, len(sample.rewards))
    spread = sample.rewards.amax(1) - sample.rewards.amin(1)
    return {
        "reward": float(sample.rewards.mean()),
        "clean_reward": float(sample.rewards[:, 0].mean()),
        "dead_groups": float((spread == 0).float().mean()),
        "shift": float(moved.mean()) / learner.sigma,
    }


@dataclass(frozen=True)
class _Schedule:
    """Share of the learning rate at an update: a linear rise over `warmup` updates, then half a cosine down to 0."""

    warmup: int
    updates: int

    def __call__(self, update: int) -> float:
        if update < self.warmup:
            return (update + 1) / self.warmup
        done = (update - self.warmup) / max(1, self.updates - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
