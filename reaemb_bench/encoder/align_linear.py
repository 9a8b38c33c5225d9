"""The cheapest way to put collaborative signal into text vectors, and so the control of every dearer one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional

from reaemb_bench.core.artifacts import Corpus, Vectors
from reaemb_bench.core.component import Component, Context, Foreseen, Progress, Randomness, Step
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.training import training, update
from reaemb_bench.data.cooccurrence import checked, draw_neighbour
from reaemb_bench.data.kinds import AnyCooccurrence
from reaemb_bench.encoder.reducers import Whitening


class AlignLinear(Step):
    """One linear map of whitened vectors that brings items together which users combine: the cheapest control.

    Vectors are whitened, and a square matrix, the identity at first, is trained by InfoNCE on cosines of an item and a
    neighbour, drawn by how often the two co-occur, with the neighbours of the batch as negatives. It reads no text and
    takes seconds. What a language model learns from the same pairs has to beat it.
    """

    randomness: ClassVar[Randomness] = "embedder"

    dimensions: int = Field(default=256, ge=1)
    """Directions that whitening keeps; at most the width of the vectors."""
    cooccurrence: AnyCooccurrence = "whole-history"  # type: ignore[assignment]
    """Which items are neighbours, and how much so."""
    steps: int = Field(default=300, ge=0)
    """Optimiser steps; 0 whitens and no more."""
    batch_size: int = Field(default=512, ge=2)
    """Pairs a step; at most as many as there are items with a neighbour."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Adam's learning rate at the first step; it falls linearly to 0."""
    temperature: float = Field(default=0.1, gt=0)
    """By which cosines are divided."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Of the difference between the matrix and the identity, as AdamW applies it."""

    def foresee(self, given: Mapping[type, Foreseen]) -> Foreseen:
        """As many directions as are kept of the vectors."""
        width = given[Vectors].width
        return Foreseen(width=None if width is None else min(self.dimensions, width))

    def run(self, corpus: Corpus, vectors: Vectors, context: Context) -> Vectors:
        """(items, width) -> (items, dimensions). Raises UserError if dimensions exceeds the width."""
        whitened = Whitening(dimensions=min(self.dimensions, vectors.width)).reduce(vectors)
        if not self.steps:
            return whitened
        table = torch.from_numpy(np.concatenate([np.array(block) for block in whitened.blocks()]))
        name = cast("Component", self.cooccurrence).use
        counts = checked(self.cooccurrence.counts(corpus.training, corpus.items), corpus.items, name)
        items = np.flatnonzero(np.diff(counts.indptr))
        if len(items) < 2:
            raise UserError("align-linear: fewer than two items have a neighbour; leave this step out")
        size = min(self.batch_size, len(items))
        change = torch.nn.Parameter(torch.zeros(table.shape[1], table.shape[1]))
        optimiser = torch.optim.AdamW([change], lr=self.learning_rate, weight_decay=self.weight_decay)

        def learn(step: int) -> dict[str, float]:
            draw = np.random.default_rng([context.seed, step])
            chosen = draw.choice(items, size, replace=False)
            others = [draw_neighbour(counts, item, draw) for item in chosen.tolist()]
            rows = table[np.concatenate([chosen, others])]
            first, second = functional.normalize(rows + rows @ change, dim=1).chunk(2)
            own = torch.arange(size)
            loss = functional.cross_entropy(first @ second.T / self.temperature, own)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            rate = self.learning_rate * (1 - (step - 1) / self.steps)
            return {"loss": update(optimiser, loss, f"step {step}", chosen, learning_rate=rate)}

        for step, values in training(self.steps, learn):
            context.report(Progress(step, self.steps, "steps", values))
        context.note({"trained_parameters": change.numel(), "tokens": 0})
        matrix = np.eye(len(change), dtype=np.float32) + change.detach().numpy()
        return whitened.mapped(lambda rows: rows @ matrix)
