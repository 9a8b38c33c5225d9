"""Sentence encoders: what the library computes, by any model folder; prompts, truncation, keys, interruption."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.hf_api import ResolvedRevision
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

from reaemb_bench.core.artifacts import Corpus, Float32, Vectors
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.execute import execute, fetch
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import load
from reaemb_bench.core.registry import build
from reaemb_bench.core.store import Store
from reaemb_bench.encoder import sentence_encoder
from reaemb_bench.encoder.hub import commit_of
from reaemb_bench.encoder.language_model import quiet
from tests.helpers.encoders import context, corpus

ITEMS = 30
WIDTH = 16
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a BERT of random weights and a tokenizer of whole words, as transformers writes it."""
    folder = tmp_path_factory.mktemp("encoders") / "plain"
    words = sorted({word for text in texts().texts for word in text.replace(";", " ; ").replace(".", " . ").split()})
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, "passage", ":", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        # Otherwise states of all tokens are much alike.
        initializer_range=0.5,
    )
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def own(plain: Path) -> Path:
    """The same encoder as a folder of sentence-transformers, with modules and prompts of its own."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    folder = plain.parent / "own"
    with quiet():
        modules = [Transformer(str(plain)), Pooling(WIDTH, "mean"), Normalize()]
        SentenceTransformer(modules=modules, prompts={"document": "passage : "}, device="cpu").save(str(folder))
    return folder


def texts() -> Corpus:
    return corpus(ITEMS)


def vectors(model: Path, folder: Path, given: Corpus | None = None, facts: Any = None, **settings: Any) -> Float32:
    machine = settings.pop("machine", {})
    step: Any = build("step", {"use": "sentence-encoder", "model": str(model), **settings})
    computed: Vectors = step.run(given or texts(), context(folder, facts=facts, **machine))
    return computed.values


def states(folder: Path, text: str) -> torch.Tensor:
    """The last states of all tokens of one text, by transformers alone."""
    tokenizer, model = (part.from_pretrained(folder) for part in (AutoTokenizer, AutoModel))
    with torch.no_grad():
        computed: torch.Tensor = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    return computed


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_pooling_by_name_is_what_a_computation_by_hand_gives(plain: Path, tmp_path: Path, pooling: str) -> None:
    computed = vectors(plain, tmp_path, pooling=pooling)
    pools = {"mean": lambda rows: rows.mean(dim=0), "cls": lambda rows: rows[0], "last": lambda rows: rows[-1]}
    for text, vector in list(zip(texts().texts, computed, strict=True))[::6]:
        np.testing.assert_allclose(vector, pools[pooling](states(plain, text)).numpy(), atol=1e-5)


def test_a_model_with_modules_of_its_own_pools_and_normalises_by_them(own: Path, plain: Path, tmp_path: Path) -> None:
    computed = vectors(own, tmp_path / "own", prompt="")
    by_name = vectors(plain, tmp_path / "plain", pooling="mean", normalize=True)
    np.testing.assert_allclose(computed, by_name, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(computed, axis=1), 1, atol=1e-5)


def test_prompts_are_put_before_the_texts(own: Path, plain: Path, tmp_path: Path) -> None:
    given = texts()
    prefixed = replace(given, texts=tuple(f"passage : {text}" for text in given.texts))
    expected = vectors(own, tmp_path / "by hand", prefixed, prompt="")
    without = vectors(own, tmp_path / "without", prompt="")
    assert np.abs(expected - without).max() > 0.01
    # The model's own prompt for documents is the default.
    for number, settings in enumerate(({"prompt": "passage : "}, {"prompt_name": "document"}, {})):
        np.testing.assert_allclose(vectors(own, tmp_path / str(number), **settings), expected, atol=1e-6)
    instructed = vectors(plain, tmp_path / "instructed", pooling="mean", with_instruction=True)
    by_hand = replace(given, texts=tuple(f"{given.instruction}\n{text}" for text in given.texts))
    np.testing.assert_allclose(instructed, vectors(plain, tmp_path / "i", by_hand, pooling="mean"), atol=1e-6)


def test_truncation_keeps_the_first_numbers_and_normalises_after_it(plain: Path, tmp_path: Path) -> None:
    whole = vectors(plain, tmp_path / "whole", pooling="mean")
    cut = vectors(plain, tmp_path / "cut", pooling="mean", dimensions=5)
    np.testing.assert_allclose(cut, whole[:, :5], atol=1e-6)
    unit = vectors(plain, tmp_path / "unit", pooling="mean", dimensions=5, normalize=True)
    np.testing.assert_allclose(unit, normalize(torch.tensor(whole[:, :5])).numpy(), atol=1e-6)


def test_batches_change_nothing_but_rounding_and_tokens_are_counted(plain: Path, tmp_path: Path) -> None:
    facts: dict[str, Any] = {}
    alone = vectors(plain, tmp_path / "1", pooling="mean", machine={"micro_batch": 1}, facts=facts)
    together = vectors(plain, tmp_path / "64", pooling="mean", machine={"micro_batch": 64})
    np.testing.assert_allclose(together, alone, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(plain)
    assert facts["tokens"] == sum(len(tokenizer(text)["input_ids"]) for text in texts().texts)
    assert facts["parameters"] == sum(weights.numel() for weights in AutoModel.from_pretrained(plain).parameters())


def test_a_limit_cuts_the_end_of_texts(plain: Path, tmp_path: Path) -> None:
    computed = vectors(plain, tmp_path, pooling="mean", max_length=5)
    # [CLS] title is Game [SEP]
    assert np.abs(computed - computed[0]).max() < 1e-5


def test_the_type_of_arithmetic_is_a_setting_or_the_machines(plain: Path, tmp_path: Path) -> None:
    exact = vectors(plain, tmp_path / "32", pooling="mean")
    rough = vectors(plain, tmp_path / "16", pooling="mean", dtype="bfloat16")
    by_machine = vectors(plain, tmp_path / "machine", pooling="mean", machine={"precision": "bfloat16"})
    assert rough.dtype == np.float32 and np.array_equal(rough, by_machine)
    assert 1e-4 < np.abs(rough - exact).max() < 0.2


@pytest.mark.parametrize("done", [3, 9, 25])
def test_an_interrupted_step_goes_on_behind_its_last_whole_file(
    plain: Path, tmp_path: Path, done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentence_encoder, "_ROWS", 8)
    step: Any = build("step", {"use": "sentence-encoder", "model": str(plain), "pooling": "mean"})
    whole = step.run(texts(), context(tmp_path / "whole", micro_batch=2)).values

    class Stop(list):
        def append(self, progress):
            if progress.done >= done:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        step.run(texts(), context(tmp_path / "broken", ticks=Stop(), micro_batch=2))
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "broken").glob("vectors*")}
    assert len(kept) == done // 8
    reports: list[Any] = []
    resumed = step.run(texts(), context(tmp_path / "broken", ticks=reports, micro_batch=2))
    assert np.array_equal(resumed.values, whole)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    counts = [report.done for report in reports]
    assert counts[0] == 8 * len(kept) + 2 and counts[-1] == ITEMS and counts == sorted(counts)


def key(**settings: Any) -> dict[str, Any]:
    return build("step", {"use": "sentence-encoder", **settings}).identity()


def test_the_key_follows_the_files_and_not_their_place(plain: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(plain, tmp_path / "copied")
    before = key(model=str(plain))
    assert key(model=str(copied)) == before
    weights = copied / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert key(model=str(copied)) != before
    assert key(model=str(plain), dtype="float16") != before


@pytest.fixture(autouse=True)
def _nothing_known_of_the_hub() -> None:
    commit_of.cache_clear()


def test_the_key_of_a_hub_model_has_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    commits = {None: "a" * 40, "v1": "b" * 40}
    monkeypatch.setattr(
        "huggingface_hub.resolve_revision", lambda model, revision: ResolvedRevision(commits[revision], revision)
    )
    newest, tagged = key(model="some/model"), key(model="some/model", revision="v1")
    assert newest["model"] == {"id": "some/model", "commit": "a" * 40}
    assert key(model="some/model", revision="b" * 40) == tagged != newest
    # A process keeps to the commit that it planned with; the next one asks again.
    commits["v1"] = "c" * 40
    assert key(model="some/model", revision="v1") == tagged
    commit_of.cache_clear()
    assert key(model="some/model", revision="v1") != tagged


def test_a_hub_model_is_read_at_its_commit(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(model: str, *, revision: str, ignore_patterns: list[str]) -> str:
        asked.append((model, revision))
        return str(own)

    monkeypatch.setattr(
        "huggingface_hub.resolve_revision", lambda model, revision: ResolvedRevision("a" * 40, revision)
    )
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    computed = vectors(Path("some/model"), tmp_path / "hub")
    assert asked == [("some/model", "a" * 40)]
    assert np.array_equal(computed, vectors(own, tmp_path / "folder"))


def hub_error(name: str) -> Exception:
    import huggingface_hub.errors as errors
    from httpx2 import Request, Response

    if name == "RevisionResolutionError":
        return errors.RevisionResolutionError("no connection")
    response = Response(403, request=Request("GET", "https://huggingface.co/some/model"))
    error: Exception = getattr(errors, name)("refused", response=response)
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("GatedRepoError", "some/model is gated; accept its terms at https://huggingface.co/some/model and log in"),
        ("RevisionNotFoundError", "some/model has no revision v9; name a commit"),
        ("RepositoryNotFoundError", "neither a folder nor a model that the hub shows you; correct it"),
        ("RevisionResolutionError", "the hub cannot be reached, and some/model was not downloaded before"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    error: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model: str, revision: str) -> str:
        raise hub_error(error)

    monkeypatch.setattr("huggingface_hub.resolve_revision", refuse)
    with pytest.raises(UserError, match=message):
        vectors(Path("some/model"), tmp_path, revision="v9")


def edited(folder: Path, target: Path, **contents: str | None) -> Path:
    """A copy of a model's folder in which some files have other contents, or are gone."""
    shutil.copytree(folder, target)
    for name, content in contents.items():
        file = target / name.replace("__", ".")
        file.unlink() if content is None else file.write_text(content, encoding="utf-8")
    return target


