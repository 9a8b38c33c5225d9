"""What the tests of baselines share: their files, tiny models in folders, small sizes for every recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from reaemb_bench.core.artifacts import Vectors
from reaemb_bench.core.component import Component
from reaemb_bench.core.recipe import SHIPPED, Recipe, load
from reaemb_bench.core.registry import build

BASELINES = SHIPPED / "baselines"
WIDTH = 16


def part(kind: str, method: str, name: str, **settings: Any) -> Any:
    """A component out of a method's file."""
    component: Component = build(kind, {"use": f"{BASELINES}/{method}/component.py:{name}", **settings})
    return component


def mixed(items: int = 200, width: int = 24) -> Vectors:
    """Vectors whose dimensions are correlated and not centred."""
    generator = np.random.default_rng(3)
    values = generator.normal(size=(items, width)) @ generator.normal(size=(width, width)) + 5
    return Vectors(values.astype(np.float32))


def tiny(file: Path, models: Path, *more: str) -> Recipe:
    """A baseline's recipe at a size that runs in a second, with the tiny models of `write_models`."""
    method, given = file.parent.name, load(file)
    sets = [
        'prepare.source={use = "simulated", users = 40, items = 60}',
        f"train.head.hidden={WIDTH}",
        "train.head.max_length=10",
        "train.epochs=1",
    ]
    if "llm" in given.steps:
        sets.append("llm.backbone=tiny")
    if "reduce" in given.steps:
        spec = given.steps["reduce"].spec()
        path, sizes = ("reduce.reducer", spec["reducer"]) if "reducer" in spec else ("reduce", spec)
        sets += [f"{path}.dimensions={WIDTH}"] if "dimensions" in sizes else []
    if method in ("random_table", "tfidf_svd"):
        sets.append(f"embed.dimensions={WIDTH}")
    if method == "wordllama":
        sets.append(f'embed.folder="{models / method}"')
    if method == "sentence_encoders":
        sets += [f'embed.model="{models / "minilm"}"', "embed.pooling=mean"]
    if method == "alpharec":
        sets += [f"alpharec.dimensions={WIDTH}", "alpharec.epochs=1", "alpharec.negatives=8"]
    if method == "minilm":
        # The step to which MiniLM gives the folder that it downloads.
        sets.append(f'embed={{use = "sentence-encoder", model = "{models / method}", pooling = "mean"}}')
    return load(file, [*sets, *more])


def write_models(folder: Path) -> Path:
    """Folders `wordllama` and `minilm` with models of random weights."""
    _write_static(folder / "wordllama")
    _write_encoder(folder / "minilm")
    return folder


def _tokenizer() -> Any:
    """Every byte is a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = ["[PAD]", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def _write_static(folder: Path) -> None:
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    tokenizer = _tokenizer()
    table = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), 32)).astype(np.float16)
    save_file({"embedding.weight": table}, folder / "l2_supercat_256.safetensors")
    tokenizer.save(str(folder / "l2_supercat_tokenizer_config.json"))


def _write_encoder(folder: Path) -> None:
    import torch
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from reaemb_bench.encoder.language_model import quiet

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_tokenizer(), pad_token="[PAD]")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=300,
    )
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
