"""Colours, numbers and axes: what both pictures share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ftkit.tasks.curves.line import Array, Curve, Line

LIGHT = ("#3673cb", "#ee6a50", "#004d30", "#8f6500", "#6f0587", "#0aa0d2", "#5f5f5f")
"""Colours on white; with any of the three kinds of colour blindness they stay apart."""

DARK = ("#497ef7", "#d9480f", "#40c59b", "#f68c11", "#be9df7", "#73eef4", "#7a7a7a")
"""The same on a dark ground."""

DASHES: tuple[tuple[float, ...], ...] = ((), (5.0, 2.0), (1.2, 1.4))
"""How lines are drawn, in units of their width; each goes through all colours."""

MOST_LINES = len(LIGHT) * len(DASHES)
"""More cannot be told apart."""

MOST_POINTS = 400
"""A curve of more is thinned before it is drawn into a page."""

FEW_POINTS = 30
"""A curve of at most so many gets a mark at each."""

FEW_LINES = 4
"""With at most so many lines, what was before smoothing is drawn too, faintly; with more, bands are
fainter."""

MOST_DIGITS = 17
"""No two numbers look the same in so many."""

PAD = 0.05
"""What an axis reaches beyond its values, in parts of their range."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a line is drawn."""

    colour: int
    """Index into ``LIGHT`` and ``DARK``."""
    dashes: tuple[float, ...]

    @classmethod
    def of(cls, index: int) -> Look:
        """Return the look of the line of an index below ``MOST_LINES``."""
        return cls(index % len(LIGHT), DASHES[index // len(LIGHT)])


def short(x: float) -> str:
    """Put a number in few characters.

    >>> [short(x) for x in (0, 0.25, 1500, 2_500_000, -0.00048, 12e9)]
    ['0', '0.25', '1.5k', '2.5M', '-4.8e-4', '12G']
    """
    if 0 < abs(x) < 1e-3:  # noqa: PLR2004  (more zeros are hard to count)
        digits, power = f"{x:.3e}".split("e")
        return f"{float(digits):g}e{int(power)}"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= size:
            return f"{x / size:.4g}{unit}"
    return f"{x:.4g}"


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most so many round numbers in a range, equally far apart.

    >>> ticks(0.13, 0.58, 5), ticks(0, 375, 5)
    ([0.2, 0.3, 0.4, 0.5], [0.0, 100.0, 200.0, 300.0])
    """
    rough = (high - low) / most
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * by for by in (1, 2, 5, 10, 20) if high - low < size * by * most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, 2 - math.floor(math.log10(step)))
    return [round(n * step, digits) for n in range(first, last + 1)]


def texts(values: Sequence[float]) -> list[str]:
    """Put the numbers of an axis in so few characters that they are still different.

    >>> texts([0.2, 0.4]), texts([1000.01, 1000.02])
    (['0.2', '0.4'], ['1000.01', '1000.02'])
    """
    told = [short(value) for value in values]
    digits = 4
    while len(set(told)) < len(told) and digits < MOST_DIGITS:
        digits += 1
        told = [f"{value:.{digits}g}" for value in values]
    return told


def reach(lines: Sequence[Line], name: str) -> tuple[float, float]:
    """Return from where to where the axis of a measure goes: all that is drawn, and a little."""
    drawn = [
        values
        for line in lines
        if (curve := line.curves.get(name))
        for values in (curve.value, curve.low, curve.high)
        if values is not None
    ]
    low, high = min(float(v.min()) for v in drawn), max(float(v.max()) for v in drawn)
    pad = PAD * (high - low) or PAD * abs(high) or PAD
    return low - pad, high + pad


def shade(lines: Sequence[Line]) -> float:
    """Return the opacity of bands: many lie on top of each other."""
    return 0.15 if len(lines) <= FEW_LINES else 0.09


def extent(lines: Sequence[Line], axis: str) -> tuple[float, float]:
    """Return from where to where ``step`` or ``tokens`` go: from 0 to the last of any curve."""
    curves = [curve for line in lines for curve in line.curves.values()]
    return 0.0, max(float(getattr(curve, axis).max()) for curve in curves) or 1.0


def thinned(curve: Curve, most: int = MOST_POINTS) -> Curve:
    """Return a curve of at most so many points: of each stretch the lowest and the highest."""
    if len(curve.step) <= most:
        return curve
    keep = {0, len(curve.step) - 1}
    for part in np.array_split(np.arange(len(curve.step)), most // 2 - 1):
        keep |= {int(part[curve.value[part].argmin()]), int(part[curve.value[part].argmax()])}
    index = np.array(sorted(keep))

    def of(values: Array | None) -> Array | None:
        return None if values is None else values[index]

    return Curve(
        curve.step[index],
        curve.tokens[index],
        curve.value[index],
        curve.raw[index],
        of(curve.low),
        of(curve.high),
    )
