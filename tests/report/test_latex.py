"""Tables as LaTeX, and one table in every format."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from reaemb_bench.report import render as latex
from reaemb_bench.report import render as terminal
from reaemb_bench.report.render import as_csv, as_json, as_latex, as_markdown
from reaemb_bench.report.table import Cell, Column, Row, Table

TABLE = Table(
    "Toys & games",
    (Column("HR@10"), Column("NDCG@10", "tail"), Column("Δ NDCG@10", difference=True), Column("params", cost=True)),
    (
        Row(
            "reaemb_full",
            (
                Cell(0.5, 0.0123, best=True),
                Cell(0.31, significant=True, best=True),
                Cell(-0.02, interval=(-0.05, 0.01), verdict="none shown"),
                Cell(134_515_008.0),
            ),
            leaks=True,
        ),
        Row("*plain* [50%]", (Cell(0.42, second=True), Cell(None), Cell(0.1), Cell(0.0))),
        Row("popularity", (Cell(0.1), Cell(0.0), Cell(None), Cell(None)), floor=True),
    ),
    ("mean ± sd over 2 seeds", "† looks at held-out data on purpose: 100 % unfair"),
    verdict="reaemb_full beats *plain* [50%] on NDCG@10",
)

LATEX = r"""% Süite; needs \usepackage{booktabs}

\begin{table}[htbp]
\centering
\caption{Toys \& games. reaemb\_full beats {*}plain{*} {[}50\%{]} on NDCG@10}
\begin{tabular}{lrrrr}
\toprule
&  & \multicolumn{1}{c}{NDCG@10 $\uparrow$} &  & \\
\cmidrule(lr){3-3}
& HR@10 $\uparrow$ & tail & $\Delta$ NDCG@10 $\uparrow$ & params \\
\midrule
reaemb\_full \textdagger{} & \textbf{.5000} {\scriptsize $\pm$ .0123} & \textbf{.3100}$^{*}$ & """ + (
    r"""$-$.0200 {\scriptsize ($-$.0500 to +.0100)} none shown & 135M \\
{*}plain{*} {[}50\%{]} & \underline{.4200} & --- & +.1000 & 0 \\
\midrule
\textit{popularity} & .1000 & .0000 & --- & --- \\
\bottomrule
\end{tabular}

\smallskip\parbox{\linewidth}{\footnotesize mean $\pm$ sd over 2 seeds\\
\textdagger{} looks at held-out data on purpose: 100 \% unfair}
\end{table}
"""
)

MARKDOWN = """\
## Süite

### Toys & games

reaemb_full beats \\*plain\\* \\[50%] on NDCG@10

| method | HR@10 ↑ | NDCG@10 tail ↑ | Δ NDCG@10 ↑ | params |
| --- | ---: | ---: | ---: | ---: |
| reaemb_full † | **.5000** ± .0123 | **.3100**\\* | -.0200 (-.0500 to +.0100) none shown | 135M |
| \\*plain\\* \\[50%] | <u>.4200</u> | — | +.1000 | 0 |
| *popularity* | .1000 | .0000 | — | — |

- mean ± sd over 2 seeds
- † looks at held-out data on purpose: 100 % unfair
"""

TERMINAL = """\
Toys & games
reaemb_full beats *plain* [50%] on NDCG@10

                          NDCG@10 ↑
method          HR@10 ↑        tail       Δ NDCG@10 ↑  params
─────────────────────────────────────────────────────────────
reaemb_full †     .5000      .3100*            -.0200    135M
                 ±.0123               (-.0500 +.0100)
                                           none shown
*plain* [50%]     .4200           —            +.1000       0

popularity        .1000       .0000                 —       —

· mean ± sd over 2 seeds
· † looks at held-out data on purpose: 100 % unfair
"""


def test_one_table_as_latex() -> None:
    assert as_latex("Süite", [TABLE]) == LATEX


def test_the_same_table_as_markdown() -> None:
    assert as_markdown("Süite", [TABLE]) == MARKDOWN


def test_the_same_table_in_the_terminal() -> None:
    file = io.StringIO()
    Console(file=file, width=80, color_system=None).print(terminal.render_terminal(TABLE))
    assert "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n" == TERMINAL


def test_the_same_table_as_csv() -> None:
    rows = list(csv.reader(io.StringIO(as_csv("Süite", [TABLE]))))
    assert rows[0][5:] == [
        *("HR@10", "HR@10 sd", "NDCG@10 tail", "NDCG@10 tail sd"),
        *("Δ NDCG@10", "Δ NDCG@10 low", "Δ NDCG@10 high", "Δ NDCG@10 verdict", "params", "params sd"),
    ]
    head = ["Süite", "Toys & games"]
    assert rows[1:] == [
        [
            *(*head, "reaemb_full", "False", "True", "0.5", "0.0123", "0.31", ""),
            *("-0.02", "-0.05", "0.01", "none shown", "134515008.0", ""),
        ],
        [*head, "*plain* [50%]", "False", "False", "0.42", "", "", "", "0.1", "", "", "", "0.0", ""],
        [*head, "popularity", "True", "False", "0.1", "", "0.0", "", "", "", "", "", "", ""],
    ]


def test_the_same_table_as_json() -> None:
    (table,) = json.loads(as_json("Süite", [TABLE]))["tables"]
    assert [(row["method"], row["floor"], row["leaks"]) for row in table["rows"]] == [
        ("reaemb_full", False, True),
        ("*plain* [50%]", False, False),
        ("popularity", True, False),
    ]
    gap = table["rows"][0]["cells"]["Δ NDCG@10"]
    assert (gap["value"], gap["interval"], gap["verdict"]) == (-0.02, [-0.05, 0.01], "none shown")
    assert table["notes"] == list(TABLE.notes)


@given(st.text())
def test_no_text_can_leave_its_place(text: str) -> None:
    made = latex.latex_text(text)
    bare = re.sub(r"\\(?:[&%$#_{}]|[a-z]+\{\})|\$\\[A-Za-z]+\$", "", made)
    assert not set(bare) & set("\\&%$#_~^<>\n")
    assert bare.count("{") == bare.count("}")
    assert re.fullmatch(r"(?:[^{}\[\]*]|\{[\[\]*]\})*", bare, re.DOTALL)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4), st.lists(st.text(), max_size=2))
def test_every_row_has_as_many_cells_as_there_are_columns(names: list[str], notes: list[str]) -> None:
    table = Table("", TABLE.columns, tuple(Row(name, TABLE.rows[0].cells) for name in names), tuple(notes))
    lines = latex.render_latex(table).splitlines()
    body = lines[lines.index(r"\toprule") + 1 : lines.index(r"\bottomrule")]
    rows = [line for line in body if line != r"\midrule" and "cmidrule" not in line and "multicolumn" not in line]
    assert len(rows) == 1 + len(names)
    assert all(len(re.findall(r"(?<!\\)&", line)) == len(TABLE.columns) and line.endswith(r" \\") for line in rows)
    assert r"\caption" not in "\n".join(lines)
    assert [line.startswith(r"\begin{") for line in lines].count(True) == 2


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_takes_it(tmp_path: Path) -> None:
    file = tmp_path / "table.tex"
    file.write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
        + as_latex("Toys", [TABLE])
        + "\\end{document}\n",
        encoding="utf-8",
    )
    words = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", file.name]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stdout.decode(errors="replace")[-2000:]
