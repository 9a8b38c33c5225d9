"""The map of item vectors: two principal components, coloured by popularity, and how many directions are in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reaemb_bench.artifacts import Float64, Int64, Vectors
from reaemb_bench.plots.canvas import panel
from reaemb_bench.plots.plot import Panel, Plot
from reaemb_bench.reporting.table import Cell, Column, Row, Table, number, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 1_500
"""Most items that one map shows."""
_COLOURS = 40
"""So few that matplotlib draws their bar as shapes, not as an image."""


@dataclass(frozen=True)
class Shape:
    """Item vectors in numbers.

    points: (items, 2), their coordinates on the first two principal components. explained: the share of the variance
    along each. effective_rank: exp of the entropy of the normalised singular values of the centred vectors (Roy and
    Vetterli, EUSIPCO 2007): how many directions are in use. mean_cosine: over all pairs of different items; 1 where
    all point the same way.
    """

    points: Float64
    explained: tuple[float, float]
    effective_rank: float
    mean_cosine: float
    width: int


def shape_of(vectors: Vectors) -> Shape:
    """PCA, effective rank and mean cosine of (items, width) vectors, which are read in blocks; never all at once."""
    items, width = vectors.items, vectors.width
    total, squares, directions = np.zeros(width), np.zeros((width, width)), np.zeros(width)
    unit_squares = 0.0
    for block in vectors.blocks():
        rows = block.astype(np.float64)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        unit = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
        total += rows.sum(axis=0)
        squares += rows.T @ rows
        directions += unit.sum(axis=0)
        unit_squares += float((unit**2).sum())
    mean = total / items
    values, axes = np.linalg.eigh(squares - items * np.outer(mean, mean))
    variances = np.clip(values[::-1], 0.0, None)
    leading = axes[:, ::-1][:, :2]
    # The sign of an axis is arbitrary; its largest entry is made positive.
    leading = leading * np.sign(leading[np.abs(leading).argmax(axis=0), range(leading.shape[1])])
    points = np.concatenate([(block.astype(np.float64) - mean) @ leading for block in vectors.blocks()])
    shares = np.append(variances / (variances.sum() or 1.0), 0.0)
    return Shape(
        points=points if points.shape[1] == 2 else np.pad(points, ((0, 0), (0, 1))),
        explained=(float(shares[0]), float(shares[1])),
        effective_rank=_effective_rank(variances),
        mean_cosine=float((directions @ directions - unit_squares) / max(items * (items - 1), 1)),
        width=width,
    )


def readings(shapes: Mapping[str, Shape]) -> tuple[str, ...]:
    """A sentence a map: how many directions its items use, and how alike two of them are."""
    return tuple(
        f"{name}: as if {quantity(each.effective_rank)} of {each.width} directions were used alike; "
        f"two items have a cosine of {number(each.mean_cosine)} on average"
        for name, each in shapes.items()
    )


def draw(shapes: Mapping[str, Shape], popularity: Int64, notes: Sequence[str] = ()) -> Plot:
    """A map for each named shape of the same items. popularity: (items,) training interactions."""
    shown = np.linspace(0, len(popularity) - 1, min(SHOWN, len(popularity))).astype(np.int64)
    some = f"every map shows {len(shown):,} of {len(popularity):,} items; " if len(shown) < len(popularity) else ""
    how = (
        f"{some}each map has axes of its own: the two directions along which its items differ most; "
        "items close to each other need not be close in the directions that are left out",
        "effective rank: exp of the entropy of the normalised singular values (Roy and Vetterli, 2007)",
    )
    return Plot(
        title="Map of the item vectors",
        panels=tuple(_panel(name, each, popularity, shown) for name, each in shapes.items()),
        legend=(),
        readings=readings(shapes),
        notes=(*how, *notes),
        numbers=_numbers(shapes),
    )


def _effective_rank(variances: Float64) -> float:
    singular = np.sqrt(variances)
    if not singular.sum():
        return 0.0
    shares = singular[singular > 0] / singular.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _panel(name: str, shape: Shape, popularity: Int64, shown: Int64) -> Panel:
    heat = np.log10(1.0 + popularity)

    def on(axes: Axes) -> None:
        from matplotlib import colormaps
        from matplotlib.colors import ListedColormap

        x, y = shape.points[shown].T
        # Frequent items are drawn last, for they are few.
        order = np.argsort(heat[shown], kind="stable")
        limits = {"vmin": heat.min(), "vmax": max(heat.max(), heat.min() + 1e-9)}
        # The brightest colours would vanish on white.
        colours = ListedColormap(colormaps["viridis"](np.linspace(0, 0.88, _COLOURS)))
        size = float(np.clip(3_000 / len(shown), 9, 30))
        drawn = axes.scatter(x[order], y[order], c=heat[shown][order], s=size, cmap=colours, linewidths=0, **limits)
        drawn.set_gid("items")
        axes.set_xlabel(f"first component ({_percent(shape.explained[0])} of the variance)", fontsize=12)
        axes.set_ylabel(f"second ({_percent(shape.explained[1])})", fontsize=12)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        marks = np.unique(np.rint(10 ** np.linspace(heat.min(), heat.max(), 4) - 1).astype(np.int64))
        bar = axes.figure.colorbar(drawn, ax=axes, ticks=np.log10(1.0 + marks), pad=0.02)
        bar.ax.set_yticklabels([quantity(mark) for mark in marks])
        bar.ax.minorticks_off()
        # Else the background shines through between the colours.
        assert bar.solids is not None
        bar.solids.set_edgecolor("face")
        bar.set_label("training interactions", fontsize=12)

    alt = f"{len(shown):,} items on two principal components, coloured by popularity. {readings({name: shape})[0]}"
    return panel(name, alt, on)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _numbers(shapes: Mapping[str, Shape]) -> Table:
    columns = (
        Column("width", cost=True),
        Column("effective rank", cost=True),
        Column("mean cosine"),
        Column("variance", "first axis"),
        Column("variance", "second axis"),
    )
    rows = [
        Row(name, tuple(map(Cell, (each.width, each.effective_rank, each.mean_cosine, *each.explained))))
        for name, each in shapes.items()
    ]
    return Table("", columns, tuple(rows), ())
