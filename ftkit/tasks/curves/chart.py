"""One measure against one axis, as an SVG that a page colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ftkit.tasks.curves.line import TITLES, Array, Curve, Line
from ftkit.tasks.curves.style import (
    FEW_LINES,
    FEW_POINTS,
    Look,
    extent,
    reach,
    shade,
    texts,
    thinned,
    ticks,
)

WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 38
STROKE = 2.0
"""Widths in pixels; dashes are multiples of it."""


@dataclass(frozen=True)
class Frame:
    """Where values lie in a chart."""

    x: tuple[float, float]
    y: tuple[float, float]

    def across(self, value: float) -> float:
        """Return the pixel of a value along the axis."""
        low, high = self.x
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)

    def up(self, value: float) -> float:
        """Return the pixel of a measure's value."""
        low, high = self.y
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    def path(self, x: Array, y: Array) -> str:
        """Return points as an SVG path."""
        points = zip(x.tolist(), y.tolist(), strict=True)
        return "M" + "L".join(f"{self.across(a):.1f} {self.up(b):.1f}" for a, b in points)


def chart(lines: Sequence[Line], name: str, axis: str) -> tuple[str, dict[str, Any]]:
    """Draw a chart.

    Args:
        lines: what to draw.
        name: the measure.
        axis: ``step`` or ``tokens``.

    Returns:
        The SVG, and what a script needs to say what lies under the pointer: the ends of the axis
        and of each line ``[index, xs, values, lows or null, highs or null]``.
    """
    frame = Frame(extent(lines, axis), reach(lines, name))
    said = f"{TITLES.get(name, name)} against {axis}"
    parts = [_axes(frame, axis)]
    told = []
    for index, line in enumerate(lines):
        if name not in line.curves:
            continue
        curve = thinned(line.curves[name])
        raw = len(lines) <= FEW_LINES and len(line.runs) == 1
        parts.append(_line(frame, curve, axis, index, raw=raw))
        numbers = (getattr(curve, axis), curve.value, curve.low, curve.high)
        told.append([index, *(None if n is None else _numbers(n) for n in numbers)])
    parts.append(f'<line class="at" y1="{TOP}" y2="{HEIGHT - BOTTOM}" x1="-9" x2="-9"/>')
    label = f'role="img" aria-label="{escape(said)}" style="--shade:{shade(lines)}"'
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" {label}>{"".join(parts)}</svg>'
    sides = {"width": WIDTH, "left": LEFT, "right": RIGHT}
    return svg, {"axis": axis, "x": frame.x, "lines": told, **sides}


def _numbers(values: Array) -> list[float]:
    """Round to what can be seen."""
    return [float(f"{value:.6g}") for value in values.tolist()]


def _axes(frame: Frame, axis: str) -> str:
    """Draw grid, numbers and the axis's name."""
    base, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    ups, acrosses = ticks(*frame.y, 5), ticks(*frame.x, 6)
    for value, text in zip(ups, texts(ups), strict=True):
        y = f"{frame.up(value):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y}" dy="4" text-anchor="end">{text}</text>')
    for value, text in zip(acrosses, texts(acrosses), strict=True):
        x = f"{frame.across(value):.1f}"
        parts.append(f'<text x="{x}" y="{base + 15}" text-anchor="middle">{text}</text>')
    name = axis + "s" * (axis == "step")
    parts.append(f'<line class="base" x1="{LEFT}" x2="{right}" y1="{base}" y2="{base}"/>')
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{name}</text>')
    return "".join(parts)


def dashes(look: Look) -> str:
    """Return a line's dashes as an attribute."""
    if not look.dashes:
        return ""
    return f' stroke-dasharray="{" ".join(f"{STROKE * part:g}" for part in look.dashes)}"'


def _line(frame: Frame, curve: Curve, axis: str, index: int, *, raw: bool) -> str:
    """Draw a curve, with its band and, faintly, what was before smoothing."""
    look, x = Look.of(index), getattr(curve, axis)
    parts = []
    if curve.low is not None and curve.high is not None:
        outline = frame.path(x, curve.high) + frame.path(x[::-1], curve.low[::-1]).replace("M", "L")
        bar = ' class="bar"' if len(x) == 1 else ' class="band"'
        parts.append(f'<path{bar} d="{outline}Z"/>')
    if raw and (curve.raw != curve.value).any():
        clipped = curve.raw.clip(*frame.y)
        parts.append(f'<path class="raw" d="{frame.path(x, clipped)}"/>')
    parts.append(f'<path class="line"{dashes(look)} d="{frame.path(x, curve.value)}"/>')
    if len(x) <= FEW_POINTS:
        parts += [
            f'<circle cx="{frame.across(a):.1f}" cy="{frame.up(b):.1f}" r="2.8"/>'
            for a, b in zip(x.tolist(), curve.value.tolist(), strict=True)
        ]
    return f'<g class="of c{look.colour}" data-line="{index}">{"".join(parts)}</g>'
