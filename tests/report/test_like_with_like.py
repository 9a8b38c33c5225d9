"""Tables hold only what can be compared: other data is refused, other candidates marked, mixed machines named."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reaemb_bench.core.artifacts import Corpus, Floors, Ranks
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.runs import find
from reaemb_bench.core.store import Store
from reaemb_bench.report.recipe_tables import origin_notes
from reaemb_bench.report.render import FORMATS, render_markdown
from reaemb_bench.report.results import bins_table, differences_table, results_table
from reaemb_bench.report.table import Table
from tests.conftest import Said

Command = Callable[..., Said]

TINY = """\
steps = ["prepare", "train", "rank", "floors"]
prepare = { source = { use = "simulated", users = 60, items = 40 }, sampled_candidates = 5 }
[train]
use = "train-ids"
head = { use = "sasrec", hidden = 8, max_length = 10 }
epochs = 1
"""


def ranks(sample: Sequence[int] = (1, 2), history: Sequence[int] = (7, 8), sampled: bool = True) -> Ranks:
    zeros = np.zeros(2, dtype=np.int64)
    return Ranks(
        users=np.arange(2),
        targets=np.arange(2, dtype=np.int32),
        better=np.arange(2),
        tied=zeros,
        sampled_better=zeros if sampled else zeros - 1,
        sampled_tied=zeros,
        popularity=zeros + 5,
        history=zeros + 8,
        catalogue=zeros + 90,
        history_hash=np.array(history, dtype=np.uint64),
        sample_hash=np.array(sample, dtype=np.uint64),
    )


def sampled_cells(table: Table) -> dict[str, tuple[float | None, bool]]:
    position = next(i for i, column in enumerate(table.columns) if column.part.startswith("sampled"))
    return {row.name: (row.cells[position].value, row.cells[position].unlike) for row in table.rows}


def test_other_candidates_are_a_marked_empty_cell_and_a_note() -> None:
    named = {"base": [ranks()], "same": [ranks()], "other": [ranks(sample=(1, 3))]}
    floors = Floors({"random": ranks(), "popularity": ranks(sample=(9, 9))})
    table = results_table("", named, floors, [])
    assert sampled_cells(table) == {
        "base": (1.0, False),
        "same": (1.0, False),
        "other": (None, True),
        "random": (1.0, False),
        "popularity": (None, True),
    }
    assert [note for note in table.notes if "≠" in note] == [
        "≠ ranked against other stored candidates than the other rows, so not comparable with them"
    ]
    assert all(row.cells[0].value == 1.0 for row in table.rows), "the whole catalogue is the same for all"


def test_every_format_marks_such_a_cell() -> None:
    table = results_table("", {"base": [ranks()], "other": [ranks(sample=(1, 3))]}, None, [])
    assert render_markdown(table).splitlines()[5].endswith("| —≠ | —≠ |")
    assert "---$\\neq$" in FORMATS[".tex"]("", [table])
    assert "—≠" in FORMATS[".html"]("", [table])
    assert FORMATS[".svg"]("", [table]).count("≠") == 3, "two cells and the note"
    cells = json.loads(FORMATS[".json"]("", [table]))["tables"][0]["rows"][1]["cells"]
    assert (cells["HR@10 sampled"]["value"], cells["HR@10 sampled"]["unlike"]) == (None, True)
    line = list(csv.DictReader(io.StringIO(FORMATS[".csv"]("", [table]))))[1]
    assert line["HR@10 sampled"] == ""


def test_a_first_row_without_candidates_does_not_decide_which_are_compared() -> None:
    named = {"none": [ranks(sample=(0, 0), sampled=False)], "one": [ranks()], "two": [ranks(sample=(1, 3))]}
    cells = sampled_cells(results_table("", named, None, []))
    assert cells == {"none": (None, False), "one": (1.0, False), "two": (None, True)}


@pytest.mark.parametrize("make", [results_table, differences_table, bins_table])
def test_other_histories_stand_in_no_table(make: Any) -> None:
    named = {"base": [ranks()], "other": [ranks(history=(7, 9))]}
    rest = {results_table: (None, []), differences_table: ("base",), bins_table: (None, "cold")}[make]
    with pytest.raises(UserError, match="base and other have different histories"):
        make("", named, *rest)


def test_floors_of_other_data_stand_in_no_table() -> None:
    with pytest.raises(UserError, match="base and floor popularity have different histories"):
        results_table("", {"base": [ranks()]}, Floors({"popularity": ranks(history=(0, 1))}), [])


def test_compare_and_ablate_keep_other_candidates_apart(command: Command, tmp_path: Path) -> None:
    (tmp_path / "five.toml").write_text(TINY, encoding="utf-8")
    (tmp_path / "nine.toml").write_text("extends = 'five.toml'\n[prepare]\nsampled_candidates = 9\n", encoding="utf-8")
    for name in ("five.toml", "nine.toml"):
        said = command("run", name)
        assert said.code == 0, said.err
    said = command("compare", "five", "nine", "--out", "compared.json")
    assert said.code == 0, said.err
    _one_of_two("compared.json", "five", "nine", "sampled-5")
    said = command("ablate", "five.toml", "--swap", "prepare.sampled_candidates=9", "--out", "ablated.json")
    assert said.code == 0, said.err
    _one_of_two("ablated.json", "five", "five (prepare.sampled_candidates=9)", "sampled")


def _one_of_two(file: str, kept: str, other: str, part: str) -> None:
    (table, *_) = json.loads(Path(file).read_text(encoding="utf-8"))["tables"]
    cells = {row["method"]: row["cells"] for row in table["rows"]}
    assert cells[kept][f"HR@10 {part}"]["value"] is not None
    assert cells[other][f"HR@10 {part}"]["value"] is None
    assert cells[other][f"HR@10 {part}"]["unlike"]
    assert cells[other]["HR@10"]["value"] is not None


def test_one_fingerprint_of_the_data_stands_below_tables_in_the_report_and_in_the_exported_card(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "five.toml").write_text(TINY, encoding="utf-8")
    said = command("run", "five.toml")
    assert said.code == 0, said.err
    store = Store(Path(".reaemb-bench/store"))
    key = find(store, "five").key_of(Corpus)
    assert key is not None
    sha256 = store.manifest(key)["facts"]["sha256"]
    assert f"data: sha256 {sha256[:12]}" in said.out
    assert f"data: sha256 {sha256[:12]}" in command("report", "five", "--html", "page.html").out
    assert f"<td><bdi>{sha256}</bdi></td>" in Path("page.html").read_text(encoding="utf-8")
    said = command("export", "five", "mine", "--vectors", "ranker")
    assert said.code == 0, said.err
    assert f"`{sha256}`" in Path("mine/README.md").read_text(encoding="utf-8")


def test_a_table_over_cached_results_of_another_precision_says_so(command: Command, toy_recipe: Path) -> None:
    assert command("run", toy_recipe, "--precision", "bfloat16").code == 0
    said = command("run", toy_recipe, "--precision", "float32", "--set", "embed.width=5")
    assert said.code == 0, said.err
    shown = " ".join(said.out.split())
    assert "mixed precisions, which change numbers too: bfloat16 (prepare); float32 (embed, train, rank)" in shown


def manifest(step: str, precision: str = "float32", device: str = "Xeon (cpu)", **changed: Any) -> dict[str, Any]:
    machine = {"device": device, "precision": precision}
    return {"step": step, "files": {}, "facts": {}, "peak_memory_of": "ram", "machine": machine, **changed}


def data(sha256: str) -> dict[str, Any]:
    return manifest("prepare", files={"corpus/corpus.json": {}}, facts={"sha256": sha256})


def test_rows_of_other_devices_or_precisions_are_named_and_those_of_one_are_not() -> None:
    gpu = manifest("llm", "bfloat16", "H100", peak_memory_of="cuda")
    assert origin_notes({"a": [manifest("llm"), manifest("rank", "auto", "Xeon")], "b": [manifest("llm")]}) == []
    assert origin_notes({"a": [gpu, manifest("rank", "bfloat16")]}) == []
    assert origin_notes({"a": [gpu, manifest("rank", "auto")], "b": [manifest("llm")]}) == [
        "mixed precisions, which change numbers too: bfloat16 (a); float32 (b)",
        "mixed devices, which change numbers too: H100 (a); Xeon (b)",
    ]
    assert origin_notes({"a": [{name: value for name, value in gpu.items() if name != "machine"}]}) == []


def test_rows_of_other_texts_are_named() -> None:
    one, two = "1" * 64, "2" * 64
    assert origin_notes({"a": [data(one)], "b": [data(one)]}) == ["data: sha256 111111111111"]
    assert origin_notes({"a": [data(one)], "b": [data(two)], "c": [data(one)], "d": []}) == [
        "prepared data differ, for example in item texts: sha256 111111111111 (a, c); 222222222222 (b)"
    ]


def test_seeds_of_other_data_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="the seeds of base have different users or targets"):
        results_table("", {"base": [ranks(), replace(ranks(), targets=np.array([1, 1], dtype=np.int32))]}, None, [])
