"""CRRL, the method's second stage: train the thought by reinforcement, so that items which users combine lie together.

Noisy thoughts are rewarded for ranking an item's neighbours above strangers (arXiv 2606.16703, Stage II). Only the
reasoner trains, so what the language model says about a prompt is computed once; rollouts and candidates continue it
by j + 1 tokens. Shapes: g groups of G rollouts, n = g * G, N candidates, j thoughts, d hidden size.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from reaemb_bench.core.artifacts import Corpus, Encoder, Int64, Sequences, TestTargets
from reaemb_bench.core.component import Component, Context, DataAccess, Foreseen, Progress, Randomness, Step
from reaemb_bench.core.distributed import all_reduce, all_reduce_gradients, broadcast, is_first, rank, world_size
from reaemb_bench.core.errors import NotFiniteError, RecipeError, UserError
from reaemb_bench.core.training import Checkpoints, training, update
from reaemb_bench.data.cooccurrence import checked
from reaemb_bench.data.kinds import AnyCooccurrence
from reaemb_bench.encoder.embed import Movement
from reaemb_bench.encoder.folder import open_encoder, with_reasoner
from reaemb_bench.encoder.memory import MICRO_BATCH, micro_batch
from reaemb_bench.encoder.shared_prefix import Prefix
from reaemb_bench.encoder.similarity import Similarity, comparable
from reaemb_bench.encoder.thought_model import ThoughtModel
from reaemb_bench.rl.candidates import (
    Candidates,
    Ranking,
    draw_candidates,
    hard,
    of_batch,
    of_catalogue,
    sampled,
)
from reaemb_bench.rl.kinds import AnyAdvantage, AnyPolicy, AnyReward, Policy, Reward
from reaemb_bench.rl.policies import Pathwise, Rollouts, Trial
from reaemb_bench.rl.prompt_cache import Prompts

_NO_THOUGHT = "trains the latent thought, and the encoder has none (llm.reasoner is 'none')"
_LEAST_LEVER = 0.01
_NO_LEVER = (
    "the thought moves {:.2g} % of the vectors' variance under this pooling, so training it cannot change them; say "
    'llm.pooling = "text-and-thought"'
)
_MINED = 512
"""Nearest items among which hard negatives are sought."""
_SCORES_AT_ONCE = 1 << 25
"""Scores of rollouts that are in memory at once."""
_AGREEMENT_EVERY = 10
"""Steps between two comparisons of the gradients of half batches."""


class Reinforcement(Step):
    """The settings of both reinforcement steps."""

    randomness: ClassVar[Randomness] = "embedder"
    distributed: ClassVar[bool] = True
    version: ClassVar[int] = 2

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
    candidates_from: Literal["sampled", "hard", "batch", "catalogue"] = "sampled"
    """Which items a rollout ranks. `sampled` (the paper's): `positives` neighbours and random strangers, drawn once;
    `hard`: the same neighbours and the strangers nearest to the item; `batch`: one neighbour of each item of the step,
    drawn anew by how often they co-occur, the others' neighbours as strangers; `catalogue`: all other items, all
    neighbours by their shares. The last two do not read `candidates` and `positives`."""
    refresh: int = Field(default=10, ge=1)
    """Steps between two embeddings of the whole catalogue, which `hard` and `catalogue` compare with."""
    similarity: Similarity = "inner-product"
    """What a rollout's vector is compared with its candidates' by. Inner products of a language model's vectors read
    their common direction more than the pair, see `comparable`; centred cosines take away the mean of the catalogue
    (of the step's candidates, if the catalogue is not embedded)."""
    noise: float = Field(default=0.1, gt=0)
    """Standard deviation of a thought's noise, as a share of the root mean square at which thoughts are injected
    (in absolute units if the reasoner does not scale them)."""
    antithetic: bool = False
    """Draw noise in pairs that are each other's negative, which lowers the variance of score-function policies; takes
    an odd `group`, since the clean rollout has no twin."""
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
    cut: Literal["left", "right"] = "right"
    """The end at which prompts that are too long lose tokens; the paper's code cuts from the left (part of D8)."""
    cache_gb: float = Field(default=50.0, ge=0)
    """Disk for what the language model says of the prompts, in the store's folder until the step is done, in 10^9
    bytes a process; what fits into main memory is read from there. Prompts beyond it are read again at every use;
    0 writes nothing. It changes no number."""

    def foresee(self, given: Mapping[type, Foreseen]) -> Foreseen:
        """The same width and thoughts as before. Raises RecipeError without a thought to train."""
        if given[Encoder].thoughts == 0:
            raise RecipeError(f"{_NO_THOUGHT}; leave this step out too (--drop)")
        return given[Encoder]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rollouts_per_step % self.group:
            raise ValueError(
                f"rollouts_per_step = {self.rollouts_per_step} is not a multiple of group = {self.group}; make it one"
            )
        if self.antithetic and not self.group % 2:
            raise ValueError(
                f"antithetic noise comes in pairs next to the clean rollout; make group = {self.group} odd"
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
    context.phase("loading the model")
    model = open_encoder(encoder, context.machine)
    model.template = replace(model.template, cut=settings.cut)
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
        raise UserError(f"reinforce {_NO_THOUGHT}; leave this step out")
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
    context.phase("tokenizing")
    texts = model.tokenize(corpus.texts, settings.max_length)
    at_once = micro_batch(context.machine, model.shape, max(map(len, texts)) + model.thoughts + 1, learns=False)
    # Hosts may differ in free memory, but all processes must compute the same sums.
    learner = Learner(model, settings, broadcast(at_once)[0])
    context.note({"micro_batch": learner.micro_batch})
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    # Before the parameters of an interrupted run are read, so that it notes the same.
    movement = Movement(model, corpus.texts, context)
    lever = movement.lever()
    context.note({"lever": lever})
    if lever < _LEAST_LEVER:
        context.note({"warning: lever": _NO_LEVER.format(100 * lever)})
    # Between two embeddings of the catalogue a resumed run could not know the vectors of the last one.
    every = settings.refresh if settings.candidates_from in ("hard", "catalogue") else 1
    checkpoints = Checkpoints(context.scratch, optimiser, shared=True, every=every)
    order = batches(len(candidates.items), settings, context.seed)
    table = None
    if len(checkpoints.curve) < len(order):
        prompts = _read_prompts(learner, texts, candidates, order, context)

    def learn(step: int) -> dict[str, float]:
        nonlocal table
        # Every step has a seed of its own, so that a resumed run draws the same noise.
        seed = int(np.random.SeedSequence((context.seed, 2, step)).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        chosen = order[step - 1]
        if settings.candidates_from in ("hard", "catalogue") and (step - 1) % every == 0:
            table = learner.embed(prompts, np.arange(corpus.items))
        if settings.candidates_from == "batch":
            ranking = of_batch(candidates, chosen, np.random.default_rng(seed))
        elif settings.candidates_from == "catalogue":
            ranking = of_catalogue(candidates, chosen)
        elif settings.candidates_from == "hard":
            assert table is not None
            ranking = hard(candidates, chosen, learner.nearest(table, candidates.items[chosen]))
        else:
            ranking = sampled(candidates, chosen)
        return learner.step(step, len(order), candidates.items[chosen], ranking, prompts, table, generator, optimiser)

    for step, values in training(len(order), learn, checkpoints):
        context.report(Progress(step, len(order), "steps", values, "rollouts"))
    if order:
        names = [name for name in checkpoints.curve[0] if name in ("dead_groups", "agreement")]
        context.note({name: _mean(values[name] for values in checkpoints.curve if name in values) for name in names})
        context.note({"moved": movement.share()})
    reasoner.requires_grad_(False)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


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
    if learner.settings.candidates_from == "sampled":
        ranked = np.unique(candidates.lists[np.unique(np.concatenate(order))])
    else:
        ranked = np.arange(len(texts))
    prompts = Prompts(
        learner.model,
        texts,
        np.unique(np.concatenate([rolled_out, ranked[ranked % world_size() == rank()]])),
        context.scratch / f"prompts-{rank()}",
        learner.settings.cache_gb * 1e9,
        learner.micro_batch,
        lambda done, total: context.report(Progress(done, total, "prompts", phase="reading")),
    )
    context.note({"prompt_cache_mb": round(prompts.size / 1e6, 3), "prompts_without_room": prompts.without_room})
    return prompts


@dataclass(frozen=True)
class Judge:
    """Rewards rollouts for how they rank their candidates.

    table: (u, d) vectors. columns: (g, N) the rows of `table` that each group ranks. shares: (g, N) each positive's
    share of its group's co-occurrences, 0 for negatives. centre: (d,) for `centred-cosine`.
    """

    reward: Reward
    similarity: Similarity
    table: Tensor
    columns: Tensor
    shares: Tensor
    centre: Tensor | None = None

    @classmethod
    def of(cls, settings: Reinforcement, candidates: Tensor, shares: Tensor) -> Self:
        """Judges by each group's own candidates (g, N, d); shares (g, N)."""
        columns = torch.arange(shares.numel(), device=shares.device).view_as(shares)
        table = candidates.flatten(0, 1)
        return cls(settings.reward, settings.similarity, table, columns, shares, table.mean(0))

    def rewards(self, vectors: Tensor) -> Tensor:
        """(g, G) of the rollouts' vectors (g, G, d), with gradient if they have any; NaN for scores that are not
        finite."""
        table = comparable(self.table, self.similarity, self.centre)
        vectors = comparable(vectors, self.similarity, self.centre)

        def judged(start: int) -> Tensor:
            part = slice(start, start + size)
            columns = self.columns[part].unsqueeze(1).expand(-1, vectors.shape[1], -1)
            scores = (vectors[part] @ table.T).gather(2, columns)
            rewards = self.reward.reward(scores, self.shares[part].unsqueeze(1))
            # Ranks of scores that are not numbers look like numbers, so the scores decide.
            return rewards.where(scores.isfinite().all(-1), torch.nan)

        # Against a large catalogue some groups at a time, whose scores are computed again for their gradient.
        size = max(1, _SCORES_AT_ONCE // (vectors.shape[1] * len(table)))
        starts = range(0, len(vectors), size)
        again = len(starts) > 1 and vectors.requires_grad
        rewards = [checkpoint(judged, start, use_reentrant=False) if again else judged(start) for start in starts]
        return torch.cat(rewards)

    @torch.no_grad()
    def percentiles(self, vectors: Tensor) -> Tensor:
        """(g,) of the items' clean vectors (g, d): the share of strangers that score above the item's most frequent
        neighbour, ties by half; 0 is first, .5 chance."""
        table, percentiles = comparable(self.table, self.similarity, self.centre), []
        vectors = comparable(vectors, self.similarity, self.centre)
        size = max(1, _SCORES_AT_ONCE // len(table))
        for start in range(0, len(vectors), size):
            part = slice(start, start + size)
            shares, scores = self.shares[part], (vectors[part] @ table.T).gather(1, self.columns[part])
            neighbour, strangers = scores.gather(1, shares.argmax(1, keepdim=True)), shares == 0
            above = (scores > neighbour).float() + (scores == neighbour).float() / 2
            percentiles.append((above * strangers).sum(1) / strangers.sum(1).clamp(min=1))
        return torch.cat(percentiles)


@dataclass(frozen=True)
class Sample:
    """What a step samples and then learns from.

    prefix: the prompts of the g items that this process rolls out. thoughts: (g, j, d), theirs, with gradient.
    advantages: (g, G). own_rewards: (g, G), with gradient if the policy wants it. rewards: (groups, G), those of all
    processes. percentiles: (groups,), of the items' neighbours before the step, likewise.
    """

    prefix: Prefix
    thoughts: Tensor
    rollouts: Rollouts
    judge: Judge
    own_rewards: Tensor
    rewards: Tensor
    advantages: Tensor
    percentiles: Tensor


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
        items: Int64,
        ranking: Ranking,
        prompts: Prompts,
        table: Tensor | None,
        generator: torch.Generator,
        optimiser: torch.optim.Optimizer,
    ) -> dict[str, float]:
        """One step of `steps`, numbered from 1: rolls out `items` (groups,); returns what was measured.

        table: (all items, d) vectors, read instead of the candidates' own if candidates_from = "catalogue"; None if
        the catalogue is not embedded. Raises NotFiniteError if a reward, an advantage, a loss or a gradient is not
        finite.
        """
        settings, device, where = self.settings, self.model.device, f"step {number}"
        groups, own = len(items), own_groups(len(items))
        reasoner = self.model.reasoner
        assert reasoner is not None

        # Prompts, and the candidates' vectors under the current reasoner, each of them embedded once.
        prefix = prompts(items[own])
        if settings.candidates_from == "catalogue" and table is not None:
            vectors = table[torch.from_numpy(ranking.items).to(device)]
        else:
            vectors = self.embed(prompts, ranking.items)
        judge = Judge(
            settings.reward,
            settings.similarity,
            vectors,
            torch.from_numpy(ranking.columns[own]).to(device),
            torch.from_numpy(ranking.shares[own]).to(device, torch.float32),
            vectors.mean(0) if table is None else table.mean(0),
        )

        # Thoughts, noise, rewards, advantages.
        noise = self.noise(groups, generator)[torch.from_numpy(own).to(device)].flatten(0, 1)
        sample = self.sample(prefix, noise, judge, groups)
        _check_groups("reward", sample.rewards, items, where)
        _check_groups("advantage", sample.advantages, items[own], where)

        # The policy's loss and an update, several times on one sample.
        updates = steps * settings.iterations
        agreement: dict[str, float] = {}
        for iteration, (loss, trial) in enumerate(self.losses(sample)):
            optimiser.zero_grad(set_to_none=True)
            if iteration == 0 and (number - 1) % _AGREEMENT_EVERY == 0 and world_size() == 1:
                half = half_gradient(settings.policy, trial, reasoner)
                loss.backward()  # type: ignore[no-untyped-call]
                agreement = {"agreement": _cosine_of_halves(half, reasoner)}
            else:
                loss.backward()  # type: ignore[no-untyped-call]
            total = loss.detach().clone()
            all_reduce([total])
            all_reduce_gradients(reasoner.parameters())
            rate = schedule((number - 1) * settings.iterations + iteration, updates, settings.warmup)
            measured = update(
                optimiser,
                total,
                where,
                items,
                clip_norm=settings.gradient_clip,
                learning_rate=settings.learning_rate * rate,
            )
        return {**self._measured(sample), "loss": measured, **agreement}

    def noise(self, groups: int, generator: torch.Generator) -> Tensor:
        """(g, G, j, d): Gaussian noise, zero for the first of each group. Drawn on the CPU, alike everywhere."""
        shape = (groups, self.settings.group, self.model.thoughts, self.model.width)
        noise = torch.randn(shape, generator=generator) * self.sigma
        noise[:, 0] = 0
        if self.settings.antithetic:
            noise[:, 2::2] = -noise[:, 1::2]
        return noise.to(self.model.device)

    def sample(self, prefix: Prefix, noise: Tensor, judge: Judge, groups: int | None = None) -> Sample:
        """Rolls out and judges: noise (n, j, d).

        groups: how many groups all processes roll out in this step; None says that these are all.
        """
        group = self.settings.group
        groups = len(prefix.ids) if groups is None else groups
        thoughts = self.model.think(prefix)
        actions = thoughts.repeat_interleave(group, dim=0) + noise
        with torch.set_grad_enabled(isinstance(self.settings.policy, Pathwise)):
            vectors = self._complete(prefix, actions, group).view(-1, group, self.model.width)
            own_rewards = judge.rewards(vectors)
        with torch.no_grad():
            rewards = of_all(own_rewards.detach(), groups)
            percentiles = of_all(judge.percentiles(vectors[:, 0]), groups)
            # Some advantages compare with the rewards of the whole step.
            advantages = self.settings.advantage.advantage(rewards)
        noisy = torch.ones(len(noise), dtype=torch.bool, device=noise.device)
        noisy[::group] = False
        own = torch.from_numpy(own_groups(groups)).to(rewards.device)
        rollouts = Rollouts(actions.detach(), noise, self.sigma, noisy)
        return Sample(prefix, thoughts, rollouts, judge, own_rewards, rewards, advantages[own], percentiles)

    def losses(self, sample: Sample) -> Iterator[tuple[Tensor, Trial]]:
        """The policy's loss for each iteration over a sample, and what it was computed from; the caller updates the
        reasoner in between.

        The first goes through the sample's own thoughts, so a sample can be learned from once. With several processes
        each yields its part of the loss, and the parts add up to it.
        """
        group, old = self.settings.group, None
        for iteration in range(self.settings.iterations):
            thoughts = self.model.think(sample.prefix) if iteration else sample.thoughts
            means = thoughts.repeat_interleave(group, dim=0)

            @cache
            def rewards(means: Tensor = means, first: bool = iteration == 0) -> Tensor:
                if first and sample.own_rewards.requires_grad:
                    return sample.own_rewards
                vectors = self._complete(sample.prefix, means + sample.rollouts.noise, group)
                return sample.judge.rewards(vectors.view(-1, group, self.model.width))

            counted = means.new_ones(len(thoughts))
            trial = Trial(
                self.model, sample.prefix, means, sample.rollouts, sample.advantages.flatten(), rewards, counted, old
            )
            loss = self.settings.policy.loss(trial)
            old = loss.old
            yield loss.value * share_of(loss.terms, len(sample.rewards)), trial

    def nearest(self, table: Tensor, items: Int64) -> Int64:
        """For each of `items` (g,) the item numbers nearest to it, (g, k) by falling similarity of `table`'s rows."""
        vectors = comparable(table, self.settings.similarity)
        scores = vectors[torch.from_numpy(items).to(table.device)] @ vectors.T
        return scores.topk(min(len(table), _MINED), dim=1).indices.cpu().numpy()

    @torch.no_grad()
    def vectors(self, prefix: Prefix) -> Tensor:
        """Clean vectors (n, d) of prompts under the current reasoner."""
        return self._complete(prefix, self.model.think(prefix), 1)

    def embed(self, prompts: Prompts, items: Int64) -> Tensor:
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
        rewards = sample.rewards
        spread = rewards.amax(1) - rewards.amin(1)
        return {
            "reward": float(rewards.mean()),
            "neighbour_percentile": float(sample.percentiles.mean()),
            "clean_reward": float(rewards[:, 0].mean()),
            "spread_within": float(rewards.std(1).mean()),
            "spread_between": float(rewards.mean(1).std(correction=0)),
            "dead_groups": float((spread == 0).float().mean()),
            "shift": float(moved.mean()) / self.sigma,
        }


def half_gradient(policy: Policy, trial: Trial, reasoner: torch.nn.Module) -> list[Tensor]:
    """The gradient of the reasoner's parameters that the first half of the groups gives; keeps the graph."""
    groups = len(trial.counted)
    counted = (torch.arange(groups, device=trial.counted.device) < groups // 2).to(trial.counted.dtype)
    advantages = trial.advantages * counted.repeat_interleave(len(trial.advantages) // groups)
    loss = policy.loss(replace(trial, counted=counted, advantages=advantages)).value
    parameters = [parameter for parameter in reasoner.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]


def _cosine_of_halves(first: list[Tensor], reasoner: torch.nn.Module) -> float:
    """Cosine between the gradient of the first half and that of the second, the rest of the parameters' gradient."""
    parameters = [parameter for parameter in reasoner.parameters() if parameter.requires_grad]
    gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in parameters]
    whole = torch.cat([gradient.flatten() for gradient in gradients])
    half = torch.cat([gradient.flatten() for gradient in first])
    return float(torch.nn.functional.cosine_similarity(half, whole - half, dim=0))


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
