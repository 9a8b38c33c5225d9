"""Two views of an item text by attribute dropout."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.random import Generator
from pydantic import Field
from torch import Tensor, nn

from reaemb_bench.core.artifacts import Corpus, Encoder
from reaemb_bench.core.component import Context, Progress
from reaemb_bench.core.distributed import all_reduce, all_reduce_gradients, broadcast, is_first, share, world_size
from reaemb_bench.core.errors import UserError, check_finite, gradient_norm
from reaemb_bench.encoder.kinds import AnyLoss
from reaemb_bench.encoder.lora import LoraSettings, add_lora, step_seed
from reaemb_bench.encoder.memory import graphs_that_fit, in_turn
from reaemb_bench.encoder.shared_prefix import SharedPrefix, Tokens
from reaemb_bench.encoder.thought_model import ThoughtModel

_ATTEMPTS = 16


def two_views(text: str, drop: float, draw: Generator) -> tuple[str, str]:
    """Two texts of the same attributes, each shuffled and with a share `drop` of them left out.

    Attributes are separated by ";". int(attributes * drop) are left out of each view. The views differ where they
    can: a text of one attribute gives the same view twice. Source: arXiv 2606.16703, Stage I.
    """
    attributes = [part for part in (part.strip() for part in text.split(";")) if part]
    if len(set(attributes)) < 2:
        return text, text
    first = _view(attributes, drop, draw)
    for _ in range(_ATTEMPTS):
        second = _view(attributes, drop, draw)
        if second != first:
            break
    else:
        # Two distinct attributes that always come out alike, by bad luck: an order read backwards is another view.
        second = "; ".join(reversed(first.split("; ")))
    return first, second


def _view(attributes: list[str], drop: float, draw: Generator) -> str:
    kept = len(attributes) - int(len(attributes) * drop)
    return "; ".join(attributes[place] for place in draw.permutation(len(attributes))[:kept])


# LRCL: latent reasoning-enhanced contrastive learning, the method's first stage.


_LONG_TEXTS = 16
"""Texts that are tokenised to know how much memory a prompt takes."""


class Contrast(LoraSettings):
    """Train LoRA, the reasoner and a temperature so that two views of an item's attributes meet.

    Source: arXiv 2606.16703, Stage I. The defaults repair the authors' code: views drawn anew in every epoch,
    negatives from the whole batch whatever the machine's micro-batch. `views = "once"`, `negatives = "micro-batch"`
    and `passes = 2` are theirs.
    """

    distributed: ClassVar[bool] = True
    version: ClassVar[int] = 2

    loss: AnyLoss = "soft-target"  # type: ignore[assignment]
    """The contrastive loss."""
    batch_size: int = Field(default=512, ge=2)
    """Pairs of views a step; at most as many as there are items."""
    views: Literal["every-epoch", "once", "same"] = "every-epoch"
    """When the two views of an item are drawn; `same` takes the whole text twice, so that nothing but LoRA's dropout
    tells the two apart (unsupervised SimCSE, arXiv 2104.08821)."""
    drop: float = Field(default=0.4, ge=0, lt=1)
    """Share of an item's attributes that each view leaves out."""
    negatives: Literal["batch", "micro-batch"] = "batch"
    """Where the negatives of a pair come from: all pairs of the step, or those of its block of `device_batch`."""
    device_batch: int = Field(default=64, ge=2)
    """Pairs a block where negatives = "micro-batch": what one of the authors' GPUs held."""
    passes: Literal[1, 2] = 1
    """1 reads the prompt once and continues from its cache; 2 reads it twice, with two masks of LoRA dropout."""
    padding: Literal["left", "right"] | None = None
    """Padding side in this stage, for `latent-thought-paper`; None takes the encoder's."""

    def run(self, corpus: Corpus, encoder: Encoder, context: Context) -> Encoder:
        """The encoder with one more adapter, a trained reasoner and the temperature it arrived at."""
        from reaemb_bench.encoder.finetune import seeded

        if not self.steps:
            return encoder
        with seeded(context):
            return self._train(corpus, encoder, context)

    def _pairs(self, corpus: Corpus, items: list[int], seed: int, epoch: int) -> list[tuple[str, str]]:

        if self.views == "same":
            return [(corpus.texts[item], corpus.texts[item]) for item in items]
        return view_pairs(corpus, items, self.drop, seed, 0 if self.views == "once" else epoch)

    def _train(self, corpus: Corpus, encoder: Encoder, context: Context) -> Encoder:
        import torch

        from reaemb_bench.core.errors import check_parameters
        from reaemb_bench.core.training import Checkpoints
        from reaemb_bench.encoder.folder import open_encoder, with_adapter
        from reaemb_bench.encoder.memory import micro_batch

        model = open_encoder(encoder, context.machine)
        model.template = replace(model.template, padding=self.padding or model.template.padding)
        # Most characters are not always most tokens, but hardly ever are they far from it.
        longest = model.tokenize(sorted(corpus.texts, key=len)[-_LONG_TEXTS:])
        length = max(map(len, longest)) + model.thoughts + 1
        # Hosts may differ in free memory, but all processes must share the same groups.
        room = broadcast(micro_batch(context.machine, model.shape, length, learns=True))[0]
        learner = ContrastiveLearner(self, model, room)
        model.train()
        checkpoints = Checkpoints(context.scratch, learner.parameters, learner.optimiser)
        curve, learner.tokens = checkpoints.restore()
        if broadcast(len(curve)) != [len(curve)]:
            raise UserError("this process finds another checkpoint than process 0; give all hosts the same --store")
        drawn = batches(corpus.items, min(self.batch_size, corpus.items), context.seed)
        for number, (epoch, items) in zip(range(1, self.steps + 1), drawn, strict=False):
            if number > len(curve):
                pairs = self._pairs(corpus, items, context.seed, epoch)
                # Every step has a seed of its own, so that a resumed run draws the same dropout masks.
                torch.manual_seed(step_seed(context.seed, number))
                curve.append((learner.step(number, pairs, items), learner.temperature.item()))
                if is_first():
                    checkpoints.save(curve, learner.tokens)
            loss, temperature = curve[number - 1]
            context.report(Progress(number, self.steps, "steps", {"loss": loss, "temperature": temperature}))
        check_parameters(learner.parameters, f"step {self.steps}")
        if not is_first():
            return encoder
        context.note(
            {
                "trained_parameters": sum(parameter.numel() for parameter in learner.parameters),
                "tokens": learner.tokens,
                "pairs_per_step": min(self.batch_size, corpus.items),
            }
        )
        folder = context.scratch / "encoder"
        return with_adapter(encoder, folder, model, learner.adapter, learner.temperature.item())


