"""What `export` writes is what others can load: vectors in three formats, the encoder, a card."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from safetensors.numpy import load_file, save_file

import reaemb_bench
from reaemb_bench.core.artifacts import Corpus, Encoder, Ranks, Vectors, write_shard
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.execute import execute
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import from_raw
from reaemb_bench.core.runs import Run, artifact_of, find, history, remember
from reaemb_bench.core.store import Store
from reaemb_bench.report.export import export
from reaemb_bench.report.vectors import Format, load_vectors, write_vectors
from tests.conftest import TOYS, Said

Command = Callable[..., Said]

FORMATS: tuple[Format, ...] = ("safetensors", "parquet", "npy")
STORE = Store(Path(".reaemb-bench/store"))


@pytest.fixture
def toys(command: Command, toy_recipe: Path) -> Run:
    """A run of toy steps, in the store of the current folder."""
    assert command("run", toy_recipe).code == 0
    return find(STORE, "toys")


LRCL = {"use": "contrast", "loss": "info-nce", "steps": 2, "batch_size": 8, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Machine]:
    """A run with two adapters and a thought, its encoder told the corpus' instruction."""
    return _ran(
        tmp_path_factory.mktemp("tuned"),
        steps=["prepare", "llm", "lrcl", "again", "encode", "reduce"],
        llm={"backbone": {"use": "tiny", "vocabulary": 400, "hidden": 32, "layers": 2}},
        again=LRCL,
        encode={"with_instruction": True, "max_length": 100},
        reduce={"reducer": {"use": "pca", "dimensions": 8}},
    )


def _ran(folder: Path, **tables: Any) -> tuple[Run, Machine]:
    machine = Machine(device="cpu", store=folder / "store", cache=folder / "cache", mlflow="")
    source = {"use": "simulated", "users": 40, "items": 20}
    planned = plan(from_raw({"prepare": {"source": source}, "lrcl": LRCL, **tables}, "tuned"), 42)
    execute(planned, Store(machine.store), machine, lambda event: None)
    return remember([planned], Store(machine.store)), machine


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_gives_the_vectors_of_the_store(command: Command, toys: Run, form: Format) -> None:
    said = command("export", toys.id[:5], "out/my_vectors", "--format", form)
    assert said.code == 0, said.err
    assert f"12 vectors of width 2 of toys ({toys.id}), seed 42, step embed: written to out/my_vectors" in said.out
    items = reaemb_bench.load_vectors("out/my_vectors")
    assert repr(items) == f"ItemVectors({len(items.ids)} items, width {items.vectors.shape[1]})"
    stored = artifact_of(toys, STORE, Vectors).values
    assert items.vectors.dtype == np.float32
    assert np.array_equal(items.vectors, stored)
    assert items.ids == [f"i{place}" for place in range(12)]
    assert items.titles == []
    assert np.array_equal(items.of("i7"), stored[7])
    again = load_vectors(Path("out/my_vectors") / f"vectors.{form}")
    assert np.array_equal(again.vectors, items.vectors)
    assert sorted(path.name for path in Path("out").iterdir()) == ["my_vectors"]
    assert Path("out/my_vectors/recipe.toml").read_text(encoding="utf-8") == toys.recipe


@pytest.mark.parametrize("form", FORMATS)
def test_large_vectors_are_written_block_by_block_for_any_reader(tmp_path: Path, form: Format) -> None:
    drawn = np.random.default_rng(0).normal(size=(20_000, 64)).astype(np.float32)
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for file, rows in zip(files, (drawn[:9_000], drawn[9_000:]), strict=True):
        write_shard(file, rows)
    ids = [str(item) for item in range(len(drawn))]
    tracemalloc.start()
    write_vectors(tmp_path, form, Vectors(*files), ids, ids)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < drawn.nbytes
    file = tmp_path / f"vectors.{form}"
    read: Any = {
        "safetensors": lambda: load_file(file)["vectors"],
        "parquet": lambda: polars.read_parquet(file)["vector"].to_numpy(),
        "npy": lambda: np.load(file, allow_pickle=False),
    }[form]()
    assert np.array_equal(read, drawn)
    back = load_vectors(file)
    assert back.titles == ids
    assert np.array_equal(back.of("19999"), drawn[-1])


