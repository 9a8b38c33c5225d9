"""NaN and infinity stop a step by name and spoil nothing; results that mean little carry a warning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from reaemb_bench.core.artifacts import Corpus, Encoder, Sequences, Vectors
from reaemb_bench.core.errors import NotFiniteError, gradient_norm
from reaemb_bench.core.execute import SAMPLE, vector_facts
from reaemb_bench.core.registry import build
from reaemb_bench.encoder.lrcl import ContrastiveLearner
from reaemb_bench.evaluation.ranking import count_above
from reaemb_bench.recommender.fit import TrainIds
from reaemb_bench.recommender.objectives import CrossEntropy
from reaemb_bench.rl.crrl import Learner
from reaemb_bench.rl.policies import Gaussian
from reaemb_bench.rl.rewards.softmax_likelihood import SoftmaxLikelihood
from tests.conftest import TOYS, Said
from tests.helpers.encoders import context, corpus, encoder
from tests.recommender.test_training import context as fitting_context
from tests.recommender.test_training import cyclic

Command = Callable[..., Said]
Patch = pytest.MonkeyPatch

LRCL = {"use": "contrast", "steps": 4, "batch_size": 10, "learning_rate": 1e-3}
CRRL = {"use": "reinforce", "steps": 4, "candidates": 4, "rollouts_per_step": 16, "warmup": 0, "learning_rate": 1e-3}


def without_gradient(value: Tensor) -> Tensor:
    """Adds zero to a number, so that it stays finite and its gradient does not."""
    return value + (value * 0).sqrt()


def from_call(number: int, plain: Callable[..., Tensor], change: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """The same function, with its results changed from the call `number` on."""
    calls: list[int] = []

    def changed(*given: Any, **more: Any) -> Tensor:
        calls.append(1)
        made = plain(*given, **more)
        return change(made) if len(calls) >= number else made

    return changed


def files(made: Encoder) -> dict[str, bytes]:
    return {str(file.relative_to(made.folder)): file.read_bytes() for file in made.folder.rglob("*.safetensors")}


def couples() -> Corpus:
    """Ten users who each buy two neighbouring items."""
    return replace(corpus(), training=Sequences(np.arange(20, dtype=np.int32), np.arange(0, 21, 2, dtype=np.int64)))


def test_a_gradient_of_lrcl_that_is_not_finite_leaves_the_checkpoint_to_go_on_from(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("reaemb_bench.core.training.SECONDS", 0.0)
    made = encoder(tmp_path / "llm")
    whole = build("step", LRCL).run(corpus(), made, context(tmp_path / "whole"))  # type: ignore[attr-defined]
    with (
        monkeypatch.context() as broken,
        pytest.raises(NotFiniteError, match=r"gradient norm is nan in step 3 \(items"),
    ):
        broken.setattr(ContrastiveLearner, "_loss", from_call(3, ContrastiveLearner._loss, without_gradient))
        build("step", LRCL).run(corpus(), made, context(tmp_path / "broken"))  # type: ignore[attr-defined]
    assert [file.name[:19] for file in sorted((tmp_path / "broken").glob("checkpoint-*"))] == [
        "checkpoint-00000001",
        "checkpoint-00000002",
    ]
    ticks: list[Any] = []
    again = build("step", LRCL).run(corpus(), made, context(tmp_path / "broken", ticks))  # type: ignore[attr-defined]
    assert len(ticks) == 4
    assert files(again) == files(whole)


def test_weights_that_are_not_finite_reach_neither_checkpoint_nor_result(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr("reaemb_bench.core.training.SECONDS", 0.0)

    def overshoot(self: torch.optim.AdamW) -> None:
        self.param_groups[0]["params"][0].data[0] = torch.inf

    made = encoder(tmp_path / "llm")
    monkeypatch.setattr(torch.optim.AdamW, "step", overshoot)
    with pytest.raises(NotFiniteError, match="a trained parameter is not finite in step 1; lower its learning_rate"):
        build("step", {**LRCL, "steps": 1}).run(corpus(), made, context(tmp_path / "run"))  # type: ignore[attr-defined]
    assert not list((tmp_path / "run").glob("*checkpoint*")) and not (tmp_path / "run" / "encoder").exists()


@pytest.mark.parametrize(
    ("owner", "name", "message"),
    [
        (SoftmaxLikelihood, "reward", r"the reward is not finite in step 2 \(item \d+\)"),
        (Gaussian, "loss", r"the gradient norm is nan in step 2 \(items \d+, \d+\)"),
    ],
)
def test_rewards_and_gradients_of_crrl_that_are_not_finite_leave_the_checkpoint(
    owner: type, name: str, message: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    def spoilt(computed: Any) -> Any:
        if name == "loss":
            return replace(computed, value=without_gradient(computed.value))
        computed[1] = torch.nan
        return computed

    monkeypatch.setattr("reaemb_bench.core.training.SECONDS", 0.0)
    made, step = encoder(tmp_path / "llm"), build("step", CRRL)
    # The first step asks once more, for the gradient of half a batch.
    calls = 1 + (step.iterations + 1 if name == "loss" else 1)  # type: ignore[attr-defined]
    whole = step.run(couples(), made, context(tmp_path / "whole"))  # type: ignore[attr-defined]
    with monkeypatch.context() as broken, pytest.raises(NotFiniteError, match=message):
        broken.setattr(owner, name, from_call(calls, getattr(owner, name), spoilt))
        step.run(couples(), made, context(tmp_path / "broken"))  # type: ignore[attr-defined]
    assert [file.name[:19] for file in (tmp_path / "broken").glob("checkpoint-*")] == ["checkpoint-00000001"]
    again = step.run(couples(), made, context(tmp_path / "broken"))  # type: ignore[attr-defined]
    assert files(again) == files(whole)


def test_the_share_of_groups_without_signal_is_noted(tmp_path: Path, monkeypatch: Patch) -> None:
    facts: dict[str, Any] = {}
    monkeypatch.setattr(Learner, "noise", lambda self, groups, generator: torch.zeros(groups, 8, 1, self.model.width))
    build("step", CRRL).run(couples(), encoder(tmp_path / "llm"), context(tmp_path / "run", facts=facts))  # type: ignore[attr-defined]
    assert facts["dead_groups"] > 0.5


@pytest.mark.parametrize(
    ("change", "what"), [(without_gradient, "gradient norm is nan"), (lambda value: value * np.inf, "loss is inf")]
)
def test_recommenders_that_diverge_name_step_and_users(
    change: Callable[[Tensor], Tensor], what: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    data, validation_targets = cyclic(10)
    monkeypatch.setattr(CrossEntropy, "loss", from_call(2, CrossEntropy.loss, change))
    step = TrainIds.model_validate({"head": {"use": "sasrec", "hidden": 8}, "batch_size": 5})
    with pytest.raises(NotFiniteError, match=rf"the {what} in step 2 \(epoch 1\) \(users \d, \d, \d and 2 more\)"):
        step.run(data, validation_targets, fitting_context(tmp_path))


def test_scores_that_are_not_finite_name_their_items() -> None:
    scores = np.zeros((2, 5), dtype=np.float32)
    scores[:, 3] = np.nan
    with pytest.raises(NotFiniteError, match=r"2 of 10 scores .* \(item 3\)"):
        count_above(scores, scores[:, 0])


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=9), st.sampled_from([None, 0.5, 1e9]))
def test_a_gradient_is_measured_before_it_is_clipped(values: list[float], largest: float | None) -> None:
    parameter = torch.nn.Parameter(torch.zeros(len(values)))
    parameter.grad = torch.tensor(values)
    norm = gradient_norm([parameter], largest).item()
    assert norm == pytest.approx(float(np.linalg.norm(values)), rel=1e-5, abs=1e-6)
    kept = torch.equal(parameter.grad, torch.tensor(values))
    assert kept if largest is None else kept or parameter.grad.norm() <= largest * 1.001


def test_facts_tell_a_cloud_a_line_and_a_point_apart() -> None:
    draw = np.random.default_rng(0)
    cloud = vector_facts(Vectors(np.concatenate([np.eye(8), -np.eye(8)]).astype(np.float32)))
    assert cloud["effective_dimensions"] == pytest.approx(8)
    assert cloud["mean_cosine"] == pytest.approx(-1 / 15)
    line = vector_facts(Vectors((5 + np.outer(draw.normal(size=50), np.ones(8))).astype(np.float32)))
    assert line["effective_dimensions"] == pytest.approx(1)
    point = vector_facts(Vectors(np.ones((50, 8), dtype=np.float32)))
    assert point == {"mean_cosine": pytest.approx(1), "effective_dimensions": 0, "width": 8}


def test_a_sample_is_measured_and_all_vectors_are_checked() -> None:
    rows = np.random.default_rng(0).normal(size=(2 * SAMPLE + 5, 4)).astype(np.float32)
    assert vector_facts(Vectors(rows[:100], rows[100:])) == vector_facts(Vectors(np.ascontiguousarray(rows[::3])))
    rows[SAMPLE + 1, 2] = np.inf
    with pytest.raises(NotFiniteError, match=rf"a vector is not finite \(item {SAMPLE + 1}\)"):
        vector_facts(Vectors(rows))


PLUGIN = """
import numpy as np
from reaemb_bench import Corpus, Vectors
from reaemb_bench import Step
from reaemb_bench import Context