def test_what_cannot_be_read_is_one_line(plain: Path, own: Path, tmp_path: Path) -> None:
    modules = json.loads((own / "modules.json").read_text(encoding="utf-8"))
    modules[0]["type"] = "modeling_mine.Mine"
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (plain, {}, "has no modules.json, so say mean, cls or last"),
        (own, {"pooling": "mean"}, "pools by its own modules.json; drop the setting"),
        (own, {"prompt_name": "passage"}, "has no prompt 'passage'; known: document, query"),
        (own, {"dimensions": WIDTH + 1}, "has vectors of 16 numbers; lower it"),
        (tmp_path / "nothing", {}, "is not a folder"),
        (edited(plain, tmp_path / "a", model__safetensors="{"), {"pooling": "mean"}, "cannot be loaded"),
        (edited(plain, tmp_path / "b", config__json=None), {"pooling": "mean"}, "cannot be loaded"),
        (edited(own, tmp_path / "c", modules__json=json.dumps(modules)), {}, "executes third-party code"),
        # Pickled weights are not read.
        (edited(plain, tmp_path / "d", model__safetensors=None, pytorch_model__bin="x"), {"pooling": "mean"}, "cannot"),
    ]
    for number, (folder, settings, message) in enumerate(cases):
        with pytest.raises(UserError) as caught:
            vectors(folder, tmp_path / str(number), **settings)
        assert message in str(caught.value) and "\n" not in str(caught.value)