# Contrastive training of a thought model: LoRA, batches of view pairs, gradient caching.


_COOLEST = 1e-3


class ContrastiveLearner:
    """Updates LoRA, the reasoner and the temperature, one batch of view pairs at a time."""

    def __init__(self, settings: Contrast, model: ThoughtModel, micro_batch: int) -> None:
        self.settings = settings
        self.model = model
        self.micro_batch = micro_batch
        self.adapter = add_lora(model, settings)
        if model.reasoner is not None:
            model.reasoner.requires_grad_(True)
        start = settings.loss.initial_temperature
        self.temperature = nn.Parameter(torch.tensor(start, dtype=torch.float32, device=model.device))
        weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.parameters = [*weights, self.temperature]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.tokens = 0

    def step(self, number: int, pairs: Sequence[tuple[str, str]], items: Sequence[int] = ()) -> float:
        """One update, numbered from 1, on the views of a batch; gives the loss.

        items: their numbers, for the NotFiniteError that is raised where loss or gradient is not finite; nothing is
        learned then.
        """
        settings = self.settings
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * (1 - (number - 1) / settings.steps)
        self.optimiser.zero_grad(set_to_none=True)
        size = settings.device_batch if settings.negatives == "micro-batch" else len(pairs)
        total = 0.0
        for start in range(0, len(pairs), size):
            block = pairs[start : start + size]
            rows = self.model.tokenize([first for first, _ in block] + [second for _, second in block])
            self.tokens += sum(len(row) + self.model.thoughts + 1 for row in rows)
            total += self._accumulate(rows, len(block) / len(pairs))
        check_finite("loss", total, f"step {number}", items)
        if not is_first() and self.temperature.grad is not None:
            # All processes have its whole gradient, of which the sum is to count one.
            self.temperature.grad.zero_()
        all_reduce_gradients(self.parameters)
        norm = gradient_norm(self.parameters, settings.clip_norm)
        check_finite("gradient norm", norm.item(), f"step {number}", items)
        self.optimiser.step()
        with torch.no_grad():
            self.temperature.clamp_(min=_COOLEST)
        return total

    def _accumulate(self, rows: list[list[int]], share_of_loss: float) -> float:
        """Add the gradients of one block of pairs (first views, then second views); gives its share of the loss."""
        # Gradient caching (Gao et al., arXiv 2101.06983): vectors of all groups first, then the backward pass of each
        # group with the gradient of its vectors. The graphs of as many groups as fit into memory are kept for it; the
        # others are computed again, under the same dropout masks. What all prompts begin with is read once and
        # differentiated once, at the end. Several processes share the groups, and all of them compute the loss of all
        # vectors.
        device = self.model.device
        beginning = self.model.begin(rows) if self.settings.passes == 1 else None
        apart = None if beginning is None else beginning.detached_copy()
        size = min(self.micro_batch, math.ceil(len(rows) / world_size()))
        groups = share(in_turn([len(row) for row in rows], size))
        recomputed = len(groups) - self._graphs(rows, groups, apart)
        vectors = torch.zeros(len(rows), self.model.width, device=device)
        states, graphs = [], {}
        for place, group in enumerate(groups):
            states.append(_random_state(device))
            with torch.set_grad_enabled(place >= recomputed):
                part = self._embed(rows, group, apart)
            vectors[group.to(device)] = part.detach()
            if place >= recomputed:
                graphs[place] = part
        all_reduce([vectors])
        vectors.requires_grad_()
        value = self._loss(vectors) * share_of_loss
        value.backward()  # type: ignore[no-untyped-call]
        assert vectors.grad is not None
        after = _random_state(device)
        # In one order, whatever was kept, so that memory does not decide the last bits of a sum.
        for place, group in enumerate(groups):
            if place < recomputed:
                _restore_random_state(states[place], device)
                graphs[place] = self._embed(rows, group, apart)
            graphs.pop(place).backward(vectors.grad[group.to(device)])  # type: ignore[no-untyped-call]
        _restore_random_state(after, device)
        if beginning is not None and apart is not None:
            _pass_on(apart, beginning)
        return value.item()

    def _graphs(self, rows: list[list[int]], groups: Sequence[Tensor], beginning: SharedPrefix | None) -> int:
        """Of how many of the last groups the graphs fit into memory."""
        common = 0 if beginning is None else len(beginning.ids)
        extra = self.model.thoughts + 1 - common
        sizes = [len(group) * (max(len(rows[place]) for place in group.tolist()) + extra) for group in groups]
        return graphs_that_fit(sizes, self.model.shape, str(self.model.device))

    def _embed(self, rows: list[list[int]], group: Tensor, beginning: SharedPrefix | None) -> Tensor:
        tokens = self.model.tokens([rows[place] for place in group.tolist()])
        if self.settings.passes == 2:
            return _embed_twice(self.model, tokens)
        return self.model.embed(tokens, beginning)

    def _loss(self, vectors: Tensor) -> Tensor:
        half = len(vectors) // 2
        return self.settings.loss.loss(vectors[:half], vectors[half:], self.temperature)