class Embed(Step):
    how: str = "well"
    def run(self, corpus: Corpus, context: Context) -> Vectors:
        context.note({"dead_groups": 0.75 if self.how == "line" else 0.5})
        made = np.random.default_rng(0).normal(size=(corpus.items, 16)).astype(np.float32)
        if self.how == "line":
            made[:, 1:] = 7
        if self.how == "broken":
            made[[2, 5]] = np.nan
        return Vectors(made)
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A recipe of toy steps whose embedder can be well, spread along a line, or broken."""
    (tmp_path / "own.py").write_text(PLUGIN, encoding="utf-8")
    steps = {"prepare": f"{TOYS}:Prepare", "embed": "own.py:Embed", "train": f"{TOYS}:Fit", "rank": f"{TOYS}:Judge"}
    lines = [f"steps = {list(steps)}", *(f"[{name}]\nuse = '{use}'" for name, use in steps.items())]
    file = tmp_path / "own.toml"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_vectors_of_any_step_that_are_not_finite_name_step_and_ids(command: Command, own: Path, tmp_path: Path) -> None:
    said = command("run", own, "--set", "embed.how=broken")
    assert said.code == 2
    assert said.err.startswith("error: 2 vectors are not finite in embed (items i2, i5); ")
    assert said.err.count("\n") == 1
    assert len(list((tmp_path / ".reaemb-bench/store/results").iterdir())) == 1


def test_a_table_warns_of_collapsed_vectors_and_dead_rewards_and_of_nothing_else(command: Command, own: Path) -> None:
    assert "warning" not in command("run", own).out
    said = " ".join(command("run", own, "--set", "embed.how=line", "--set", "seeds=[1, 2]").out.split())
    # At once, and once for both seeds below the table.
    assert said.count("[2/4] embed: warning: the vectors of embed have nearly collapsed (mean cosine ") == 1
    assert said.count("warning: the vectors of embed have nearly collapsed (mean cosine ") == 2
    assert "1.0 effective dimensions of 16; limits 0.9999 and 2)" in said
    assert said.count("warning: 75 % of the groups of embed gave no signal") == 2
