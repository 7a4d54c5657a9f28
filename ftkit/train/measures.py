"""What an evaluation said, by the names that recipes use: ``eval.loss``, ``eval.exact_match``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def value_of(found: Mapping[str, Any], name: str) -> float:
    """Return a measure by the name that recipes use: ``eval.loss``, ``eval.exact_match``."""
    value = found[name.removeprefix("eval.")]["value"]
    return math.nan if value is None else float(value)


def lower_is_better(name: str) -> bool:
    """Whether a measure improves downwards."""
    return name.removeprefix("eval.") in {"loss", "nll", "perplexity"}


def reaches(name: str, value: float, target: float) -> bool:
    """Whether a measure has reached its target.

    >>> reaches("eval.loss", 1.9, 2.0), reaches("eval.exact_match", 0.4, 0.5)
    (True, False)
    """
    return value <= target if lower_is_better(name) else value >= target


def better(name: str, value: float, than: float) -> bool:
    """Whether a measure is strictly better than another."""
    return value < than if lower_is_better(name) else value > than


def summary(found: Mapping[str, Any]) -> str:
    """Put an evaluation in a line.

    >>> summary({"n": 3, "loss": {"value": 1.25}})
    'eval n 3  loss 1.25'
    """
    figures = {k: v["value"] for k, v in found.items() if isinstance(v, Mapping) and "value" in v}
    told = (f"{k} no number" if v is None else f"{k} {v:.4g}" for k, v in figures.items())
    return "  ".join([f"eval n {found['n']}", *told])
