"""`reaemb-bench new`: a component of one's own, with its test, to change from there."""

from __future__ import annotations

import keyword
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from reaemb_bench.cli.listing import check_kind
from reaemb_bench.cli.options import component_kinds, console
from reaemb_bench.errors import UserError
from reaemb_bench.files import write_new

_PLACES = {
    "step": "NAME_OF_STEP.use={}",
    "loss": "lrcl.loss={}",
    "reward": "crrl.reward={}",
    "advantage": "crrl.advantage={}",
    "pooling": "llm.pooling={}",
    "reducer": "reduce.reducer={}",
    "objective": "train.objective={}",
    "floor": 'floors.floors=["{}"]',
}
"""Kind -> what `--set` takes to put the component into a recipe that has the usual steps."""


def new(
    kind: Annotated[str, typer.Argument(help=f"What it is: {', '.join(_PLACES)}.", autocompletion=component_kinds)],
    name: Annotated[str, typer.Argument(help="Its name, such as my_loss.")],
    folder: Annotated[Path, typer.Option(help="Where the two files go.")] = Path(),
) -> None:
    """Write NAME.py with a working component of a kind, and test_NAME.py with its test."""
    check_kind(kind)
    if kind not in _PLACES:
        raise UserError(
            f"there is no example of a {kind} to start from; `reaemb-bench describe` names the files of those we ship. "
            f"Examples: {', '.join(_PLACES)}"
        )
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UserError(f"'{name}' is no name for a Python file; use letters, digits and underscores: my_{kind}")
    made = f"{name}.py:{class_name(name)}"
    files = {folder / f"{name}.py": component(kind, name), folder / f"test_{name}.py": test(kind, name)}
    for file in files:
        if file.exists():
            raise UserError(f"{file} exists and is left as it is; choose another name")
    for file, text in files.items():
        write_new(file, text.encode())
        _say(f"written: {file}")
    _say(f"test it: python -m pytest {folder / f'test_{name}.py'}")
    _say(f"use it: reaemb-bench run --set '{_PLACES[kind].format(folder / made)}'")


def class_name(name: str) -> str:
    """`my_loss` as a class is called: `MyLoss`."""
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))


def component(kind: str, name: str) -> str:
    """The text of a working component of a kind under its own class name."""
    return _read(f"{kind}.py").replace("class Example(", f"class {class_name(name)}(")


def test(kind: str, name: str) -> str:
    """The text of the component's test."""
    made = class_name(name)
    example = f"from reaemb_bench.scaffolds.{kind} import Example"
    return _read(f"{kind}_test.py").replace(example, f"from {name} import {made}").replace("Example", made)


def _read(file: str) -> str:
    return resources.files("reaemb_bench.scaffolds").joinpath(file).read_text(encoding="utf-8")


def _say(line: str) -> None:
    console().print(line, markup=False, highlight=False, soft_wrap=True)
