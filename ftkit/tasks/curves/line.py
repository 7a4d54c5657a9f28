"""Lines of a picture: a run, or several that differ by their seed, as curves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ftkit.core.errors import user_error
from ftkit.core.intervals import Z
from ftkit.tasks.curves.log import EVAL, Point, RunLog

Array = np.ndarray[tuple[int], np.dtype[np.float64]]

STANDARD = (
    "reward",
    "entropy",
    "kl",
    "length",
    "eval.exact_match",
    "eval.exact_match_sampled",
    "eval.reward_accuracy",
    "loss",
)
"""What is drawn where nothing else is asked for, as far as any run has it."""

TITLES = {
    "reward": "reward",
    "entropy": "entropy, nats a token",
    "kl": "KL, nats",
    "length": "answer length, tokens",
    "eval.exact_match": "held-out accuracy, greedy",
    "eval.exact_match_sampled": "held-out accuracy, sampled",
    "eval.reward_accuracy": "held-out reward accuracy",
    "eval.loss": "held-out loss",
    "loss": "loss",
}
"""What measures are called."""

LATE = 10
"""The final figure of a measure of training is its mean over the last tenth of the steps."""

T = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
"""Student's t: its 97.5 % quantiles at 1 to 9 degrees of freedom."""


@dataclass(frozen=True)
class Curve:
    """A measure over a line's steps; all arrays are of the same length, at least 1."""

    step: Array
    tokens: Array
    """Seen so far; the mean over the runs."""
    value: Array
    raw: Array
    """Before smoothing."""
    low: Array | None = None
    high: Array | None = None
    """Of several runs mean ± standard error; of one the 95 % interval, where it was measured."""


@dataclass(frozen=True)
class Figure:
    """Where a line ends up in a measure."""

    value: float
    interval: tuple[float, float] | None
    """Of several runs Student's 95 % interval over the runs, of one that over held-out rows."""
    runs: int
    """How many runs have it."""


@dataclass(frozen=True)
class Line:
    """One line of the picture."""

    label: str
    detail: str
    """Its method and what sets it apart."""
    runs: Sequence[RunLog]
    curves: dict[str, Curve] = field(default_factory=dict)
    finals: dict[str, Figure] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """The last step of the run that went furthest."""
        return max(log.steps[-1] for log in self.runs)

    @property
    def tokens(self) -> int:
        """Tokens that a run has seen at its end, the mean over the runs."""
        return round(statistics.fmean(log.tokens[-1] for log in self.runs))


def choose(logs: Sequence[RunLog], asked: Sequence[str]) -> list[str]:
    """Return the measures to draw.

    Args:
        logs: the runs.
        asked: names, those of held-out measures with or without ``eval.``; none = ``STANDARD``.

    Raises:
        UserError: if no run has one of them.
    """
    known = dict.fromkeys(name for log in logs for name in log.measures)
    if not known:
        raise user_error(str(logs[0].path), "the runs measured nothing", "name other runs")
    if not asked:
        chosen = [name for name in STANDARD if name in known]
        return chosen or list(known)[:1]
    wanted = [name if name in known else f"{EVAL}{name}" for name in asked]
    unknown = [a for a, name in zip(asked, wanted, strict=True) if name not in known]
    if unknown:
        raise user_error(
            f"--metrics {','.join(unknown)}",
            "no run has it",
            f"choose among {', '.join(sorted(known))}",
        )
    return list(dict.fromkeys(wanted))


def build_line(
    label: str, detail: str, runs: Sequence[RunLog], measures: Sequence[str], smooth: int
) -> Line:
    """Return the line of some runs.

    Args:
        label: its name.
        detail: what sets it apart.
        runs: one, or several of recipes that differ by their seed.
        measures: which curves it gets.
        smooth: training measures are averaged over about so many steps; held-out ones never.
    """
    line = Line(label, detail, runs)
    missing = [name for name in measures if not any(name in log.measures for log in runs)]
    if missing:
        line.notes.append(f"has no {', '.join(missing)}")
    for name in (name for name in measures if name not in missing):
        having = [log for log in runs if name in log.measures]
        if len(having) < len(runs):
            line.notes.append(f"{name}: measured in {len(having)} of {len(runs)} runs")
        steps = _common([log.measures[name] for log in having])
        if not steps:
            line.notes.append(f"{name}: its runs have no step in common; not drawn")
            continue
        width = 1 if name.startswith(EVAL) else points_of(smooth, steps)
        line.curves[name] = _curve(having, name, steps, width)
        line.finals[name] = _final(having, name, steps)
    lasts = sorted({log.steps[-1] for log in runs})
    if len(lasts) > 1:
        line.notes.append(
            f"runs end at steps {lasts[0]:,} to {lasts[-1]:,}; drawn as far as all go"
        )
    return line


