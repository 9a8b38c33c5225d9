"""LRCL, the method's first stage: latent reasoning-enhanced contrastive learning (arXiv 2606.16703, Stage I).

A step draws two views of each item, embeds all of them, takes the contrastive loss over the whole batch and updates
LoRA, the reasoner and the temperature. Shapes: n prompts, d hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.random import Generator
from pydantic import Field
from torch import Tensor, nn

from reaemb_bench.core.artifacts import Corpus, Encoder
from reaemb_bench.core.component import Context, Progress
from reaemb_bench.core.distributed import all_reduce, all_reduce_gradients, broadcast, is_first, share, world_size
from reaemb_bench.core.training import Checkpoints, training, update
from reaemb_bench.encoder.dropout import FIRST_PASS, enable_dropout
from reaemb_bench.encoder.finetune import seeded
from reaemb_bench.encoder.folder import open_encoder, with_adapter
from reaemb_bench.encoder.kinds import AnyLoss
from reaemb_bench.encoder.lora import LoraSettings, add_lora, step_seed
from reaemb_bench.encoder.memory import graphs_that_fit, in_turn, micro_batch
from reaemb_bench.encoder.shared_prefix import SharedPrefix
from reaemb_bench.encoder.thought_model import ThoughtModel

_ATTEMPTS = 16
"""Draws of a second view before the first one is reversed instead."""
_LONG_TEXTS = 16
"""Texts that are tokenised to know how much memory a prompt takes."""
_COOLEST = 1e-3
"""Lowest temperature."""


class Contrast(LoraSettings):
    """Train LoRA, the reasoner and a temperature so that two views of an item's attributes meet.

    Source: arXiv 2606.16703, Stage I. The defaults repair the authors' code: views drawn anew in every epoch,
    negatives from the whole batch, not from the machine's micro-batch. `views = "once"`, `negatives = "micro-batch"`
    and `passes = 2` are theirs.
    """

    distributed: ClassVar[bool] = True
    version: ClassVar[int] = 3

    loss: AnyLoss = "soft-target"  # type: ignore[assignment]
    """The contrastive loss."""
    batch_size: int = Field(default=512, ge=2)
    """Pairs of views a step; at most as many as there are items."""
    views: Literal["every-epoch", "once", "same"] = "every-epoch"
    """When the two views of an item are drawn; `same` takes the whole text twice, so that only LoRA's dropout
    tells the two apart (unsupervised SimCSE, arXiv 2104.08821)."""
    drop: float = Field(default=0.4, ge=0, lt=1)
    """Share of an item's attributes that each view leaves out."""
    negatives: Literal["batch", "micro-batch"] = "batch"
    """Where the negatives of a pair come from: all pairs of the step, or those of its block of `device_batch`."""
    device_batch: int = Field(default=64, ge=2)
    """Pairs a block if negatives = "micro-batch": what one of the authors' GPUs held."""
    passes: Literal[1, 2] = 1
    """1 reads the prompt once and continues from its cache; 2 reads it twice, with two masks of LoRA dropout."""
    padding: Literal["left", "right"] | None = None
    """Padding side in this stage, for `latent-thought-paper`; None takes the encoder's."""

    def run(self, corpus: Corpus, encoder: Encoder, context: Context) -> Encoder:
        """The encoder with one more adapter, a trained reasoner and the temperature it arrived at."""
        if not self.steps:
            return encoder
        with seeded(context):
            return self._train(corpus, encoder, context)

    def _train(self, corpus: Corpus, encoder: Encoder, context: Context) -> Encoder:
        model = open_encoder(encoder, context.machine)
        model.template = replace(model.template, padding=self.padding or model.template.padding)
        # The texts of most characters are hardly ever far from those of most tokens.
        longest = max(map(len, model.tokenize(sorted(corpus.texts, key=len)[-_LONG_TEXTS:])))
        at_once = micro_batch(context.machine, model.shape, longest + model.thoughts + 1, learns=True)
        # Hosts may differ in free memory, but all processes must share the same groups.
        learner = ContrastiveLearner(self, model, broadcast(at_once)[0])
        enable_dropout(model)
        checkpoints = Checkpoints(context.scratch, learner.optimiser, shared=True)
        learner.tokens = int(checkpoints.curve[-1]["tokens"]) if checkpoints.curve else 0
        size = min(self.batch_size, corpus.items)
        drawn = islice(batches(corpus.items, size, context.seed), len(checkpoints.curve), None)

        def learn(step: int) -> dict[str, float]:
            epoch, items = next(drawn)
            if self.views == "same":
                pairs = [(corpus.texts[item], corpus.texts[item]) for item in items]
            else:
                pairs = view_pairs(corpus, items, self.drop, context.seed, 0 if self.views == "once" else epoch)
            model.mask_keys.step = step_seed(context.seed, step)
            loss = learner.step(step, pairs, items)
            return {"loss": loss, "temperature": learner.temperature.item(), "tokens": learner.tokens}

        for step, values in training(self.steps, learn, checkpoints):
            shown = {name: values[name] for name in ("loss", "temperature")}
            context.report(Progress(step, self.steps, "steps", shown))
        if not is_first():
            return encoder
        trained = sum(parameter.numel() for parameter in learner.parameters)
        facts = {"trained_parameters": trained, "tokens": learner.tokens, "pairs_per_step": size}
        context.note({**facts, "micro_batch": learner.micro_batch})
        return with_adapter(encoder, context.scratch / "encoder", model, learner.adapter, learner.temperature.item())


