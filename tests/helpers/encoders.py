"""A small corpus and the steps' surroundings, shared by the tests of encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from reaemb_bench.core.artifacts import Corpus, Encoder, Sequences
from reaemb_bench.core.component import Context, Progress
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
from reaemb_bench.encoder.shared_prefix import Tokens, coordinates
from reaemb_bench.encoder.thought_model import ThoughtModel

# Threads of a busy machine spend longer waiting for each other than on matrices this small.
torch.set_num_threads(1)

FIDELITY = Path(__file__).parents[1] / "fixtures" / "fidelity"

_COLOURS = ("red", "green", "blue", "black")
_KINDS = ("puzzle", "racing", "strategy", "sports", "music")


def corpus(items: int = 20) -> Corpus:
    """Items with attributes of different lengths."""
    texts = tuple(
        f"title is Game number {item}; category is {_KINDS[item % 5]}; colour is {_COLOURS[item % 4]}; "
        f"price is {item}.99; description is {'a long story about it ' * (item % 7)}end"
        for item in range(items)
    )
    return Corpus(
        name="hand-made",
        training=Sequences(np.arange(items, dtype=np.int32), np.array([0, items], dtype=np.int64)),
        item_keys=tuple(f"i{item:03}" for item in range(items)),
        user_keys=("u0",),
        instruction="The item has the following attributes:",
        texts=texts,
        titles=tuple(f"Game number {item}" for item in range(items)),
    )


def context(
    folder: Path, ticks: list[Progress] | None = None, facts: dict[str, Any] | None = None, **machine: Any
) -> Context:
    """A context whose facts, and ticks that measure or count, are kept in the given dictionary and list."""

    def report(tick: Progress) -> None:
        # What only names a phase has no values.
        if ticks is not None and tick.total:
            ticks.append(tick)

    folder.mkdir(parents=True, exist_ok=True)
    here = Machine(device="cpu", cache=folder / "cache", **machine)
    return Context(
        7,
        here,
        report,
        (lambda noted: None) if facts is None else facts.update,
        folder,
    )


def two_pass(model: ThoughtModel, tokens: Tokens) -> torch.Tensor:
    """Vectors (n, d) by two whole forward passes, as the method is written down: the reference for `embed`."""
    read = model.causal_lm.get_decoder()
    tail = [*[model.thought_id or 0] * model.thoughts, model.eos_id]
    ids = torch.cat([tokens.ids, tokens.ids.new_tensor(tail).expand(len(tokens.ids), -1)], dim=1)
    mask = torch.cat([tokens.mask, tokens.mask.new_ones(len(ids), len(tail))], dim=1)
    indices = (mask.cumsum(dim=1) - 1).clamp(min=0)
    length = tokens.ids.shape[1]
    embedded = model.causal_lm.get_input_embeddings()(ids)
    if model.reasoner is not None:
        with torch.no_grad():
            first = read(input_ids=ids, attention_mask=mask, position_ids=indices, use_cache=False)
        positions = coordinates(tokens.mask, tokens.indices, model.template.padding)
        thoughts = model.reasoner(first.last_hidden_state[:, :length].float(), tokens.mask, positions)
        embedded = torch.cat([embedded[:, :length], thoughts.to(embedded.dtype), embedded[:, -1:]], dim=1)
    second = read(inputs_embeds=embedded, attention_mask=mask, position_ids=indices, use_cache=False)
    return model.pooling.pool(second.last_hidden_state.float(), mask, model.thoughts)


def encoder(folder: Path, **settings: Any) -> Encoder:
    """A tiny encoder as the step `llm` makes it."""
    table = {"use": "llm", "backbone": {"use": "tiny", "vocabulary": 400}, **settings}
    encoder_of_step: Encoder = build("step", table).run(corpus(), context(folder))  # type: ignore[attr-defined]
    return encoder_of_step