def test_two_prompts_are_refused() -> None:
    with pytest.raises(RecipeError, match="prompt and prompt_name exclude each other"):
        build("step", {"use": "sentence-encoder", "model": "some/model", "prompt": "a", "prompt_name": "b"})


def test_the_missing_package_is_one_line(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError, match=r"pip install 'reaemb-bench\[sentence-transformers\]'"):
        vectors(plain, tmp_path, pooling="mean")


@pytest.mark.slow
def test_two_processes_embed_what_one_embeds(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(
        'steps = ["prepare", "embed"]\n[prepare]\nsource = { use = "simulated", users = 60, items = 40 }\n'
        f'[embed]\nuse = "sentence-encoder"\nmodel = "{plain}"\npooling = "mean"\n',
        encoding="utf-8",
    )
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words += ["-m", "reaemb_bench", "run", "recipe.toml", "--device", "cpu", "--micro-batch", "4", "--mlflow", ""]
    ended = subprocess.run([*words, "--store", "two"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    planned = plan(load(tmp_path / "recipe.toml"), 42)
    execute(planned, Store(tmp_path / "one"), Machine(device="cpu", micro_batch=4), lambda event: None)
    one, two = (fetch(planned, Store(tmp_path / name), Vectors) for name in ("one", "two"))
    assert one is not None and two is not None
    np.testing.assert_allclose(two.values, one.values, atol=1e-6)
    facts = [Store(tmp_path / name).manifest(planned.jobs[1].key)["facts"]["tokens"] for name in ("one", "two")]
    assert facts[0] == facts[1] > 0