def _common(points: Sequence[Mapping[int, Point]]) -> list[int]:
    """Return the steps that all have, in order."""
    return sorted(set(points[0]).intersection(*points[1:]))


def _curve(runs: Sequence[RunLog], name: str, steps: Sequence[int], smooth: int) -> Curve:
    """Return the curve of one measure."""
    found = [[log.measures[name][step] for step in steps] for log in runs]
    raw = np.array([[point.value for point in row] for row in found])
    value = np.array([smoothed(row, smooth) for row in raw])
    tokens = np.array([[log.tokens_at(step) for step in steps] for log in runs], float).mean(0)
    low = high = None
    if len(runs) > 1:
        error = value.std(0, ddof=1) / math.sqrt(len(runs))
        low, high = value.mean(0) - error, value.mean(0) + error
    elif any(point.low is not None for point in found[0]):
        low, high = (
            np.array([point.value if end is None else end for point, end in ends])
            for ends in (
                [(point, point.low) for point in found[0]],
                [(point, point.high) for point in found[0]],
            )
        )
    return Curve(np.array(steps, float), tokens, value.mean(0), raw.mean(0), low, high)


def points_of(width: int, steps: Sequence[int]) -> int:
    """Return how many points so many steps hold: a rollout's measures have one in several steps.

    >>> points_of(12, range(1, 9)), points_of(12, [1, 5, 9, 13]), points_of(3, [1, 5, 9])
    (12, 3, 1)
    """
    if len(steps) == 1:
        return 1
    return max(1, round(width * (len(steps) - 1) / (steps[-1] - steps[0])))


def smoothed(values: Array, width: int) -> Array:
    """Return the mean of the ``width`` values around each, of fewer at the ends.

    >>> smoothed(np.array([0.0, 3.0, 6.0, 0.0]), 3).tolist()
    [1.5, 3.0, 3.0, 3.0]
    """
    if width <= 1:
        return values
    sums = np.concatenate([[0.0], np.cumsum(values)])
    here = np.arange(len(values))
    first = np.maximum(here - (width - 1) // 2, 0)
    last = np.minimum(here + width // 2, len(values) - 1)
    means: Array = (sums[last + 1] - sums[first]) / (last + 1 - first)
    return means


def _final(runs: Sequence[RunLog], name: str, steps: Sequence[int]) -> Figure:
    """Return where a measure ends up, at the steps that all runs have."""
    late = [steps[-1]] if name.startswith(EVAL) else steps[-max(1, len(steps) // LATE) :]
    values = [statistics.fmean(log.measures[name][step].value for step in late) for log in runs]
    value = statistics.fmean(values)
    if len(runs) > 1:
        reach = student(len(runs) - 1) * statistics.stdev(values) / math.sqrt(len(runs))
        return Figure(value, (value - reach, value + reach), len(runs))
    point = runs[0].measures[name][late[-1]]
    known = name.startswith(EVAL) and point.low is not None and point.high is not None
    return Figure(value, (point.low or 0.0, point.high or 0.0) if known else None, 1)


def student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t: from a table, then by a series around Z.

    Source of the series: Abramowitz and Stegun, 1964, 26.7.5.

    >>> student(2), round(student(10), 3), round(student(30), 3)
    (4.3027, 2.228, 2.042)
    """
    if freedom <= len(T):
        return T[freedom - 1]
    first = (Z**3 + Z) / 4
    second = (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96
    third = (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384
    return Z + first / freedom + second / freedom**2 + third / freedom**3
