"""Every architecture in the table of docs/models.md gives an item the vector that it has alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
from reaemb_bench.encoder.folder import open_encoder
from reaemb_bench.encoder.language_model import body, save_pretrained
from reaemb_bench.encoder.shared_prefix import coordinates
from reaemb_bench.encoder.thought_model import ThoughtModel
from reaemb_bench.rl.prompt_cache import Prompts
from tests.helpers.encoders import context, corpus, encoder

CPU = Machine(device="cpu")
PAGE = Path(__file__).parents[2] / "docs" / "models.md"
ROW = re.compile(r"^\| ([\w-]+)(?: \(([\w ]+)\))? \| (sdpa|eager) \| (yes|no) \| ([^|]+) \|$", re.MULTILINE)
TABLE = {(name, variant): outcome for name, variant, *outcome in ROW.findall(PAGE.read_text(encoding="utf-8"))}
SAMPLE = {"llama", "bart", "bert", "gpt_neo", "mamba", "lfm2"}

TINY: dict[str, Any] = {
    "vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "n_embd": 32, "n_layer": 2, "n_head": 4,
    "n_positions": 256, "d_model": 32, "n_layers": 2, "n_heads": 4, "num_layers": 2, "num_heads": 4,
    "decoder_layers": 2, "encoder_layers": 2, "decoder_attention_heads": 4, "encoder_attention_heads": 4,
    "decoder_ffn_dim": 64, "encoder_ffn_dim": 64, "ffn_dim": 64, "n_inner": 64, "moe_intermediate_size": 32,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
    "shared_expert_intermediate_size": 32, "topk_group": 1, "q_lora_rank": 16, "kv_lora_rank": 16,
    "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "tie_word_embeddings": True, "initializer_range": 0.2, "init_std": 0.2,
}  # fmt: skip
CHANGES: dict[tuple[str, str], dict[str, Any]] = {
    ("bamba", ""): {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "attn_layer_indices": [1]},
    ("codegen", ""): {"rotary_dim": 8},
    ("deepseek_v3", ""): {"num_key_value_heads": 4, "first_k_dense_replace": 1},
    ("falcon", ""): {"head_dim": None},
    ("falcon", "alibi"): {"head_dim": None, "alibi": True},
    ("gpt_neo", ""): {"attention_types": [[["global", "local"], 1]], "window_size": 64, "num_hidden_layers": None},
    ("gemma4_text", ""): {"vocab_size_per_layer_input": 400},
    ("gptj", ""): {"rotary_dim": 8},
    ("jamba", ""): {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
    ("lfm2", ""): {"layer_types": ["conv", "full_attention"]},
    ("llama", "not causal"): {"is_causal": False},
    ("gemma3_text", "not causal"): {"use_bidirectional_attention": True},
    ("mamba2", ""): {"num_heads": 8, "head_dim": 8, "expand": 2, "n_groups": 1},
    ("minicpm3", ""): {"num_key_value_heads": 4},
    ("mistral", "window"): {"sliding_window": 64},
    ("opt", "narrow embeddings"): {"word_embed_proj_dim": 16},
    ("qwen3_next", ""): {"num_hidden_layers": 4},
    ("recurrent_gemma", ""): {"num_hidden_layers": 3},
}


def made(folder: Path, name: str, variant: str) -> Path:
    """A folder with a random model of this architecture and a tokenizer of the corpus."""
    default, changes = AutoConfig.for_model(name), CHANGES.get((name, variant), {})
    settings = {}
    for key, value in TINY.items():
        try:
            usual = getattr(default, key)
        except (AttributeError, RuntimeError):
            # No such setting, or one that differs from block to block.
            continue
        # None leaves a part of the model out.
        if key not in changes and (usual is not None or key not in ("q_lora_rank", "head_dim")):
            settings[key] = value
    settings.update({key: value for key, value in changes.items() if value is not None})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **settings))
    tokenizer = open_encoder(encoder(folder / "tokenizer", reasoner="none"), CPU).tokenizer
    save_pretrained(model, tokenizer, folder / "model")
    return folder / "model"


def alone(model: ThoughtModel, row: list[int]) -> Tensor:
    """(d,): the vector as the method is written down, and transformers is given tokens alone."""
    read, layer = body(model.causal_lm), model.causal_lm.get_input_embeddings()
    if model.reasoner is None:
        states = read(input_ids=torch.tensor([[*row, model.eos_id]]), use_cache=False).last_hidden_state
        return states[0].mean(dim=0)
    ids = torch.tensor([row])
    mask = torch.ones_like(ids)
    states = read(input_ids=ids, use_cache=False).last_hidden_state
    thoughts = model.reasoner(states, mask, coordinates(mask, torch.arange(len(row))[None], "left"))
    embedded = torch.cat([layer(ids), thoughts, layer(torch.tensor([[model.eos_id]]))], dim=1)
    whole = read(inputs_embeds=embedded, use_cache=False).last_hidden_state
    return whole[0].mean(dim=0)


@pytest.mark.parametrize(
    ("name", "variant"),
    [pytest.param(*key, marks=() if key[0] in SAMPLE else pytest.mark.architectures) for key in TABLE],
)
@torch.no_grad()
def test_a_vector_depends_on_its_own_prompt_alone(tmp_path: Path, name: str, variant: str) -> None:
    backbone = {"use": "causal-lm", "model": str(made(tmp_path, name, variant))}
    attention, reasoner = "sdpa", "latent-thought"
    for number in range(3):
        settings = {"backbone": {**backbone, "attention": attention}, "reasoner": reasoner, "max_length": 200}
        try:
            model = open_encoder(encoder(tmp_path / str(number), **settings), CPU)
            break
        except UserError as refused:
            assert "\n" not in str(refused)
            # The cure that the line names.
            said = re.search(r'say (attention|llm\.reasoner) = "([\w-]+)"$', str(refused))
            assert said, refused
            attention, reasoner = (said[2], reasoner) if said[1] == "attention" else (attention, said[2])
    assert [attention, "yes" if reasoner != "none" else "no", str(model.reading)] == TABLE[name, variant]
    rows = model.tokenize([corpus().texts[item] for item in (0, 6, 3)])
    expected = torch.stack([alone(model, row) for row in rows])
    tokens = model.tokens(rows)
    one_by_one = torch.cat([model.embed(model.tokens([row])) for row in rows])
    for vectors in (one_by_one, model.embed(tokens, share=False), model.embed(tokens, model.begin(rows))):
        assert float((vectors - expected).abs().max() / expected.abs().mean()) < 1e-5


@pytest.mark.parametrize("name", ["bert", "gpt_neo", "bart"])
@torch.no_grad()
def test_cached_prompts_and_several_thoughts_give_the_same_vectors(tmp_path: Path, name: str) -> None:
    attention = TABLE[name, ""][0]
    backbone = {"use": "causal-lm", "model": str(made(tmp_path, name, "")), "attention": attention}
    model = open_encoder(encoder(tmp_path / "llm", backbone=backbone, max_length=200), CPU)
    rows, items = model.tokenize(corpus().texts[:5]), np.arange(5)
    prefix = Prompts(model, rows, items, tmp_path, 1e9)(items)
    thoughts = model.think(prefix)
    torch.testing.assert_close(model.complete(prefix, thoughts), model.embed(model.tokens(rows)), atol=1e-5, rtol=1e-5)
    twice = torch.stack([thoughts, thoughts.flip(dims=[0])], dim=1).flatten(0, 1)
    torch.testing.assert_close(
        model.complete(prefix, twice)[1::2], model.complete(prefix, thoughts.flip(dims=[0])), atol=1e-5, rtol=1e-5
    )


def test_a_model_whose_attention_is_not_causal_is_trained_and_a_step_notes_how_it_is_read(tmp_path: Path) -> None:
    noted: dict[str, Any] = {}
    folder = str(made(tmp_path, "bert", ""))
    step: Any = build("step", {"use": "llm", "backbone": {"use": "causal-lm", "model": folder}, "max_length": 200})
    first = step.run(corpus(), context(tmp_path / "llm", facts=noted))
    assert noted["reading"] == "whole prompts, again with each thought"
    train: Any = build("step", {"use": "contrast", "steps": 2, "batch_size": 8, "lora_targets": ["query", "value"]})
    vectors = [
        open_encoder(train.run(corpus(), first, context(tmp_path / str(size), micro_batch=size)), CPU)
        for size in (3, 8)
    ]
    one, other = (model.embed(model.tokens(model.tokenize(corpus().texts[:4]))) for model in vectors)
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    before = open_encoder(first, CPU)
    assert (one - before.embed(before.tokens(before.tokenize(corpus().texts[:4])))).abs().max() > 1e-3
