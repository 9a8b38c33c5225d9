"""Contrastive training of a thought model: LoRA, batches of view pairs, gradient caching."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from reaemb_bench.artifacts import Corpus
from reaemb_bench.distributed import add_up, add_up_gradients, count, is_first, rank, share
from reaemb_bench.encoding.backbone import quiet
from reaemb_bench.encoding.batching import graphs_that_fit, in_turn
from reaemb_bench.encoding.model import ThoughtModel
from reaemb_bench.encoding.prefix import Beginning, Tokens
from reaemb_bench.encoding.views import two_views
from reaemb_bench.errors import UserError
from reaemb_bench.finite import check_finite, gradient_norm

if TYPE_CHECKING:
    from reaemb_bench.steps.contrast import Contrast
    from reaemb_bench.steps.tune import LoraSettings

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
        add_up_gradients(self.parameters)
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
        apart = None if beginning is None else beginning.apart()
        size = min(self.micro_batch, math.ceil(len(rows) / count()))
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
        add_up([vectors])
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

    def _graphs(self, rows: list[list[int]], groups: Sequence[Tensor], beginning: Beginning | None) -> int:
        """Of how many of the last groups the graphs fit into memory."""
        common = 0 if beginning is None else len(beginning.ids)
        extra = self.model.thoughts + 1 - common
        sizes = [len(group) * (max(len(rows[place]) for place in group.tolist()) + extra) for group in groups]
        return graphs_that_fit(sizes, self.model.shape, str(self.model.device))

    def _embed(self, rows: list[list[int]], group: Tensor, beginning: Beginning | None) -> Tensor:
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


def step_seed(seed: int, number: int) -> int:
    """Seed of torch's generators in one step of a training, in [0, 2**32); each process has one of its own."""
    own = [rank()] if rank() else []
    return int(np.random.SeedSequence([seed, number, *own]).generate_state(1)[0])


def add_lora(model: ThoughtModel, settings: LoraSettings) -> Any:
    """Put fresh LoRA adapters into the model's blocks, in place; gives the peft model that can save them."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.lora_targets),
    )
    try:
        with quiet():
            return get_peft_model(model.causal_lm, config)
    except ValueError as error:
        raise UserError(f"lora_targets: {error}".splitlines()[0]) from None


def _embed_twice(model: ThoughtModel, tokens: Tokens) -> Tensor:
    """Vectors (n, d) whose thoughts come from a pass of their own, with dropout masks of its own."""
    with torch.no_grad():
        first = model.prefix(tokens, share=False)
    return model.complete(model.prefix(tokens, share=False), model.think(first))


def _pass_on(apart: Beginning, beginning: Beginning) -> None:
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