def test_the_code_of_the_card_gives_the_exported_vectors(
    tuned: tuple[Run, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With transformers and peft alone but for the thought's network, and with this package."""
    import torch

    run, machine = tuned
    export(run, machine, tmp_path / "mine", "encoded", "safetensors", None, encoder=True)
    monkeypatch.chdir(tmp_path)
    names = _code_of_the_card(Path("mine"))
    items, lm, tokenizer = names["items"], names["lm"], names["tokenizer"]
    texts = list(artifact_of(run, Store(machine.store), Corpus).texts)
    template = json.loads(Path("mine/encoder/encoder.json").read_text(encoding="utf-8"))["template"]
    made = []
    with torch.inference_mode():
        for text in texts:
            messages = [
                {"role": "system", "content": template["system_prompt"]},
                {"role": "user", "content": template["prefix"] + text},
            ]
            prompt = tokenizer.apply_chat_template(messages, tokenize=False)
            ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"][: template["max_length"] - 2]])
            states = lm.get_decoder()(input_ids=ids).last_hidden_state
            thought = names["thought"](states, torch.ones_like(ids), torch.arange(ids.shape[1])[None])
            embed = lm.get_input_embeddings()
            inputs = torch.cat([embed(ids), thought, embed(torch.tensor([[tokenizer.eos_token_id]]))], dim=1)
            made.append(lm.get_decoder()(inputs_embeds=inputs).last_hidden_state[0].mean(dim=0).numpy())
        model = names["model"]
        ours = model.embed(model.tokens(model.tokenize(texts))).numpy()
    assert items.vectors.shape == (20, 32)
    np.testing.assert_allclose(np.stack(made), items.vectors, atol=1e-5)
    np.testing.assert_allclose(ours, items.vectors, atol=1e-5)
    assert "it gives the vectors again" in Path("mine/README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("layers", [None, 1])
def test_a_language_model_with_a_name_is_named_and_not_copied(
    tuned: tuple[Run, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: int | None
) -> None:
    import torch

    base = artifact_of(tuned[0], Store(tuned[1].store), Encoder).folder / "backbone"
    backbone = {"use": "causal-lm", "model": str(base), "layers": layers}
    run, machine = _ran(
        tmp_path,
        steps=["prepare", "llm", "lrcl", "encode"],
        llm={"backbone": backbone, "reasoner": "none", "pooling": "last"},
    )
    monkeypatch.chdir(tmp_path)
    export(run, machine, Path("mine"), "encoded", "parquet", None, encoder=True)
    assert not list(Path("mine/encoder/backbone").iterdir())
    assert not Path("mine/encoder/thought.json").exists()
    settings = json.loads(Path("mine/encoder/adapter/adapter_config.json").read_text(encoding="utf-8"))
    # A part of the model is not what the name stands for.
    assert settings["base_model_name_or_path"] == (str(base) if layers is None else None)
    names = _code_of_the_card(Path("mine"))
    assert len(names["lm"].get_decoder().layers) == (layers or 2)
    assert f"- language model: {base}\n" in Path("mine/README.md").read_text(encoding="utf-8")
    model = names["model"]
    rows = model.tokenize(artifact_of(run, Store(machine.store), Corpus).texts)
    with torch.inference_mode():
        made = [
            names["lm"].get_decoder()(input_ids=torch.tensor([[*row, model.eos_id]])).last_hidden_state[0, -1].numpy()
            for row in rows
        ]
    np.testing.assert_allclose(np.stack(made), names["items"].vectors, atol=1e-5)


def _code_of_the_card(folder: Path) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)  # noqa: S102 - this is what a reader of the card does
    return names


def test_adapters_are_those_of_the_run_and_weights_can_be_read_by_others(
    tuned: tuple[Run, Machine], tmp_path: Path
) -> None:
    run, machine = tuned
    export(run, machine, tmp_path / "mine", "reduced", "npy", 42, encoder=True)
    stored = artifact_of(run, Store(machine.store), Encoder).folder
    for name in ("adapter", "adapter-2"):
        folders = (tmp_path / "mine/encoder", stored)
        mine, theirs = (load_file(folder / name / "adapter_model.safetensors") for folder in folders)
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[each], theirs[each]) for each in mine)
    modes = {file.stat().st_mode for file in (tmp_path / "mine").rglob("*") if file.is_file()}
    assert modes == {(tmp_path / "mine/README.md").stat().st_mode}
    assert load_vectors(tmp_path / "mine").vectors.shape == (20, 8)
    assert "went through `reduce` after that" in (tmp_path / "mine/README.md").read_text(encoding="utf-8")


def test_an_exported_encoder_never_runs_code_of_a_file(tuned: tuple[Run, Machine], tmp_path: Path) -> None:
    from reaemb_bench.report.export import load_encoder, load_thought

    run, machine = tuned
    export(run, machine, tmp_path / "mine", "encoded", "npy", None, encoder=True)
    (tmp_path / "evil.py").write_text("raise SystemExit('this was run')", encoding="utf-8")
    for name, load in (("encoder.json", load_encoder), ("thought.json", load_thought)):
        file = tmp_path / "mine/encoder" / name
        facts = json.loads(file.read_text(encoding="utf-8"))
        facts["reasoner"]["use"] = f"{tmp_path}/evil.py:Evil"
        file.write_text(json.dumps(facts), encoding="utf-8")
        with pytest.raises(UserError, match="is not run from an exported folder"):
            load(tmp_path / "mine")
    with pytest.raises(UserError, match="cannot be read"):
        load_encoder(tmp_path)


def test_the_card_says_what_was_run_and_on_what_terms(command: Command, toys: Run) -> None:
    recipe = 'steps = ["prepare"]\n[prepare.source]\nuse = "movielens-100k"\n'
    export(replace(toys, recipe=recipe), Machine(), Path("mine"), "reduced", "npy", None, encoder=True)
    card = Path("mine/README.md").read_text(encoding="utf-8")
    assert "no redistribution" in card
    assert "Harper" in card
    assert "6 users, 12 items, 18 training interactions" in card
    assert f"run {toys.id}, finished {toys.finished}" in card
    assert "| toys | 1.0000 |" in card
    assert "6 test users; each target is ranked against 9 to 10 items" in card
    assert f"reaemb-bench {reaemb_bench.__version__}, python " in card
    assert "## The encoder" not in card
    export(toys, Machine(), Path("other"), "reduced", "npy", None, encoder=True)
    assert "licence: not stated" in Path("other/README.md").read_text(encoding="utf-8")


def test_leaks_are_marked_in_the_card(command: Command, toy_recipe: Path) -> None:
    text = f"extends = 'toys.toml'\nallow_leaks = true\n[embed]\nuse = '{TOYS}:Leaky'\n"
    (toy_recipe.parent / "leaky.toml").write_text(text, encoding="utf-8")
    assert command("run", "leaky.toml").code == 0
    assert command("export", "leaky", "mine").code == 0
    card = Path("mine/README.md").read_text(encoding="utf-8")
    assert "leaky †" in card
    assert "looks at held-out data on purpose (embed)" in card


@pytest.mark.slow
def test_a_seed_can_be_named(command: Command, toy_recipe: Path) -> None:
    assert command("run", toy_recipe, "--set", "seeds=[1, 2]").code == 0
    for seed in (1, 2):
        assert command("export", "toys", f"of{seed}", "--seed", seed).code == 0
    first, second = (load_vectors(f"of{seed}").vectors for seed in (1, 2))
    assert not np.array_equal(first, second)
    said = command("export", "toys", "of3", "--seed", 3)
    assert said.code == 2
    assert "has no seed 3, but 1, 2" in said.err


def test_nothing_is_left_behind_where_it_cannot_be_exported(command: Command, toys: Run) -> None:
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine", encoding="utf-8")
    said = command("export", "toys", "full")
    assert said.code == 2
    assert said.err == "error: the folder full is not empty and is left as it is; choose another\n"
    assert "is a file" in command("export", "toys", "full/mine.txt").err
    said = command("export", "toys", "new", "--vectors", "ranker")
    assert said.code == 2
    assert "keeps no table of item vectors" in said.err
    said = command("export", "toyz", "new")
    assert said.code == 2
    assert "Did you mean 'toys'?" in said.err
    next(STORE.root.glob("results/*/ranks/ranks.parquet")).write_bytes(b"broken")
    said = command("export", "toys", "new")
    assert said.code == 2
    assert "is damaged" in said.err
    assert not Path("new").exists()
    assert not list(Path.cwd().glob(".new.*"))
    Path("empty").mkdir()
    assert command("run", "toys.toml", "--drop", "rank", "--drop", "train").code == 0
    (unranked,) = [run for run in history(STORE) if run.key_of(Ranks) is None]
    assert command("export", unranked.id, "empty").code == 0
    assert "None: the recipe ranks no test targets" in Path("empty/README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_vectors_and_neighbors_need_no_torch(toys: Run) -> None:
    words = [["export", "toys", "mine", "--no-encoder"], ["neighbors", "toys", "i3"]]
    script = (
        "import sys\nimport reaemb_bench\n"
        "assert not {'numpy', 'torch', 'polars'} & set(sys.modules)\n"
        "from reaemb_bench.cli.app import main\n"
        f"for words in {words!r}:\n"
        "    sys.argv = ['reaemb-bench', *words]\n"
        "    try:\n        main()\n    except SystemExit as left:\n        assert left.code == 0, left.code\n"
        "reaemb_bench.load_vectors('mine').of('i3')\n"
        "slow = {'torch', 'transformers', 'mlflow', 'sklearn'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def _npy(folder: Path, rows: Any, ids: Any, titles: Any = ()) -> Path:
    np.save(folder / "vectors.npy", rows)
    (folder / "ids.json").write_text(json.dumps({"ids": ids, "titles": titles}), encoding="utf-8")
    return folder


def test_what_holds_no_vectors_is_refused(tmp_path: Path) -> None:
    good = np.ones((2, 3), dtype=np.float32)
    refused = {
        "2 vectors for 3 ids": (good, ["a", "b", "c"]),
        "not float32": (good.astype(np.float64), ["a", "b"]),
        r"of shape \(2,\)": (good[:, 0], ["a", "b"]),
        "1 ids stand twice": (good, ["a", "a"]),
        "must be strings": (good, ["a", 2]),
        "1 titles": (good, ["a", "b"], ["one"]),
        "no item vectors that can be read": (np.array([{}, {}], dtype=object), ["a", "b"]),
    }
    for message, given in refused.items():
        with pytest.raises(UserError, match=message):
            load_vectors(_npy(tmp_path, *given))
    _npy(tmp_path, good, ["a", "b"])
    with pytest.raises(UserError, match="no item has the id 'c' among 2"):
        load_vectors(tmp_path).of("c")
    (tmp_path / "vectors.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match="no item vectors that can be read"):
        load_vectors(tmp_path)
    save_file({"other": good}, tmp_path / "vectors.safetensors")
    with pytest.raises(UserError, match="no item vectors that can be read"):
        load_vectors(tmp_path / "vectors.safetensors")
    with pytest.raises(UserError, match="several of"):
        load_vectors(tmp_path)
    (tmp_path / "ids.json").unlink()
    with pytest.raises(UserError, match="nobody knows whose vectors"):
        load_vectors(tmp_path / "vectors.npy")
    with pytest.raises(UserError, match="no file or folder"):
        load_vectors(tmp_path / "absent")
