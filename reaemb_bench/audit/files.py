"""From the paths that a person names to the settings of the source `table` and the tables behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reaemb_bench.audit.columns import ROLES, guess, worth_a_prompt
from reaemb_bench.data.sheets import Sheet, read_sheet
from reaemb_bench.data.table import Table
from reaemb_bench.errors import UserError
from reaemb_bench.recipe import load
from reaemb_bench.registry import nearest
from reaemb_bench.steps.prepare import Prepare

SUFFIXES = (".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson")
"""Of the files that are looked for in a folder."""

COLUMNS = (*ROLES, "item_key")
"""Settings of `table` that name a column."""

_ALWAYS = ("use", "interactions", "items", "user", "item", "timestamp", "item_key", "title", "attributes")
"""Settings that a recipe spells out, whatever their defaults."""


@dataclass(frozen=True)
class Files:
    """What is checked: a file of interactions, one of items, or both. settings: as `[prepare.source]` has them."""

    settings: Mapping[str, Any]
    interactions: Sheet | None
    items: Sheet | None


def open_files(paths: Sequence[Path], columns: Mapping[str, str]) -> Files:
    """Read the files of a recipe, of a folder, or as named, in either order.

    columns: setting -> column, for what cannot be told from the names. Raises UserError where a file cannot be read
    or nothing tells what is in it.
    """
    if unknown := [setting for setting in columns if setting not in COLUMNS]:
        hint = nearest(unknown[0], COLUMNS)
        raise UserError(f"--column {unknown[0]}=...: no column has this role.{hint} Roles: {', '.join(COLUMNS)}")
    if len(paths) == 1 and paths[0].suffix == ".toml":
        if columns:
            raise UserError(f"--column goes with files; {paths[0]} names the columns itself, in [prepare.source]")
        return _of_recipe(paths[0])
    files = [file for path in paths for file in (_inside(path) if path.is_dir() else [path])]
    if len(files) > 2:
        raise UserError(f"name one file of interactions and one of items, not {', '.join(map(str, files))}")
    settings: dict[str, Any] = {"use": "table"}
    sheets: dict[str, Sheet] = {}
    for file in files:
        sheet = read_sheet(file, "auto", "", '"', "interactions")
        what = "interactions" if columns.get("user", guess(sheet.columns, "user")) in sheet.columns else "items"
        if what in sheets:
            raise UserError(
                f"{sheets[what].file} and {file} both look like {what}; one file must have a column of users: "
                "name it with --column user=NAME"
            )
        sheets[what] = sheet
        settings |= {what: str(file), **_guessed(sheet, what, columns)}
    return Files(settings, sheets.get("interactions"), sheets.get("items"))


def named_columns(texts: Sequence[str]) -> dict[str, str]:
    """`role=name` texts as role -> name. Raises UserError."""
    made = {}
    for text in texts:
        role, equals, column = text.partition("=")
        if not equals or not role.strip():
            raise UserError(f"--column takes role=name, such as user=customer, not '{text}'")
        made[role.strip()] = column.strip()
    return made


def source_table(files: Files) -> dict[str, Any]:
    """The table `[prepare.source]` of a recipe that reads these files."""
    usual = Table.model_fields
    return {
        name: value
        for name, value in files.settings.items()
        if name in _ALWAYS or (name in usual and value != usual[name].default)
    }


def _guessed(sheet: Sheet, what: str, columns: Mapping[str, str]) -> dict[str, Any]:
    """Settings of the columns of one file. Raises UserError where a key is not to be found."""
    roles = ("user", "item", "timestamp", "rating") if what == "interactions" else ("item_key", "title")
    found: dict[str, Any] = {role: columns.get(role, guess(sheet.columns, role)) for role in roles}
    for role, column in found.items():
        if column:
            sheet.require(column, role)
        elif role in ("user", "item", "item_key"):
            raise UserError(
                f"{sheet.file}: none of the columns {', '.join(sheet.columns)} looks like the {role}; "
                f"name it with --column {role}=NAME"
            )
    if what == "items":
        found["attributes"] = worth_a_prompt(sheet.columns, found.values())
    return found


def _of_recipe(file: Path) -> Files:
    recipe = load(file)
    source = next((step.source for step in recipe.steps.values() if isinstance(step, Prepare)), None)
    if not isinstance(source, Table):
        raise UserError(f"{file}: the source is no `table`, so there are no files of yours to check")
    sheets = [
        read_sheet(path, form, source.separator, source.quote, what)
        for what, path, form in (
            ("interactions", source.interactions, source.interactions_format),
            ("items", source.items, source.items_format),
        )
    ]
    spec = source.spec()
    for sheet, roles in zip(sheets, (("user", "item", "timestamp", "rating"), ("item_key", "title")), strict=True):
        for role in roles:
            if spec[role]:
                sheet.require(spec[role], f"source.{role}")
    return Files(spec, *sheets)


def _inside(folder: Path) -> list[Path]:
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f"{folder} holds no file with one of the suffixes {', '.join(SUFFIXES)}")
    return found
