"""What the language model takes of memory: told from its sizes, near what is measured, and obeyed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import load
from reaemb_bench.core.registry import build
from reaemb_bench.core.store import Store
from reaemb_bench.encoder import memory as batching
from reaemb_bench.encoder.backbones.shape import shape_of
from reaemb_bench.encoder.folder import open_encoder
from reaemb_bench.encoder.lora import add_lora
from reaemb_bench.encoder.lrcl import Contrast
from reaemb_bench.encoder.memory import free_memory
from reaemb_bench.experiments.memory import memory_lines
from tests.helpers.encoders import corpus, encoder

CPU = Machine(device="cpu", precision="float32")


def test_the_estimates_lie_near_what_a_model_really_holds(tmp_path: Path) -> None:
    made = encoder(tmp_path)
    model = open_encoder(made, CPU)
    shape = model.shape
    weights = sum(weight.nbytes for weight in model.causal_lm.parameters())
    assert shape.weights == pytest.approx(weights, rel=0.05)
    add_lora(model, Contrast())
    model.train()
    known = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    held: dict[int, Tensor] = {}

    def hold(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens = model.tokens(model.tokenize(corpus().texts[:8]))
    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        prefix = model.prefix(tokens, share=False)
    graph = sum(tensor.untyped_storage().nbytes() for place, tensor in held.items() if place not in known)
    assert 0.7 < shape.learnt_token * tokens.ids.numel() / graph < 2
    kept = prefix.states.nbytes + sum(part.nbytes for block in prefix.cache for part in block)
    assert shape.cached_token * tokens.ids.numel() == kept


def test_a_planned_shape_is_that_of_the_model(tmp_path: Path) -> None:
    made = encoder(tmp_path)
    whole = open_encoder(made, CPU).shape
    # The thought token is added when the model is loaded.
    shape = replace(whole, vocabulary=whole.vocabulary - 1)
    folder = str(made.folder / "backbone")
    assert shape_of(build("backbone", {"use": "causal-lm", "model": folder}), 4) == shape
    assert shape_of(build("backbone", {"use": "causal-lm", "model": "somebody/elsewhere"}), 4) is None
    tiny = shape_of(build("backbone", {"use": "tiny", "vocabulary": shape.vocabulary}), 4)
    assert tiny == shape


def test_micro_batches_are_halved_until_they_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shape = open_encoder(encoder(tmp_path), CPU).shape
    prompt = 100 * shape.read_token
    for room, size in ((1000 * prompt, 64), (2 * 31 * prompt, 16), (2 * 5 * prompt, 4), (prompt, 1), (0, 64)):
        monkeypatch.setattr(batching, "free_memory", lambda device, room=room: room)
        assert batching.micro_batch(CPU, shape, 100, learns=False) == size
    assert batching.micro_batch(CPU.model_copy(update={"micro_batch": 50}), shape, 100, learns=False) == 50
    graph = shape.learnt_token
    monkeypatch.setattr(batching, "free_memory", lambda device: 2 * 30 * graph)
    assert batching.graphs_that_fit([10, 10, 10, 10], shape, "cpu") == 3
    assert batching.graphs_that_fit([10, 100], shape, "cpu") == 1


def test_free_memory_is_memory_lines() -> None:
    assert free_memory("cpu") > 1e6


def test_plan_tells_what_the_language_model_takes(tmp_path: Path) -> None:
    planned = plan(load("quickstart"), 42)
    lines = memory_lines(planned, Store(tmp_path), CPU)
    steps = [job.name for job in planned.jobs if job.step.use in ("contrast", "reinforce", "encode")]
    assert [line.split(":")[0].strip() for line in lines[1:]] == steps
    assert all("prompts at once" in line for line in lines[1:])
    assert "unknown until the data are prepared" in lines[-1]
