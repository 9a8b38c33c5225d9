import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
from reaemb_bench.encoder.folder import open_encoder, read_parts, with_adapter
from reaemb_bench.encoder.lrcl import ContrastiveLearner, batches, two_views, view_pairs
from tests.helpers.encoders import context, corpus, encoder

CPU = Machine(device="cpu")


def draw(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(20))
def test_views_are_parts_of_the_text_and_differ(seed):
    text = corpus().texts[seed % 20]
    attributes = text.split("; ")
    first, second = two_views(text, 0.4, draw(seed))
    assert first != second
    for view in (first, second):
        parts = view.split("; ")
        assert len(parts) == 3 and len(set(parts)) == 3
        assert set(parts) <= set(attributes)


@pytest.mark.parametrize("text", ["", "title is X", "same; same; same", ";;"])
def test_texts_that_cannot_differ_end_at_once(text):
    first, second = two_views(text, 0.4, draw())
    assert first == second == text


def test_two_attributes_always_differ():
    assert all(len(set(two_views("a is 1; b is 2", 0.4, draw(seed)))) == 2 for seed in range(200))


def test_batches_visit_every_item_once_an_epoch():
    drawn = batches(10, 5, seed=3)
    epochs = [next(drawn) for _ in range(4)]
    assert [epoch for epoch, _ in epochs] == [0, 0, 1, 1]
    assert sorted(epochs[0][1] + epochs[1][1]) == list(range(10))
    assert epochs[0][1] != epochs[2][1]


def test_views_depend_on_the_epoch_not_on_the_batch():
    first = view_pairs(corpus(), [3, 5], 0.4, seed=1, epoch=0)
    assert view_pairs(corpus(), [5, 3], 0.4, seed=1, epoch=0) == first[::-1]
    assert view_pairs(corpus(), [3, 5], 0.4, seed=1, epoch=1) != first


def train(folder, made, micro_batch=None, facts=None, **settings):
    ticks = []
    table = {"use": "contrast", "steps": 4, "batch_size": 10, "learning_rate": 5e-3, **settings}
    trained = build("step", table).run(corpus(), made, context(folder, ticks, facts, micro_batch=micro_batch))
    return trained, [tick.values["loss"] for tick in ticks]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{}, {"passes": 2}, {"negatives": "micro-batch", "device_batch": 4}, {"loss": "info-nce"}],
    ids=["default", "two passes", "paper's negatives", "info-nce"],
)
def test_the_micro_batch_does_not_change_the_loss_curve(tmp_path, settings):
    made = encoder(tmp_path / "llm")
    settings = {"learning_rate": 2e-3, "lora_dropout": 0.3, **settings}
    curves = [train(tmp_path / str(size), made, size, **settings)[1] for size in (1, 7, 64)]
    np.testing.assert_allclose(curves[0], curves[2], rtol=1e-5)
    np.testing.assert_allclose(curves[1], curves[2], rtol=1e-5)
    assert curves[0][0] != curves[0][-1]
    other = train(tmp_path / "other", made, 64, **{**settings, "lora_dropout": 0.2})[1]
    assert abs(other[-1] - curves[2][-1]) > 3e-5 * abs(other[-1])


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"passes": 2}], ids=["default", "two passes"])
def test_memory_for_graphs_changes_no_bit(tmp_path, monkeypatch, settings):
    made = encoder(tmp_path / "llm")
    runs = []
    for kept in (1, 3, 100):
        monkeypatch.setattr("reaemb_bench.encoder.lrcl.graphs_that_fit", lambda *_, kept=kept: kept)
        runs.append(train(tmp_path / str(kept), made, 3, lora_dropout=0.1, **settings))
    assert runs[0][1] == runs[1][1] == runs[2][1]
    assert same_files(runs[0][0], runs[1][0]) and same_files(runs[0][0], runs[2][0])


