"""The PNG: all measures against steps and against tokens."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ftkit.tasks.curves.line import TITLES, Curve, Line
from ftkit.tasks.curves.style import (
    FEW_LINES,
    FEW_POINTS,
    LIGHT,
    Look,
    extent,
    reach,
    shade,
    texts,
    ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = (3.6, 2.15)
"""Width and height of one pair of axes, in inches."""
GAP = 0.72
"""Height between rows: numbers, the axis's name, the next title."""
LEFT, RIGHT, BETWEEN, WITHIN = 0.65, 0.2, 0.75, 0.18
"""Margins, and what is between pairs and within them, in inches."""
LEGEND_ROW, TITLE, NOTE = 0.2, 0.55, 0.2
"""Heights in inches."""
CHARACTER = 0.076
"""Width of a character of the legend, in inches; about."""
HANDLE = 0.6
"""Width of what stands before it."""

SIDE = 0.015
"""Of the width, empty at each end."""

STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a9099",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": "#e3e6ea",
    "grid.linewidth": 0.7,
    "xtick.color": "#4a5059",
    "ytick.color": "#4a5059",
    "text.color": "#1b1f24",
    "text.parse_math": False,
    "axes.unicode_minus": True,
}


def draw(lines: Sequence[Line], measures: Sequence[str], notes: Sequence[str], maker: str) -> bytes:
    """Return the picture as the bytes of a PNG.

    Args:
        lines: what to draw.
        measures: a panel each.
        notes: what stands below.
        maker: what is written into the file as the program that made it.
    """
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with matplotlib.style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # drawn as a box
        figure = _figure(lines, measures, notes)
        out = io.BytesIO()
        FigureCanvasAgg(figure)
        figure.savefig(out, format="png", dpi=150, metadata={"Software": maker})
    return out.getvalue()


def _figure(lines: Sequence[Line], measures: Sequence[str], notes: Sequence[str]) -> Figure:
    """Lay out title, legend, panels and notes from top to bottom, in inches."""
    from matplotlib.figure import Figure

    across = min(2, len(measures))
    rows = math.ceil(len(measures) / across)
    pair = 2 * PANEL[0] + WITHIN
    width = LEFT + across * pair + (across - 1) * BETWEEN + RIGHT
    most = int((width - LEFT - HANDLE) / CHARACTER)
    told = [_cut(" \u2013 ".join(filter(None, (line.label, line.detail))), most) for line in lines]
    columns = max(1, int(width / (max(map(len, told)) * CHARACTER + HANDLE)))
    legend = math.ceil(len(told) / columns) * LEGEND_ROW
    below = [part for note in notes for part in textwrap.wrap(note, int(width / 0.068))]
    height = TITLE + legend + rows * (PANEL[1] + GAP) + NOTE * (len(below) + 1)
    figure = Figure(figsize=(width, height), facecolor="white")
    count = f"{len(lines)} lines" if len(lines) > 1 else lines[0].label
    runs = sum(len(line.runs) for line in lines)
    said = f"Training dynamics: {count}" + (f", {runs} runs" if runs != len(lines) else "")
    figure.text(LEFT / width, 1 - 0.3 / height, said, size=13, weight="bold", va="center")
    _legend(figure, told, columns, (LEFT / width, 1 - 0.45 / height))
    for n, name in enumerate(measures):
        top = height - TITLE - legend - (n // across) * (PANEL[1] + GAP) - 0.25
        left = LEFT + (n % across) * (pair + BETWEEN)
        _pair(figure, lines, name, (left / width, (top - PANEL[1]) / height), (width, height))
    for n, part in enumerate(reversed(below)):
        figure.text(LEFT / width, (0.12 + n * NOTE) / height, part, size=8, color="#4a5059")
    return figure


def _cut(text: str, most: int) -> str:
    """Return a text of at most so many characters.

    >>> _cut("abcdef", 4), _cut("abcd", 4)
    ('abc…', 'abcd')
    """
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"


def _legend(figure: Figure, told: Sequence[str], columns: int, at: tuple[float, float]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **_stroke(n, 2.2)) for n in range(len(told))]
    drawn = figure.legend(
        handles,
        [" "] * len(told),  # a name that begins with _ would be left out
        loc="upper left",
        bbox_to_anchor=at,
        ncols=columns,
        frameon=False,
        borderpad=0.0,
        borderaxespad=0.0,
        handlelength=2.8,
        labelspacing=0.55,
    )
    for text, said in zip(drawn.get_texts(), told, strict=True):
        text.set_text(said)


def _stroke(index: int, width: float) -> dict[str, Any]:
    look = Look.of(index)
    dashes = {"linestyle": (0, look.dashes)} if look.dashes else {}
    return {"color": LIGHT[look.colour], "linewidth": width, **dashes}


def _pair(
    figure: Figure,
    lines: Sequence[Line],
    name: str,
    at: tuple[float, float],
    size: tuple[float, float],
) -> None:
    """Draw one measure against steps and, to its right, against tokens."""
    width, height = PANEL[0] / size[0], PANEL[1] / size[1]
    for n, axis in enumerate(("step", "tokens")):
        axes = figure.add_axes((at[0] + n * (width + WITHIN / size[0]), at[1], width, height))
        for index, line in enumerate(lines):
            raw = len(lines) <= FEW_LINES and len(line.runs) == 1
            _draw_line(axes, line.curves.get(name), axis, index, raw=raw, opacity=shade(lines))
        up, across = reach(lines, name), extent(lines, axis)
        axes.set_ylim(*up)
        axes.set_xlim(-SIDE * across[1], (1 + SIDE) * across[1])
        axes.set_yticks(found := ticks(*up, 5), texts(found))
        axes.set_xticks(found := ticks(*across, 5), texts(found))
        axes.tick_params(length=0, labelleft=n == 0)
        axes.set_xlabel(axis + "s" * (axis == "step"), color="#4a5059", labelpad=2)
    title_at = (at[0], at[1] + height + 0.09 / size[1])
    figure.text(*title_at, TITLES.get(name, name), size=10.5, weight="bold")


def _draw_line(
    axes: Axes, curve: Curve | None, axis: str, index: int, *, raw: bool, opacity: float
) -> None:
    """Draw a curve, with its band and, faintly, what was before smoothing."""
    if curve is None:
        return
    x, stroke = getattr(curve, axis), _stroke(index, 1.5)
    if raw and (curve.raw != curve.value).any():
        axes.plot(x, curve.raw, color=stroke["color"], linewidth=0.6, alpha=0.28, zorder=1)
    if curve.low is not None and curve.high is not None:
        axes.fill_between(
            x, curve.low, curve.high, color=stroke["color"], alpha=opacity, linewidth=0
        )
        if len(x) == 1:
            axes.vlines(x, curve.low, curve.high, color=stroke["color"], linewidth=1.2, alpha=0.6)
    if len(x) <= FEW_POINTS:
        stroke |= {"marker": "o", "markersize": 3.2, "markeredgewidth": 0}
    axes.plot(x, curve.value, zorder=3, solid_joinstyle="round", **stroke)
