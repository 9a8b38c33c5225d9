import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from reaemb_bench.core.artifacts import Encoder
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
from reaemb_bench.encoder.folder import open_encoder, with_reasoner
from reaemb_bench.encoder.language_model import Loaded
from reaemb_bench.encoder.shared_prefix import Tokens
from reaemb_bench.encoder.template import Template
from reaemb_bench.encoder.thought_model import ThoughtModel
from tests.helpers.encoders import FIDELITY, context, corpus, encoder, two_pass

CPU = Machine(device="cpu")


def opened(folder, **settings):
    return open_encoder(encoder(folder, **settings), CPU)


@pytest.mark.parametrize("window", [4, None])
def test_paper_thought_is_that_of_the_authors(window):
    data = load_file(FIDELITY / f"latent_thought_attention_window{window or 'all'}.safetensors")
    network = build("reasoner", {"use": "latent-thought-paper", "window": window}).build(32, 1.0)
    network.load_state_dict({name[7:]: value for name, value in data.items() if name.startswith("weight.")})
    length = int(data["thought_position"][0])
    positions = torch.arange(length).expand(3, -1)
    made = network(data["hidden_states"][:, :length], data["attention_mask"][:, :length], positions)
    torch.testing.assert_close(made[:, 0], data["output"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("embed", [ThoughtModel.embed, two_pass])
def test_forward_and_backward_are_those_of_the_authors(embed):
    data = load_file(FIDELITY / "two_pass_forward_tiny_qwen2.safetensors")
    config = Qwen2Config.from_json_file(FIDELITY / "two_pass_forward_tiny_qwen2.config.json")
    lm = Qwen2ForCausalLM(config).eval()
    lm.model.load_state_dict(_below(data, "weight.lm."))
    network = build("reasoner", "latent-thought-paper").build(32, 1.0)
    network.load_state_dict(_below(data, "weight.latent_thought."))
    thought_id = int(data["thought_token_id"])
    model = ThoughtModel(
        lm, None, network, build("pooling", "mean"), Template(), thoughts=1, eos_id=1, thought_id=thought_id,
        embedding_rms=1.0, thought_scale=1.0,
    )  # fmt: skip
    vectors = embed(model, Tokens(data["input_ids"][:, :-2], data["attention_mask"][:, :-2]))
    torch.testing.assert_close(vectors, data["pooled_mean"], atol=1e-5, rtol=0)
    tau = torch.ones(1, requires_grad=True)
    loss = build("loss", "soft-target").loss(vectors[:3], vectors[3:], tau)
    torch.testing.assert_close(loss, data["soft_target_loss"], atol=1e-5, rtol=0)
    loss.backward()
    torch.testing.assert_close(tau.grad, data["grad.tau"], atol=0, rtol=1e-4)
    parameters = {**dict(network.named_parameters(prefix="latent_thought")), **dict(lm.model.named_parameters("lm"))}
    gradients = {name: value for name, value in _below(data, "grad.").items() if name != "tau"}
    assert set(gradients) == set(parameters)
    for name, expected in gradients.items():
        distance = (parameters[name].grad - expected).norm() / expected.norm()
        assert distance < 1e-4, name


def _below(data, start):
    return {name.removeprefix(start): value for name, value in data.items() if name.startswith(start)}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"reasoner": {"use": "latent-thought", "thoughts": 3, "window": 6}, "pooling": "thought"},
        {"reasoner": "latent-thought-paper", "pooling": "last"},
        {"reasoner": "none", "pooling": "last"},
    ],
    ids=["default", "three thoughts, window", "paper", "no thought"],
)
def test_the_cached_path_equals_two_passes(tmp_path, settings):
    model = opened(tmp_path, **settings)
    tokens = model.tokens(model.tokenize(corpus().texts[:6]))
    torch.testing.assert_close(model.embed(tokens), two_pass(model, tokens), atol=2e-5, rtol=1e-5)