def test_dropout_masks_are_the_same_in_both_forwards(tmp_path, monkeypatch):
    monkeypatch.setattr("reaemb_bench.encoder.lrcl.graphs_that_fit", lambda sizes, shape, device: 1)
    model = open_encoder(encoder(tmp_path), CPU)
    learner = ContrastiveLearner(build("step", "contrast"), model, micro_batch=2)
    for name, weight in model.causal_lm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    model.train()
    seen = []
    plain = learner._embed

    def watched(rows, group, beginning):
        vectors = plain(rows, group, beginning)
        seen.append(vectors.detach().clone())
        return vectors

    learner._embed = watched
    learner.step(1, view_pairs(corpus(), range(4), 0.4, 0, 0))
    assert len(seen) == 7
    for first, second in zip(seen[:3], seen[4:], strict=True):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_training_moves_everything_it_should_and_nothing_else(tmp_path):
    made = encoder(tmp_path / "llm")
    facts = {}
    trained, losses = train(tmp_path / "lrcl", made, facts=facts, steps=30)
    assert losses[-1] < losses[0]
    parts = read_parts(trained)
    assert parts.adapters == ("adapter",) and parts.temperature != 1.0
    before, after = open_encoder(made, CPU), open_encoder(trained, CPU)
    assert not torch.equal(before.reasoner.query.weight, after.reasoner.query.weight)
    assert torch.equal(before.causal_lm.get_input_embeddings().weight, after.causal_lm.get_input_embeddings().weight)
    assert not torch.equal(_projection(before).weight, _projection(after).weight)
    assert facts["trained_parameters"] > 1000 and facts["tokens"] > 1000


def _projection(model):
    return model.causal_lm.get_decoder().layers[0].self_attn.q_proj


def test_a_merged_adapter_gives_the_same_vectors(tmp_path):
    trained, _ = train(tmp_path / "lrcl", encoder(tmp_path / "llm"))
    merged, beside = open_encoder(trained, CPU), open_encoder(trained, CPU, merge=False)
    tokens = merged.tokens(merged.tokenize(corpus().texts[:4]))
    torch.testing.assert_close(merged.embed(tokens), beside.embed(tokens), atol=2e-5, rtol=1e-5)
    assert not any(parameter.requires_grad for parameter in beside.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("stages", [1, 2])
def test_in_half_precision_an_opened_encoder_is_the_one_that_was_trained(tmp_path, stages):
    half = Machine(device="cpu", precision="bfloat16")
    made = encoder(tmp_path / "llm")
    for stage in range(stages):
        model = open_encoder(made, half)
        learner = ContrastiveLearner(build("step", {"use": "contrast", "steps": 8, "learning_rate": 5e-3}), model, 8)
        model.train()
        for number in range(1, 9):
            learner.step(number, view_pairs(corpus(), range(8), 0.4, number, 0))
        made = with_adapter(made, tmp_path / f"lrcl-{stage}", model, learner.adapter, 1.0)
    tokens = model.tokens(model.tokenize(corpus().texts))
    trained = model.eval().requires_grad_(False).embed(tokens)
    assert torch.equal(open_encoder(made, half).embed(tokens), trained)
    # Merging rounds the adapter to the weights' precision.
    assert not torch.equal(open_encoder(made, half, merge=True).embed(tokens), trained)


@pytest.mark.slow
def test_a_second_training_goes_on_from_the_first(tmp_path):
    once, _ = train(tmp_path / "once", encoder(tmp_path / "llm"), steps=3)
    twice, _ = train(tmp_path / "twice", once, steps=3)
    assert read_parts(twice).adapters == ("adapter", "adapter-2")
    assert not torch.equal(_projection(open_encoder(once, CPU)).weight, _projection(open_encoder(twice, CPU)).weight)


@pytest.mark.slow
def test_equal_seeds_give_equal_bits(tmp_path):
    def run(folder):
        trained, losses = train(folder / "lrcl", encoder(folder / "llm"), micro_batch=8)
        return losses, build("step", "encode").run(corpus(), trained, context(folder / "encode")).values

    first, second = run(tmp_path / "a"), run(tmp_path / "b")
    assert first[0] == second[0]
    assert np.array_equal(first[1], second[1])


def test_no_steps_leave_the_encoder_as_it_is(tmp_path):
    made = encoder(tmp_path / "llm")
    assert train(tmp_path / "lrcl", made, steps=0)[0] == made


def test_a_loss_that_is_not_finite_names_its_step(tmp_path):
    with pytest.raises(UserError, match="in step 2"):
        train(tmp_path / "lrcl", encoder(tmp_path / "llm"), learning_rate=1e30, clip_norm=None)


def test_unknown_lora_targets_are_explained(tmp_path):
    with pytest.raises(UserError, match="lora_targets"):
        train(tmp_path / "lrcl", encoder(tmp_path / "llm"), lora_targets=["nothing"])


def test_an_encoder_without_thoughts_can_be_trained(tmp_path):
    trained, losses = train(tmp_path / "lrcl", encoder(tmp_path / "llm", reasoner="none"), loss="soft-target-detached")
    assert np.isfinite(losses).all()
    assert open_encoder(trained, CPU).reasoner is None


def test_half_precision_trains(tmp_path):
    made = encoder(tmp_path / "llm")
    ticks = []
    step = build("step", {"use": "contrast", "steps": 3, "batch_size": 4})
    step.run(corpus(), made, context(tmp_path / "lrcl", ticks, precision="bfloat16", micro_batch=3))
    assert np.isfinite([tick.values["loss"] for tick in ticks]).all()


SETTINGS = {"use": "contrast", "steps": 4, "batch_size": 10, "learning_rate": 5e-3}


def same_files(one, two):
    names = ("reasoner.safetensors", "adapter/adapter_model.safetensors", "encoder.json")
    return all((one.folder / name).read_bytes() == (two.folder / name).read_bytes() for name in names)


def interrupted(folder, made, step):
    """Train into `folder` until an interruption in `step`, then give the checkpoints, oldest first."""

    class Stop(list):
        def append(self, tick):
            if tick.done == step:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build("step", SETTINGS).run(corpus(), made, context(folder, Stop()))
    return sorted(folder.glob("checkpoint-*"))


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 3])
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path, monkeypatch, step):
    monkeypatch.setattr("reaemb_bench.core.training.SECONDS", 0.0)
    made, facts, facts_again = encoder(tmp_path / "llm"), {}, {}
    whole, losses = train(tmp_path / "whole", made, facts=facts)
    interrupted(tmp_path / "broken", made, step)
    resumed, again = train(tmp_path / "broken", made, facts=facts_again)
    assert (again, facts_again) == (losses, facts)
    assert same_files(whole, resumed)


