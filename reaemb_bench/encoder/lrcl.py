"""LRCL, the method's first stage: latent reasoning-enhanced contrastive learning (arXiv 2606.16703, Stage I).

A step draws two views of each item, embeds all of them, takes the contrastive loss over the whole batch and updates
LoRA, the reasoner and the temperature. Shapes: n prompts, d hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import ClassVar, Literal, cast

import numpy as np
import torch
from numpy.random import Generator
from pydantic import Field
from torch import Tensor, nn

from reaemb_bench.core.artifacts import Corpus, Encoder
from reaemb_bench.core.component import Component, Context, Foreseen, Progress
from reaemb_bench.core.distributed import all_reduce, all_reduce_gradients, broadcast, is_first, share, world_size
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.training import Checkpoints, training, update
from reaemb_bench.data.cooccurrence import checked, draw_neighbour
from reaemb_bench.data.kinds import AnyCooccurrence
from reaemb_bench.encoder.dropout import FIRST_PASS, enable_dropout
from reaemb_bench.encoder.embed import Movement
from reaemb_bench.encoder.finetune import seeded
from reaemb_bench.encoder.folder import open_encoder, with_adapter, with_reasoner
from reaemb_bench.encoder.kinds import AnyLoss
from reaemb_bench.encoder.lora import LoraSettings, add_lora, step_seed
from reaemb_bench.encoder.memory import graphs_that_fit, in_turn, micro_batch
from reaemb_bench.encoder.shared_prefix import SharedPrefix
from reaemb_bench.encoder.thought_model import ThoughtModel

_NO_THOUGHT = "\"thought\" trains the latent thought, and the encoder has none (llm.reasoner is 'none')"
_ATTEMPTS = 16
"""Draws of a second view before the first one is reversed instead."""
_LONG_TEXTS = 16
"""Texts that are tokenised to know how much memory a prompt takes."""
_COOLEST = 1e-3
"""Lowest temperature."""


class Contrast(LoraSettings):
    """Train LoRA, the reasoner and a temperature so that two views of an item's attributes meet.

    Source: arXiv 2606.16703, Stage I. The defaults repair the authors' code: views drawn anew in every epoch,
    negatives from the whole batch, not from the machine's micro-batch, a temperature that can move. `views = "once"`,
    `negatives = "micro-batch"`, `passes = 2` and `temperature_scale = "linear"` are theirs.

    With `views = "neighbours"` the two texts are those of an item and of one that users combine with it: plain
    supervision by the pairs that CRRL's reward reads, and therefore what CRRL has to beat.
    """

    distributed: ClassVar[bool] = True
    version: ClassVar[int] = 4

    loss: AnyLoss = "soft-target"  # type: ignore[assignment]
    """The contrastive loss."""
    batch_size: int = Field(default=512, ge=2)
    """Pairs of views a step; at most as many as there are items."""
    views: Literal["every-epoch", "once", "same", "neighbours"] = "every-epoch"
    """When the two views of an item are drawn; `same` takes the whole text twice, so that only LoRA's dropout
    tells the two apart (unsupervised SimCSE, arXiv 2104.08821); `neighbours` takes the whole texts of an item and of
    a neighbour, drawn anew in every step by how often the two co-occur."""
    cooccurrence: AnyCooccurrence = "whole-history"  # type: ignore[assignment]
    """Which items are neighbours, if views = "neighbours"."""
    trained: Literal["all", "thought"] = "all"
    """What learns: LoRA and the reasoner, or the reasoner alone as in CRRL."""
    drop: float = Field(default=0.4, ge=0, lt=1)
    """Share of an item's attributes that each view leaves out."""
    negatives: Literal["batch", "micro-batch"] = "batch"
    """Where the negatives of a pair come from: all pairs of the step, or those of its block of `device_batch`."""
    device_batch: int = Field(default=64, ge=2)
    """Pairs a block if negatives = "micro-batch": what one of the authors' GPUs held."""
    passes: Literal[1, 2] = 1
    """1 reads the prompt once and continues from its cache; 2 reads it twice, with two masks of LoRA dropout."""
    temperature_scale: Literal["log", "linear"] = "log"
    """Whether the temperature's logarithm is trained or the temperature itself, which hardly moves in a short run."""
    temperature_learning_rate: float | None = Field(default=1e-2, gt=0)
    """AdamW's learning rate for the temperature at the first step; None takes that of the weights."""
    padding: Literal["left", "right"] | None = None
    """Padding side in this stage, for `latent-thought-paper`; None takes the encoder's."""

    def foresee(self, given: Mapping[type, Foreseen]) -> Foreseen:
        """The same width and thoughts as before. Raises RecipeError if there is no thought to train."""
        if self.trained == "thought" and self.steps and given[Encoder].thoughts == 0:
            raise RecipeError(f'{_NO_THOUGHT}; say "all", or leave this step out', ("trained",))
        return given[Encoder]

    def run(self, corpus: Corpus, encoder: Encoder, context: Context) -> Encoder:
        """The encoder with one more adapter, a trained reasoner and the temperature it arrived at."""
        if not self.steps:
            return encoder
        with seeded(context):
            return self._train(corpus, encoder, context)

    def _train(self, corpus: Corpus, encoder: Encoder, context: Context) -> Encoder:
        context.phase("loading the model")
        model = open_encoder(encoder, context.machine)
        model.template = replace(model.template, padding=self.padding or model.template.padding)
        # The texts of most characters are hardly ever far from those of most tokens.
        longest = max(map(len, model.tokenize(sorted(corpus.texts, key=len)[-_LONG_TEXTS:])))
        at_once = micro_batch(context.machine, model.shape, longest + model.thoughts + 1, learns=True)
        movement = Movement(model, corpus.texts, context)
        # Hosts may differ in free memory, but all processes must share the same groups.
        learner = ContrastiveLearner(self, model, broadcast(at_once)[0])
        enable_dropout(model)
        checkpoints = Checkpoints(context.scratch, learner.optimiser, shared=True)
        learner.tokens = int(checkpoints.curve[-1]["tokens"]) if checkpoints.curve else 0
        usable = np.arange(corpus.items)
        if self.views == "neighbours":
            name = cast("Component", self.cooccurrence).use
            counts = checked(self.cooccurrence.counts(corpus.training, corpus.items), corpus.items, name)
            usable = np.flatnonzero(np.diff(counts.indptr))
            if len(usable) < 2:
                raise UserError('contrast: fewer than two items have a neighbour; say views = "every-epoch"')
        size = min(self.batch_size, len(usable))
        drawn = islice(batches(len(usable), size, context.seed), len(checkpoints.curve), None)

        def learn(step: int) -> dict[str, float]:
            epoch, numbers = next(drawn)
            items = usable[numbers].tolist()
            if self.views == "neighbours":
                draw = np.random.default_rng([context.seed, 1, step])
                others = [draw_neighbour(counts, item, draw) for item in items]
                pairs = [(corpus.texts[item], corpus.texts[other]) for item, other in zip(items, others, strict=True)]
            elif self.views == "same":
                pairs = [(corpus.texts[item], corpus.texts[item]) for item in items]
            else:
                pairs = view_pairs(corpus, items, self.drop, context.seed, 0 if self.views == "once" else epoch)
            model.mask_keys.step = step_seed(context.seed, step)
            loss = learner.step(step, pairs, items)
            own_first = {} if learner.own_first is None else {"own_first": learner.own_first}
            return {"loss": loss, "temperature": learner.temperature.item(), **own_first, "tokens": learner.tokens}

        def note_health(when: str, steps: int) -> None:
            # A single step says little: the health of a stage is read over a quarter of its steps.
            curve = checkpoints.curve[:steps][-max(1, self.steps // 4) :]
            for name in ("loss", "own_first"):
                last = [values[name] for values in curve if name in values]
                context.note({f"{when}_{name}": sum(last) / len(last)} if last else {})

        context.note({"chance_loss": math.log(size)})
        for step, values in training(self.steps, learn, checkpoints):
            context.report(Progress(step, self.steps, "steps", {k: v for k, v in values.items() if k != "tokens"}))
            if step == self.steps // 2:
                note_health("halfway", step)
        model.eval()
        moved = movement.share()
        if not is_first():
            return encoder
        trained = sum(parameter.numel() for parameter in learner.parameters)
        facts = {"trained_parameters": trained, "tokens": learner.tokens, "pairs_per_step": size}
        context.note({**facts, "micro_batch": learner.micro_batch, "moved": moved})
        # Again, for a run that was interrupted after it.
        note_health("halfway", self.steps // 2)
        note_health("final", self.steps)
        folder, temperature = context.scratch / "encoder", learner.temperature.item()
        if learner.adapter is None:
            return with_reasoner(encoder, folder, {} if model.reasoner is None else model.reasoner.state_dict())
        return with_adapter(encoder, folder, model, learner.adapter, temperature)


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
        self.adapter = add_lora(model, settings) if settings.trained == "all" else None
        if settings.trained == "thought" and model.reasoner is None:
            raise UserError(f'{_NO_THOUGHT}; say "all"')
        if model.reasoner is not None:
            model.reasoner.requires_grad_(True)
        start = torch.tensor(settings.loss.initial_temperature, dtype=torch.float32, device=model.device)
        self._temperature = nn.Parameter(start.log() if settings.temperature_scale == "log" else start)
        weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.parameters = [*weights, self._temperature]
        rates = (settings.learning_rate, settings.temperature_learning_rate or settings.learning_rate)
        self.optimiser = torch.optim.AdamW(
            [{"params": weights, "lr": rates[0]}, {"params": [self._temperature], "lr": rates[1], "weight_decay": 0.0}],
            weight_decay=settings.weight_decay,
        )
        self.rates = rates
        self.tokens = 0
        self.own_first: float | None = None
        """Share of the last step's rows whose target's largest entry is the item itself; None if a loss has none."""

    @property
    def temperature(self) -> Tensor:
        """The temperature, a scalar tensor with gradient."""
        return self._temperature.exp() if self.settings.temperature_scale == "log" else self._temperature

    def step(self, number: int, pairs: Sequence[tuple[str, str]], items: Sequence[int] = ()) -> float:
        """One update, numbered from 1, on the views of a batch; returns the loss.

        items: their numbers, for the NotFiniteError that is raised if loss or gradient is not finite.
        """
        settings = self.settings
        self.optimiser.zero_grad(set_to_none=True)
        size = settings.device_batch if settings.negatives == "micro-batch" else len(pairs)
        blocks = [pairs[start : start + size] for start in range(0, len(pairs), size)]
        losses, self._first = [], list[Tensor]()
        for block in blocks:
            rows = self.model.tokenize([first for first, _ in block] + [second for _, second in block])
            self.tokens += sum(len(row) + self.model.thoughts + 1 for row in rows)
            losses.append(self._accumulate(rows, len(block) / len(pairs)))
        if not is_first() and self._temperature.grad is not None:
            # Every process has the temperature's whole gradient, and the sum over processes shall count one of them.
            self._temperature.grad.zero_()
        all_reduce_gradients(self.parameters)
        loss = update(
            self.optimiser,
            torch.stack(losses).sum(),
            f"step {number}",
            items,
            clip_norm=settings.clip_norm,
            learning_rate=[rate * (1 - (number - 1) / settings.steps) for rate in self.rates],
        )
        with torch.no_grad():
            coolest = math.log(_COOLEST) if settings.temperature_scale == "log" else _COOLEST
            self._temperature.clamp_(min=coolest)
        self.own_first = float(torch.cat(self._first).float().mean()) if self._first else None
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
        first, second = vectors.chunk(2)
        targets = getattr(self.settings.loss, "targets", None)
        if targets is not None:
            with torch.no_grad():
                largest = targets(first, second, self.temperature).argmax(dim=1)
            self._first.append(largest == torch.arange(len(first), device=largest.device))
        return self.settings.loss.loss(first, second, self.temperature)
