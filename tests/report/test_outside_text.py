"""Titles, names and messages from outside are shown as text: nothing in them acts on a terminal, a page or a sheet."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from reaemb_bench.core.text import printable
from reaemb_bench.report.data_card import Bin, lengths_png, long_tail_png, render_markdown
from reaemb_bench.report.render import FORMATS, Listing, Paragraph, page, render_terminal, write_tables
from reaemb_bench.report.table import Cell, Column, Row, Table
from tests.conftest import Said
from tests.report.test_data_card import card_of, parts

Command = Callable[..., Said]

CLIPBOARD = "\x1b]52;c;ZXZpbA==\x07"
CLEAR = "\x9b2J\x1b[2J"
POISON = f"{CLIPBOARD}{CLEAR}\u202e\ud800\x00\x7f\r"
ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What no output may hold: control characters but tab and newline, marks of direction, halves of pairs."""


def table(text: str) -> Table:
    cells = (Cell(0.5, verdict=text), Cell(-0.25, verdict="x"))
    rows = (Row(text, cells), Row(f"{text}2", cells, floor=True, leaks=True))
    return Table(text, (Column("HR@10", text), Column("Δ", difference=True)), rows, (f"a note on {text}",))


@pytest.mark.parametrize("ending", list(FORMATS))
def test_no_control_character_leaves_a_table(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"tables{ending}"
    write_tables(file, POISON, [table(POISON)])
    text = file.read_text(encoding="utf-8")
    assert not ACTIVE.findall(text)
    plain = "".join(ElementTree.fromstring(text).itertext()) if ending == ".svg" else text  # noqa: S314 - our own
    flat = plain.replace("\\textbackslash{}", "\\").replace("\\\\", "\\")
    assert "x1b" in flat and "x9b" in flat


@given(st.text(min_size=1))
@settings(deadline=None)
def test_whatever_a_text_is_no_format_lets_it_act(text: str) -> None:
    for ending, render in FORMATS.items():
        shown = render(text, [table(text)])
        assert not ACTIVE.findall(shown), ending
        shown.encode()
    ElementTree.fromstring(FORMATS[".svg"](text, [table(text)]))  # noqa: S314 - our own
    assert json.loads(FORMATS[".json"](text, [table(text)]))["tables"][0]["rows"][0]["method"] == printable(text)


@given(st.text())
def test_text_without_control_characters_stays_as_it_is(text: str) -> None:
    shown = printable(text)
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text
    assert printable(text, lines=True).count("\n") == text.count("\n")


def test_titles_in_other_scripts_and_with_emoji_are_kept() -> None:
    for title in ("שלום עולם", "Amélie 🎬", "千と千尋の神隠し", "नमस्ते", "👩\u200d👧"):
        assert printable(title) == title


def test_no_html_and_no_link_of_a_title_is_markup_in_markdown() -> None:
    evil = "<img src=x onerror=y> ![a](http://b) *c* `d` | e"
    text = FORMATS[".md"](evil, [table(evil)])
    assert not re.search(r"(?<!\\)<(?!/?u>)", text)
    assert not re.search(r"(?<!\\)\[", text)
    row = next(line for line in text.splitlines() if line.startswith("| \\<img"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 4


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r="])
def test_no_cell_of_a_csv_is_a_formula(start: str) -> None:
    formula = f'{start}HYPERLINK("http://a","b")'
    rows = list(csv.reader(io.StringIO(FORMATS[".csv"](formula, [table(formula)]))))
    texts = [text for row in rows for text in row if not re.fullmatch(r"-?[\d.]+", text)]
    assert any("HYPERLINK" in text for text in texts)
    assert not [text for text in texts if text.lstrip().startswith(("=", "+", "-", "@"))]
    assert rows[1][-4] == "-0.25", "numbers stay numbers"


def test_a_page_keeps_the_lines_of_a_recipe_and_shows_the_rest_escaped() -> None:
    text = page("Toys", [Paragraph(POISON), Listing("recipe", f"a = 1\nb = '{CLIPBOARD}'\n")])
    assert not ACTIVE.findall(text)
    assert "<pre>a = 1\nb = " in text
    assert "\\x1b]52;c;" in text


def test_escaped_text_has_room_in_the_columns_of_the_terminal() -> None:
    file = io.StringIO()
    Console(file=file, width=200).print(render_terminal(table(CLIPBOARD)))
    assert "\\x1b]52;c;ZXZpbA==\\x072 †" in file.getvalue()


def test_a_data_card_takes_names_and_reasons_as_text() -> None:
    card = card_of(parts([[0, 1, 2], [2, 1, 0]], [1, 2], [2, 1], items=3))
    text = render_markdown(replace(card, name=f"<b>{CLIPBOARD}", removed={f"*why* {CLEAR}": 3}))
    assert text.startswith("# Data card: \\<b>")
    assert "- \\*why\\* " in text
    assert not ACTIVE.findall(text)


def test_pictures_of_a_data_card_draw_names_as_text(recwarn: pytest.WarningsRecorder) -> None:
    for draw in (lambda name: long_tail_png([0.0] * 101, name), lambda name: lengths_png((Bin(5, 6, 3),), name)):
        assert draw(CLIPBOARD) == draw(printable(CLIPBOARD))
        draw("商店")
    assert not list(recwarn)


def test_titles_of_recipes_and_items_and_errors_reach_the_terminal_as_text(command: Command, toy_recipe: Path) -> None:
    hostile = Path("hostile.toml")
    escaped = CLIPBOARD.replace("\x1b", "\\u001b").replace("\x07", "\\u0007")
    hostile.write_text(f'extends = "toys.toml"\ntitle = "Toys {escaped}"\n', encoding="utf-8")
    for words in (("plan", hostile), ("run", hostile), ("history",), ("report", "hostile"), ("run", f"no{CLIPBOARD}")):
        said = command(*words)
        assert not ACTIVE.findall(said.out + said.err), words
        if words != ("history",):
            assert "\\x1b]52;c;" in said.out + said.err, words
