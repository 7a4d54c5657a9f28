"""The learning rate, as a function of the step alone: nothing to save, nothing to drift."""

from __future__ import annotations

import math
from typing import Literal

Shape = Literal["constant", "linear", "cosine"]


def learning_rate(
    step: int, *, steps: int, lr: float, shape: Shape, warmup: float, min_lr: float = 0.0
) -> float:
    """Return the learning rate of a step.

    It rises along a line over the warm-up, reaches ``lr`` at its last step, and then stays or
    falls to ``min_lr * lr``, which the step after the last would have.

    Args:
        step: from 1 to ``steps``.
        steps: of the whole run.
        lr: the highest.
        shape: how it falls.
        warmup: a share of all steps below 1, a number of steps from 1 on.
        min_lr: where it ends, as a share of ``lr``.

    >>> [learning_rate(t, steps=4, lr=1.0, shape="linear", warmup=2) for t in (1, 2, 3, 4)]
    [0.5, 1.0, 1.0, 0.5]
    >>> learning_rate(6, steps=10, lr=1.0, shape="cosine", warmup=0)
    0.5
    """
    rise = round(warmup * steps) if warmup < 1 else round(warmup)
    if step <= rise:
        return lr * step / rise
    if shape == "constant":
        return lr
    done = (step - 1 - rise) / max(steps - rise, 1)
    left = 1 - done if shape == "linear" else (1 + math.cos(math.pi * done)) / 2
    return lr * (min_lr + (1 - min_lr) * left)