def batches(items: int, size: int, seed: int) -> Iterator[tuple[int, list[int]]]:
    """Endless batches (epoch, item numbers) without repetition inside an epoch; its incomplete rest is left out."""
    epoch = 0
    while True:
        order = np.random.default_rng([seed, epoch]).permutation(items).tolist()
        for start in range(0, items - size + 1, size):
            yield epoch, order[start : start + size]
        epoch += 1


def view_pairs(corpus: Corpus, items: Sequence[int], drop: float, seed: int, epoch: int) -> list[tuple[str, str]]:
    """The two views of each item in an epoch; they depend on nothing but seed, epoch and item."""
    return [two_views(corpus.texts[item], drop, np.random.default_rng([seed, epoch, item])) for item in items]


def _embed_twice(model: ThoughtModel, tokens: Tokens) -> Tensor:
    """Vectors (n, d) whose thoughts come from a pass of their own, with dropout masks of its own."""
    with torch.no_grad():
        first = model.prefix(tokens, share=False)
    return model.complete(model.prefix(tokens, share=False), model.think(first))


def _pass_on(apart: SharedPrefix, beginning: SharedPrefix) -> None:
    """Give the gradients that tensors set apart have gathered to those that they were copied from."""
    pairs = zip(beginning.tensors, apart.tensors, strict=True)
    used = [(tensor, copy.grad) for tensor, copy in pairs if copy.grad is not None and tensor.requires_grad]
    if used:
        torch.autograd.backward([tensor for tensor, _ in used], [gradient for _, gradient in used])


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _restore_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
