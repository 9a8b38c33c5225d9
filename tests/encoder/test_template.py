"""What stands around an item's text: system role, date, BOS, control tokens, and how long it may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
from reaemb_bench.encoder.folder import open_encoder
from reaemb_bench.encoder.template import Template
from tests.encoder.test_architectures import made
from tests.helpers.encoders import context, corpus, encoder

CPU = Machine(device="cpu")
TURNS = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
REFUSES = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TURNS
)
SKIPS = "{% for m in messages if m['role'] == 'user' %}<user>{{ m['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_encoder(encoder(tmp_path_factory.mktemp("tokenizer")), CPU).tokenizer


@pytest.mark.parametrize("template", [REFUSES, SKIPS])
def test_without_a_system_role_the_user_says_it(tokenizer: Any, monkeypatch: pytest.MonkeyPatch, template: str) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", template)
    assert Template("Be brief.", "The item: ").prompts(tokenizer, ["X"]) == ["<user>Be brief.\n\nThe item: X"]
    monkeypatch.setattr(tokenizer, "chat_template", TURNS)
    assert Template("Be brief.", "The item: ").prompts(tokenizer, ["X"]) == ["<system>Be brief.<user>The item: X"]
    assert Template("", "The item: ").prompts(tokenizer, ["X"]) == ["<user>The item: X"]


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{{ messages | wrong }}", "nothing of it"])
def test_a_template_that_cannot_be_used_is_one_line(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(UserError, match="chat template") as refused:
        Template().prompts(tokenizer, ["X"])
    assert "\n" not in str(refused.value)


def test_the_date_of_a_template_never_changes(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tokenizer, "chat_template", "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %} " + TURNS
    )
    assert Template("", "").prompts(tokenizer, ["X"]) == ["26 Jul 2024 <user>X"]


def test_bos_begins_the_prompts_of_models_that_were_trained_with_it(tmp_path: Path) -> None:
    tokenizer = open_encoder(encoder(tmp_path), CPU).tokenizer
    tokenizer.chat_template = None
    tokenizer.bos_token = tokenizer.convert_ids_to_tokens(1)
    plain = Template("", "The item: ").rows(tokenizer, ["X"], 1)
    before, after = Template("", "The item: ").around(tokenizer)
    rule = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    tokenizer.backend_tokenizer.post_processor = rule
    assert Template("", "The item: ").rows(tokenizer, ["X"], 1) == [[tokenizer.bos_token_id, *plain[0]]]
    assert Template("", "The item: ").around(tokenizer) == (before + 1, after)


def test_a_text_that_spells_control_tokens_is_text(tokenizer: Any) -> None:
    template = Template("Be brief.", "The item: ")
    text = "a <|im_end|> b<|Thought|><<|im_start|>"
    (bare,), (row,) = template.rows(tokenizer, [""], 1), template.rows(tokenizer, [text], 1)
    special = set(tokenizer.all_special_ids) | {tokenizer.convert_tokens_to_ids("<|Thought|>")}
    assert sum(token in special for token in row) == sum(token in special for token in bare)
    assert tokenizer.decode(row) == template.prompts(tokenizer, [text])[0]
    # Other texts are tokenised as a whole.
    whole = tokenizer(template.prompts(tokenizer, ["a <b> c"]), add_special_tokens=False)["input_ids"]
    assert template.rows(tokenizer, ["a <b> c"], 1) == whole


def test_a_thought_is_as_large_as_what_the_embedding_layer_returns(tmp_path: Path) -> None:
    backbone = {"use": "causal-lm", "model": str(made(tmp_path, "gemma", ""))}
    model = open_encoder(encoder(tmp_path / "llm", backbone=backbone, max_length=200), CPU)
    table = model.causal_lm.get_input_embeddings().weight[: model.thought_id]
    assert model.thought_scale == pytest.approx(float(table.square().mean().sqrt()) * model.width**0.5, rel=1e-3)


def test_prompts_longer_than_a_model_was_trained_on(tmp_path: Path) -> None:
    def facts(name: str, **settings: Any) -> dict[str, Any]:
        noted: dict[str, Any] = {}
        backbone = {"use": "causal-lm", "model": str(tmp_path / name / "model")}
        step: Any = build("step", {"use": "llm", "backbone": backbone, **settings})
        step.run(corpus(), context(tmp_path / name, facts=noted))
        return noted

    for name in ("gpt2", "llama"):
        made(tmp_path / name, name, "")
    with pytest.raises(UserError, match=r"only 256 positions; say max_length = 256$"):
        facts("gpt2", prefix="word " * 75)
    assert "warning: length" not in facts("gpt2")
    assert "trained on at most 256" in facts("llama", prefix="word " * 75)["warning: length"]
    assert "warning: length" not in facts("llama")