def cut(file):
    file.write_bytes(file.read_bytes()[:-100])


def flip(file):
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [cut, flip])
@pytest.mark.parametrize("damaged", [1, 2])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, monkeypatch, damage, damaged):
    monkeypatch.setattr("reaemb_bench.core.training.SECONDS", 0.0)
    made = encoder(tmp_path / "llm")
    whole, losses = train(tmp_path / "whole", made)
    kept = interrupted(tmp_path / "broken", made, 3)
    assert [file.name.split("-")[1] for file in kept] == ["00000002", "00000003"]
    for file in kept[-damaged:]:
        damage(file)
    steps = []
    plain = ContrastiveLearner.step
    monkeypatch.setattr(
        ContrastiveLearner, "step", lambda self, number, *more: steps.append(number) or plain(self, number, *more)
    )
    resumed, again = train(tmp_path / "broken", made)
    assert steps == ([3, 4] if damaged == 1 else [1, 2, 3, 4])
    assert again == losses
    assert same_files(whole, resumed)


KILLED = """
import os, sys
from pathlib import Path
from reaemb_bench import Encoder
from reaemb_bench.core import training as checkpoint
from reaemb_bench.core.registry import build
from tests.helpers.encoders import context, corpus

class Kill(list):
    def append(self, tick):
        if tick.done == 3:
            os.kill(os.getpid(), 9)

checkpoint.SECONDS = 0.0
build("step", {settings}).run(corpus(), Encoder(Path(sys.argv[1])), context(Path(sys.argv[2]), Kill()))
"""


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_bits(tmp_path):
    made = encoder(tmp_path / "llm")
    whole, losses = train(tmp_path / "whole", made)
    words = [sys.executable, "-c", KILLED.format(settings=SETTINGS), str(made.folder), str(tmp_path / "broken")]
    ended = subprocess.run(words, cwd=Path(__file__).parents[2], check=False)
    assert ended.returncode == -signal.SIGKILL
    resumed, again = train(tmp_path / "broken", made)
    assert again == losses
    assert same_files(whole, resumed)
