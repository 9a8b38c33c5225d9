"""Judge item vectors without a recipe: those of a file, or from Python those of an array."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars
from rich.console import Console

from reaemb_bench.core.artifacts import Ranks, as_array
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.execute import fetch
from reaemb_bench.core.files import write_atomically
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import Recipe, load
from reaemb_bench.core.store import Store
from reaemb_bench.data.check import named_columns, open_files, source_table
from reaemb_bench.data.vectors import ReadVectors
from reaemb_bench.evaluation.summary import summarise
from reaemb_bench.experiments.running import Counts, executed
from reaemb_bench.report.recipe_tables import tables_of
from reaemb_bench.report.render import fragment, render_terminal
from reaemb_bench.report.table import Table

VECTORS_RECIPE = "recipes/vectors.toml"
_MOST_DIMENSIONS = 256


def recipe_of_vectors(
    vectors: Path,
    data: Sequence[Path],
    columns: Sequence[str] = (),
    sets: Sequence[str] = (),
    drops: Sequence[str] = (),
) -> Recipe:
    """Returns the recipe that judges vectors on files, named after the vectors.

    vectors: a file or an exported folder. data: files of interactions and, if there are any, items, or their folder.
    columns: `ROLE=NAME`, for what the names of columns do not tell. Raises UserError.
    """
    files = open_files(data, named_columns(columns), vectors)
    if files.interactions is None:
        raise UserError(f"{', '.join(map(str, data))} holds no interactions; name a file with a column of users")
    source = source_table(files)
    if files.items is None:
        # No step here reads texts, and each item is called by its key.
        source |= {"items": source["interactions"], "item_key": source["item"], "title": source["item"]}
    # What is remembered of the run may be run again from any folder.
    source |= {role: str(Path(source[role]).resolve()) for role in ("interactions", "items")}
    name = vectors.resolve().name if vectors.is_dir() else vectors.resolve().stem
    above = {
        "title": f"{name} on {Path(source['interactions']).parent.name}",
        "prepare": {"source": source},
        "vectors": {"path": str(vectors.resolve())},
    }
    step = load(VECTORS_RECIPE, sets, drops, above).steps.get("vectors")
    if isinstance(step, ReadVectors):
        _, first = next(step.blocks())
        above["reduce"] = {"reducer": {"dimensions": min(_MOST_DIMENSIONS, first.shape[1])}}
    loaded = load(VECTORS_RECIPE, sets, drops, above)
    return replace(loaded, name=loaded.name.replace("vectors", name, 1))


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured; a notebook shows its tables, and `print` too.

    tables: the same as on the command line, floors, verdict and alignment included. ranks: one Ranks a seed.
    metrics: such as `full/ndcg@10` and `full/ndcg@10/tail`, means over the seeds. run: its id in the store, for
    `reaemb-bench report` and `compare`.
    """

    title: str
    tables: tuple[Table, ...]
    ranks: tuple[Ranks, ...]
    metrics: Mapping[str, float]
    run: str

    def __str__(self) -> str:
        screen = Console(file=io.StringIO(), width=100)
        for table in self.tables:
            screen.print(render_terminal(table))
        return screen.file.getvalue()  # type: ignore[attr-defined, no-any-return]

    def _repr_html_(self) -> str:
        return fragment(self.tables)


def evaluate(
    vectors: Any,
    ids: Sequence[Any],
    interactions: Any,
    items: Any = None,
    *,
    name: str = "vectors",
    columns: Sequence[str] = (),
    sets: Sequence[str] = (),
    machine: Machine | None = None,
    progress: bool = False,
) -> Evaluation:
    """Judges item vectors on interactions, by the protocol and with the store of `reaemb-bench run --vectors`.

    vectors: (n, width) numbers, an array or a tensor. ids: (n,) the items that they belong to. interactions: rows of
    user, item and, if there is one, timestamp: a data frame of polars or pandas, a mapping from column to values, or a
    file or folder. items: likewise, with titles; may be left out. name: of the vectors, in tables and history. columns:
    `"user=member"` and the like, for what the names of columns do not tell. sets: `"train.epochs=5"` and the like.
    machine: where to compute and keep results, without MLflow by default. progress: shows the steps.
    Raises UserError with one line that names the place of a mistake and its cure.
    """
    machine = machine or Machine(mlflow="")
    given = Machine.model_validate(machine).store / "given"
    array = as_array("vectors", vectors, np.float32, 2)
    if len(ids) != len(array):
        raise UserError(f"evaluate: {len(ids):,} ids for {len(array):,} vectors; give one for each")
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    texts = json.dumps([str(key) for key in ids]).encode()
    folder = given / _digest(content.getvalue(), texts)
    write_atomically(folder / "vectors.npy", content.getvalue())
    write_atomically(folder / "ids.json", texts)
    data = [_file(given, "interactions", interactions)]
    if items is not None:
        data.append(_file(given, "items", items))
    recipe = recipe_of_vectors(folder / "vectors.npy", data, columns, sets)
    recipe = replace(recipe, name=name, title=name)
    plans, store = [plan(recipe, seed) for seed in recipe.seeds], Store(machine.store)
    with executed(plans, machine, Console(stderr=True) if progress else _silent, Counts()) as tracking:
        tables = tuple(tables_of(plans, store))
        tracking.show(tables)
    by_plan = (fetch(planned, store, Ranks) for planned in plans)
    ranks = tuple(of_seed for of_seed in by_plan if of_seed is not None)
    by_seed = [summarise(one) for one in ranks]
    metrics = {metric: float(np.mean([seed[metric] for seed in by_seed])) for metric in by_seed[0]}
    return Evaluation(recipe.title, tables, ranks, metrics, tracking.run.id)


def _file(given: Path, what: str, rows: Any) -> Path:
    """The file of rows, written under a name that tells its content if they are not in one."""
    if isinstance(rows, str | Path):
        return Path(rows)
    if not isinstance(rows, polars.DataFrame):
        # Frames of pandas, too, are read column by column.
        rows = polars.DataFrame({str(name): list(rows[name]) for name in rows})
    content = io.BytesIO()
    rows.write_parquet(content)
    file = given / _digest(content.getvalue()) / f"{what}.parquet"
    write_atomically(file, content.getvalue())
    return file


def _digest(*contents: bytes) -> str:
    return hashlib.sha256(b"".join(contents)).hexdigest()[:16]


def _silent(line: str) -> None:
    """Takes a line of progress and shows nothing."""