def batches(items: int, size: int, seed: int) -> Iterator[tuple[int, list[int]]]:
    """Endless batches (epoch, item numbers) without repetition inside an epoch; its incomplete rest is left out."""
    epoch = 0
    while True:
        order = np.random.default_rng([seed, epoch]).permutation(items).tolist()
        for start in range(0, items - size + 1, size):
            yield epoch, order[start : start + size]
        epoch += 1


def view_pairs(corpus: Corpus, items: Sequence[int], drop: float, seed: int, epoch: int) -> list[tuple[str, str]]:
    """The two views of each item in an epoch; they depend only on seed, epoch and item."""
    return [two_views(corpus.texts[item], drop, np.random.default_rng([seed, epoch, item])) for item in items]


def two_views(text: str, drop: float, draw: Generator) -> tuple[str, str]:
    """Two texts of the same attributes, each shuffled and with a share `drop` of them left out.

    Attributes are separated by ";". int(attributes * drop) are left out of each view. The views differ if they
    can: a text of one attribute gives the same view twice.
    """
    attributes = [part for part in (part.strip() for part in text.split(";")) if part]
    if len(set(attributes)) < 2:
        return text, text
    kept = len(attributes) - int(len(attributes) * drop)

    def view() -> str:
        return "; ".join(attributes[number] for number in draw.permutation(len(attributes))[:kept])

    first = view()
    for _ in range(_ATTEMPTS):
        second = view()
        if second != first:
            return first, second
    # Two distinct attributes that came out alike every time: an order read backwards is another view.
    return first, "; ".join(reversed(first.split("; ")))


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
        """One update, numbered from 1, on the views of a batch; returns the loss.

        items: their numbers, for the NotFiniteError that is raised if loss or gradient is not finite.
        """
        settings = self.settings
        self.optimiser.zero_grad(set_to_none=True)
        size = settings.device_batch if settings.negatives == "micro-batch" else len(pairs)
        blocks = [pairs[start : start + size] for start in range(0, len(pairs), size)]
        losses = []
        for block in blocks:
            rows = self.model.tokenize([first for first, _ in block] + [second for _, second in block])
            self.tokens += sum(len(row) + self.model.thoughts + 1 for row in rows)
            losses.append(self._accumulate(rows, len(block) / len(pairs)))
        if not is_first() and self.temperature.grad is not None:
            # Every process has the temperature's whole gradient, and the sum over processes shall count one of them.
            self.temperature.grad.zero_()
        all_reduce_gradients(self.parameters)
        loss = update(
            self.optimiser,
            torch.stack(losses).sum(),
            f"step {number}",
            items,
            clip_norm=settings.clip_norm,
            learning_rate=settings.learning_rate * (1 - (number - 1) / settings.steps),
        )
        with torch.no_grad():
            self.temperature.clamp_(min=_COOLEST)
        return loss

    def _accumulate(self, rows: list[list[int]], share_of_loss: float) -> Tensor:
        """Adds the gradients of one block of pairs (first views, then second views); returns its share of the loss."""
        # Gradient caching (Gao et al., arXiv 2101.06983): the vectors of all groups first, then the backward pass of
        # each group with the gradient of its vectors. The graphs of as many groups as fit into memory are kept for
        # it; the others are computed again. What all prompts begin with is read once and differentiated once, at the
        # end. Several processes share the groups, and all compute the whole loss.
        model, device = self.model, self.model.device
        prefix = model.begin(rows) if self.settings.passes == 1 else None
        copy = None if prefix is None else prefix.detached_copy()
        size = min(self.micro_batch, math.ceil(len(rows) / world_size()))
        groups = share(in_turn([len(row) for row in rows], size))
        extra = model.thoughts + 1 - (0 if prefix is None else len(prefix.ids))
        sizes = [len(group) * (max(len(rows[row]) for row in group.tolist()) + extra) for group in groups]
        recomputed = len(groups) - graphs_that_fit(sizes, model.shape, str(device))

        vectors = torch.zeros(len(rows), model.width, device=device)
        graphs = {}
        for number, group in enumerate(groups):
            with torch.set_grad_enabled(number >= recomputed):
                part = self._embed(rows, group, copy)
            vectors[group.to(device)] = part.detach()
            if number >= recomputed:
                graphs[number] = part
        all_reduce([vectors])
        vectors.requires_grad_()
        loss = self._loss(vectors) * share_of_loss
        loss.backward()  # type: ignore[no-untyped-call]
        assert vectors.grad is not None

        # Always in one order, so that free memory does not decide the last bits of a sum.
        for number, group in enumerate(groups):
            part = graphs.pop(number) if number >= recomputed else self._embed(rows, group, copy)
            part.backward(vectors.grad[group.to(device)])  # type: ignore[no-untyped-call]
        if prefix is not None and copy is not None:
            prefix.backward(copy)
        return loss.detach()

    def _embed(self, rows: list[list[int]], group: Tensor, prefix: SharedPrefix | None) -> Tensor:
        self.model.mask_keys.rows = group
        tokens = self.model.tokens([rows[row] for row in group.tolist()])
        if self.settings.passes == 1:
            return self.model.embed(tokens, prefix, share=False)
        # Thoughts from a pass of their own, with dropout masks of its own.
        with torch.no_grad():
            first = self.model.prefix(tokens, share=False, part=FIRST_PASS)
        return self.model.complete(self.model.prefix(tokens, share=False), self.model.think(first))

    def _loss(self, vectors: Tensor) -> Tensor:
        half = len(vectors) // 2
        return self.settings.loss.loss(vectors[:half], vectors[half:], self.temperature)
