"""The three steps of the language model, each the plain way and ours, from the same weights and on the same prompts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.encoder.plain import Plain, Rows
from reaemb_bench.core.artifacts import Corpus
from reaemb_bench.core.component import Context
from reaemb_bench.core.machine import Machine
from reaemb_bench.data.cooccurrence import cooccurrence
from reaemb_bench.encoder.embed import embed_all
from reaemb_bench.encoder.lrcl import Contrast, ContrastiveLearner, view_pairs
from reaemb_bench.encoder.memory import MICRO_BATCH, micro_batch
from reaemb_bench.encoder.thought_model import ThoughtModel
from reaemb_bench.rl.candidates import draw_candidates
from reaemb_bench.rl.crrl import Judge, Learner, Reinforce
from reaemb_bench.rl.kinds import AnyPolicy
from reaemb_bench.rl.prompt_cache import Prompts

SEED = 42
NOISE = 3.0


@dataclass(frozen=True)
class Outcome:
    """What a run of a step gives: values (vectors, rewards or losses), and the gradients that led to them."""

    values: Tensor
    gradients: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Pair:
    """A step the plain way and ours; prompts: how many texts it is about, tokens: what they hold in all.

    settle: puts back the weights that a run has changed.
    """

    plain: Callable[[], Outcome]
    ours: Callable[[], Outcome]
    prompts: int
    tokens: int
    settle: Callable[[], None] = lambda: None


def context(machine: Machine, folder: Path) -> Context:
    """What a step is handed: the machine, the seed, a folder; progress and facts are dropped."""
    return Context(seed=SEED, machine=machine, report=lambda tick: None, note=lambda facts: None, scratch=folder)


def encode(model: ThoughtModel, corpus: Corpus, machine: Machine, items: int, batch: int) -> Pair:
    """Vectors of some items of the corpus, in random order."""
    chosen = np.random.default_rng(SEED).permutation(corpus.items)[:items]
    rows = model.tokenize([corpus.texts[item] for item in chosen])
    plain = Plain(model, batch)

    def ours() -> Outcome:
        return Outcome(torch.from_numpy(embed_all(model, rows, context(machine, Path()))))

    return Pair(lambda: Outcome(plain.vectors(rows).cpu()), ours, len(rows), _tokens(model, rows))


def lrcl(model: ThoughtModel, corpus: Corpus, machine: Machine, pairs: int) -> Pair:
    """A contrastive step on views of random items: tokenised, forward, backward, AdamW. It adapts `model`.

    Without LoRA's dropout, of which the two ways would draw different masks.
    """
    chosen = np.random.default_rng(SEED).permutation(corpus.items)[:pairs].tolist()
    views = view_pairs(corpus, chosen, 0.4, SEED, 0)
    settings = Contrast(batch_size=pairs, clip_norm=None, lora_dropout=0.0)
    rows = model.tokenize([view for pair in views for view in pair])
    size = micro_batch(machine, model.shape, max(map(len, rows)) + model.thoughts + 1, learns=True)
    learner = ContrastiveLearner(settings, model, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        _wake(learner.parameters)
    plain, optimiser = Plain(model), torch.optim.AdamW(learner.parameters, lr=settings.learning_rate)
    model.train()

    def plainly() -> Outcome:
        optimiser.zero_grad(set_to_none=True)
        first, second = (model.tokenize(texts) for texts in zip(*views, strict=True))
        loss = plain.contrast(first, second, settings.loss, learner.temperature)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return Outcome(loss.detach().reshape(1), _gradients(learner.parameters))

    def ours() -> Outcome:
        return Outcome(torch.tensor([learner.step(1, views)]), _gradients(learner.parameters))

    return Pair(plainly, ours, len(rows), _tokens(model, rows), _settling(learner.parameters))


def crrl(
    model: ThoughtModel,
    corpus: Corpus,
    machine: Machine,
    items: int,
    batch: int,
    *,
    policy: AnyPolicy,
    first: bool,
) -> Pair:
    """A reinforcement step on random items, G = 8, N = 10, two iterations, without the optimiser.

    first: nothing has been read before, so that ours reads all prompts that it needs in this step; in a run each
    prompt is read once, and every later step finds it.
    """
    # Rewards of ranks, and noise that changes ranks: rounding would decide what nearly equal rewards teach.
    settings = Reinforce(policy=policy, rollouts_per_step=8 * items, noise=NOISE, reward="reciprocal-log-rank")
    drawn = draw_candidates(cooccurrence(corpus.training, corpus.items), 1, settings.candidates, SEED)
    chosen = np.random.default_rng(SEED).permutation(len(drawn.items))[:items]
    rows = model.tokenize(corpus.texts, settings.max_length)
    assert model.reasoner is not None
    parameters = list(model.reasoner.requires_grad_(True).parameters())
    size = machine.micro_batch or MICRO_BATCH
    learner, plain = Learner(model, settings, size), Plain(model, batch)
    noise = learner.noise(items, torch.Generator().manual_seed(SEED)).flatten(0, 1)
    counts = torch.from_numpy(drawn.counts[chosen]).to(model.device, torch.float32)
    weights = counts / counts.sum(1, keepdim=True)
    lists, places = drawn.lists[chosen], drawn.items[chosen]
    everything = np.unique(np.concatenate([lists.ravel(), places]))

    folder = tempfile.TemporaryDirectory()

    def read() -> Prompts:
        return Prompts(model, rows, everything, Path(tempfile.mkdtemp(dir=folder.name)), 1e12, size)

    kept = None if first else read()

    def ours() -> Outcome:
        prompts = kept or read()
        needed, where = np.unique(lists, return_inverse=True)
        starts = range(0, len(needed), size)
        vectors = torch.cat([learner.vectors(prompts(needed[start : start + size])) for start in starts])
        ranked = vectors[torch.from_numpy(where.reshape(lists.shape)).to(model.device)]
        sample = learner.sample(prompts(places), noise, Judge.of(settings, ranked, weights))
        return _learned(parameters, sample.rewards, (loss for loss, _ in learner.losses(sample)))

    def plainly() -> Outcome:
        judged = plain.reinforce(
            [rows[item] for item in places],
            [[rows[item] for item in row] for row in lists],
            weights,
            noise,
            settings,
            learner.sigma,
        )
        return _learned(parameters, judged.rewards, judged.losses)

    tokens = _tokens(model, [rows[item] for item in places])
    return Pair(plainly, ours, items, tokens)


def _learned(parameters: Sequence[nn.Parameter], rewards: Tensor, losses: Iterator[Tensor]) -> Outcome:
    """Rewards and losses, with the gradients of every iteration; the weights stay as they are."""
    values = [rewards.flatten()]
    gradients: list[Tensor] = []
    for loss in losses:
        for parameter in parameters:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        values.append(loss.detach().reshape(1))
        gradients += _gradients(parameters)
    return Outcome(torch.cat(values).cpu(), tuple(gradients))


def _gradients(parameters: Sequence[nn.Parameter]) -> tuple[Tensor, ...]:
    return tuple(parameter.grad.detach().clone() for parameter in parameters if parameter.grad is not None)


def _wake(parameters: Sequence[nn.Parameter]) -> None:
    """Starts LoRA away from zero, where half of its gradients would be zero."""
    generator = torch.Generator(parameters[0].device).manual_seed(SEED)
    with torch.no_grad():
        for parameter in parameters:
            if not parameter.any():
                parameter.normal_(std=0.02, generator=generator)


def _settling(parameters: Sequence[nn.Parameter]) -> Callable[[], None]:
    before = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def settle() -> None:
        for parameter, value in zip(parameters, before, strict=True):
            parameter.copy_(value)

    return settle


def _tokens(model: ThoughtModel, rows: Rows) -> int:
    return sum(len(row) + model.thoughts + 1 for row in rows)
