"""Tables as a picture of a terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

from reaemb_bench.reporting import terminal
from reaemb_bench.reporting.table import Table

_COLUMNS = 80
_FONT = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)


def as_svg(title: str, tables: Sequence[Table]) -> str:
    """The tables as a terminal shows them, in whatever monospaced font there is; nothing is fetched from a network."""
    from rich._export_format import CONSOLE_SVG_FORMAT
    from rich.console import Console
    from rich.terminal_theme import MONOKAI

    screen = Console(width=_COLUMNS, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for table in tables:
        screen.print(terminal.render(table))
    settings: dict[str, Any] = {"theme": MONOKAI, "code_format": _FONT.sub("", CONSOLE_SVG_FORMAT)}
    return screen.export_svg(title=title, unique_id="tables", **settings)