def test_complete_leaves_the_prefix_as_it_was(tmp_path):
    model = opened(tmp_path)
    prefix = model.prefix(model.tokens(model.tokenize(corpus().texts[:3])))
    thoughts = model.think(prefix)
    first = model.complete(prefix, thoughts)
    model.complete(prefix, thoughts + 1)
    assert torch.equal(first, model.complete(prefix, thoughts))
    repeated = model.complete(prefix.repeat(2), thoughts.repeat_interleave(2, dim=0))
    torch.testing.assert_close(repeated[::2], first, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(repeated[1::2], first, atol=1e-5, rtol=1e-5)


def test_a_shared_beginning_changes_nothing(tmp_path):
    model = opened(tmp_path)
    tokens = model.tokens(model.tokenize(corpus().texts[:6]))
    beginning = model.begin(model.tokenize(corpus().texts))
    assert beginning is not None and len(beginning.ids) > 8
    whole = model.prefix(tokens, share=False)
    for shared in (model.prefix(tokens), model.prefix(tokens, beginning)):
        # Padding may stand elsewhere; the real tokens stand in order.
        mine, other = shared.mask.bool(), whole.mask.bool()
        assert torch.equal(shared.ids[mine], whole.ids[other])
        assert torch.equal(shared.positions[mine], whole.positions[other])
        torch.testing.assert_close(shared.states[mine], whole.states[other], atol=1e-5, rtol=1e-5)
        for one, two in zip(sum(shared.cache, ()), sum(whole.cache, ()), strict=True):
            torch.testing.assert_close(one.transpose(1, 2)[mine], two.transpose(1, 2)[other], atol=1e-5, rtol=1e-5)


def _paddings(model):
    """The first prompt's vector alone, and beside a longer prompt."""
    rows = sorted(model.tokenize(corpus().texts), key=len)
    alone = model.embed(model.tokens(rows[:1]))[0]
    return alone, model.embed(model.tokens([rows[0], rows[-1]]))[0]


@pytest.mark.parametrize("settings", [{}, {"reasoner": "none"}, {"reasoner": {"use": "latent-thought", "window": 5}}])
def test_padding_does_not_change_a_vector(tmp_path, settings):
    alone, beside = _paddings(opened(tmp_path, pooling="last", **settings))
    assert (alone - beside).norm() / alone.norm() < 1e-5


def test_padding_on_the_left_changes_a_vector_of_the_paper(tmp_path):
    alone, beside = _paddings(opened(tmp_path / "left", reasoner="latent-thought-paper", pooling="thought"))
    assert (alone - beside).norm() / alone.norm() > 1e-4
    alone, beside = _paddings(
        opened(tmp_path / "right", reasoner="latent-thought-paper", pooling="thought", padding="right")
    )
    assert (alone - beside).norm() / alone.norm() < 1e-5


def test_thoughts_have_the_size_of_input_embeddings(tmp_path):
    model = opened(tmp_path / "scaled")
    thoughts = model.think(model.prefix(model.tokens(model.tokenize(corpus().texts[:4]))))
    table = model.causal_lm.get_input_embeddings().weight[: model.thought_id]
    assert model.thought_scale == pytest.approx(float(table.square().mean().sqrt()), rel=1e-5)
    sizes = thoughts.square().mean(dim=-1).sqrt()
    torch.testing.assert_close(sizes, torch.full_like(sizes, model.thought_scale), rtol=1e-4, atol=0)
    unscaled = opened(tmp_path / "unscaled", reasoner={"use": "latent-thought", "scale": "none"})
    assert unscaled.thought_scale == 1.0
    assert unscaled.embedding_rms == pytest.approx(model.embedding_rms)


def test_poolings():
    states = torch.arange(24.0).reshape(2, 4, 3)
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    assert torch.equal(build("pooling", "mean").pool(states, mask, 1)[0], states[0, 1:].mean(0))
    assert torch.equal(build("pooling", "last").pool(states, mask, 1), states[:, 3])
    assert torch.equal(build("pooling", "thought").pool(states, mask, 1), states[:, 2])
    assert torch.equal(build("pooling", "thought").pool(states, mask, 2), states[:, 1:3].mean(1))
    with pytest.raises(UserError, match="reasoner with thoughts"):
        build("pooling", "thought").pool(states, mask, 0)


def test_token_logprobs_are_read_without_a_shift(tmp_path):
    model = opened(tmp_path)
    tokens = model.tokens(model.tokenize(corpus().texts[:3]))
    prefix = model.prefix(tokens)
    thoughts = model.think(prefix)
    found = model.tail_logprobs(prefix, thoughts)
    tail = torch.tensor([[model.thought_id, model.eos_id]]).expand(3, -1)
    embedded = model.causal_lm.get_input_embeddings()(torch.cat([tokens.ids, tail], dim=1))
    embedded[:, -2:-1] = thoughts
    mask = torch.cat([tokens.mask, torch.ones_like(tail)], dim=1)
    logits = model.causal_lm(inputs_embeds=embedded, attention_mask=mask, position_ids=mask.cumsum(1) - 1).logits
    expected = logits.log_softmax(-1)[:, -2:].gather(2, tail.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_prompts_are_cut_and_carry_the_template(tmp_path):
    model = opened(tmp_path, max_length=70)
    rows = model.tokenize(corpus().texts)
    assert max(map(len, rows)) == 68
    assert len(model.tokenize(corpus().texts, 60)[6]) == 58
    with pytest.raises(UserError, match="leaves no room"):
        model.tokenize(corpus().texts, 20)
    messages = [
        {"role": "system", "content": model.template.system_prompt},
        {"role": "user", "content": model.template.prefix + "title is X"},
    ]
    text = model.tokenizer.apply_chat_template(messages, tokenize=False)
    assert model.template.prompts(model.tokenizer, ["title is X"]) == [text]


def test_no_thought_adds_no_token(tmp_path):
    model = opened(tmp_path, reasoner="none")
    assert model.thought_id is None
    prefix = model.prefix(model.tokens(model.tokenize(["title is X"])))
    assert model.think(prefix).shape == (1, 0, 64)
    assert model.full_mask(prefix).shape[1] == prefix.mask.shape[1] + 1


def test_encoder_folder_is_read_back(tmp_path):
    first = encoder(tmp_path / "first")
    again = encoder(tmp_path / "again")
    files = sorted(file.relative_to(first.folder) for file in first.folder.rglob("*") if file.is_file())
    for file in files:
        assert (first.folder / file).read_bytes() == (again.folder / file).read_bytes(), file
    assert json.loads((first.folder / "encoder.json").read_text())["reasoner"]["use"] == "latent-thought"
    model = open_encoder(first, CPU)
    weights = {name: torch.zeros_like(value) for name, value in model.reasoner.state_dict().items()}
    copy = open_encoder(with_reasoner(first, tmp_path / "copy", weights), CPU)
    assert not copy.reasoner.query.weight.any()
    assert open_encoder(first, CPU).reasoner.query.weight.any()


def test_a_folder_that_is_no_encoder_says_so(tmp_path):
    with pytest.raises(UserError, match=r"encoder\.json"):
        open_encoder(Encoder(tmp_path), CPU)


def test_causal_lm_loads_a_local_folder_with_fewer_layers(tmp_path):
    folder = encoder(tmp_path).folder / "backbone"
    backbone = build("backbone", {"use": "causal-lm", "model": str(folder), "layers": 1, "attention": "eager"})
    loaded = backbone.load(tmp_path, CPU)
    assert isinstance(loaded, Loaded)
    assert len(loaded.model.get_decoder().layers) == 1
    known = backbone.fingerprint()["files"]
    assert "model.safetensors" in known
    (folder / "model.safetensors").write_bytes(b"x")
    assert backbone.fingerprint()["files"] != known
    with pytest.raises(UserError, match="2 blocks"):
        folder = encoder(tmp_path / "other").folder / "backbone"
        build("backbone", {"use": "causal-lm", "model": str(folder), "layers": 3}).load(tmp_path, CPU)


@pytest.mark.slow
def test_weights_that_are_cut_after_loading_do_not_kill_the_process(tmp_path):
    folder = encoder(tmp_path).folder / "backbone"
    script = (
        "import os, sys; from pathlib import Path; from reaemb_bench import Machine\n"
        "from reaemb_bench.core.registry import build\n"
        "folder = Path(sys.argv[1])\n"
        "loaded = build('backbone', {'use': 'causal-lm', 'model': str(folder)}).load(folder, Machine(device='cpu'))\n"
        "os.truncate(folder / 'model.safetensors', 64)\n"
        "assert all(parameter.isfinite().all() for parameter in loaded.model.parameters())\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_loaded_is_explained_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    missing = build("backbone", {"use": "causal-lm", "model": str(tmp_path / "nowhere")})
    assert missing.fingerprint() == {"missing": str(tmp_path / "nowhere")}
    with pytest.raises(UserError, match="is not a folder"):
        missing.load(tmp_path, CPU)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"config\.json") as error:
        build("backbone", {"use": "causal-lm", "model": str(tmp_path / "empty")}).load(tmp_path, CPU)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="is not a file"):
        build("backbone", {"use": "causal-lm", "model": str(tmp_path), "gguf_file": "x.gguf"}).load(tmp_path, CPU)


def test_a_backbone_is_required():
    with pytest.raises(RecipeError, match="required"):
        build("step", "llm")


def test_encode_keeps_order_and_ignores_the_micro_batch(tmp_path):
    made = encoder(tmp_path / "llm")
    ticks, facts = [], {}
    step = build("step", "encode")
    one = step.run(corpus(), made, context(tmp_path / "1", ticks, facts, micro_batch=1)).values
    many = step.run(corpus(), made, context(tmp_path / "2", micro_batch=7)).values
    assert one.shape == (20, 64) and one.dtype == "float32"
    assert ticks[-1].done == 20 and facts["tokens"] > 20
    torch.testing.assert_close(torch.from_numpy(one), torch.from_numpy(many), atol=1e-5, rtol=1e-5)
    model = open_encoder(made, CPU)
    expected = model.embed(model.tokens(model.tokenize(corpus().texts[3:4])))[0]
    torch.testing.assert_close(torch.from_numpy(one[3]), expected, atol=1e-5, rtol=1e-5)
    told = build("step", {"use": "encode", "with_instruction": True}).run(corpus(), made, context(tmp_path / "3"))
    assert abs(told.values - one).max() > 1e-3


def test_half_precision_stays_near_full_precision(tmp_path):
    made = encoder(tmp_path / "llm")
    step = build("step", "encode")
    full = step.run(corpus(), made, context(tmp_path / "1")).values
    half = step.run(corpus(), made, context(tmp_path / "2", precision="bfloat16")).values
    assert half.dtype == "float32"
    assert abs(full - half).max() < 0.1 * abs(full).max()
