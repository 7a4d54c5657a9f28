"""DAPO's soft punishment of long answers (arXiv:2503.14476, equation 13)."""

from __future__ import annotations

from ftkit.verifiers.base import Item, Verdict
from ftkit.verifiers.config import LengthConfig


def length(item: Item, config: LengthConfig) -> Verdict:
    """Return 0 up to ``soft`` tokens, -1 from ``hard`` on, and a line between the two.

    The stop token counts.

    >>> config = LengthConfig(name="length", soft=6, hard=10)
    >>> [length(Item("a", "", tokens=(1,) * n), config).reward for n in (6, 7, 10, 11)]
    [0.0, -0.25, -1.0, -1.0]
    """
    n = len(item.tokens)
    if n == 0 and item.answer:
        return Verdict("error", None, "the answer's tokens are not known")
    beyond = (n - config.soft) / (config.hard - config.soft)
    reward = -min(max(beyond, 0.0), 1.0) + 0.0
    if reward == 0:
        return Verdict("correct", 0.0)
    return Verdict("incorrect", reward, f"{n} tokens are more than {config.soft}")
