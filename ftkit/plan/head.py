"""What the head holds, whose log-probabilities are computed in tiles (``model.head``)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ftkit.model.head import TILE_ELEMENTS
from ftkit.plan.spread import WIDE

if TYPE_CHECKING:
    from ftkit.plan.facts import Facts


def head_bytes(facts: Facts, learnt: int, device: str) -> tuple[int, int]:
    """Return the bytes at its busiest moment, and those that stay for the body's backward pass.

    With M tokens, V of them known, d the width, m tokens in a tile: float32 logits, 4 m V; the
    float32 gradient of the head's weight, 4 V d, where it trains; the gradient of the hidden
    states.  With 16-bit weights besides: on a GPU the gradient of the logits, 2 m V, and a product
    of the weight's size; on a CPU, which has no such products with float32 sums, a float32 copy of
    the weight and of the tile's states.

    Args:
        facts: of the model.
        learnt: M.
        device: ``cpu`` or ``cuda``.
    """
    element, width, vocabulary = facts.element, facts.width, facts.vocabulary
    states = learnt * width * element
    if not vocabulary:  # a scalar one
        return 2 * learnt * width * WIDE + states, states
    weight, trains = vocabulary * width, facts.head_trains
    kept = states + trains * weight * element
    if facts.logits:
        return learnt * vocabulary * (2 * element + 3 * WIDE) + kept, kept
    tile = _tile(learnt, vocabulary, device)
    logits, total = tile * vocabulary * WIDE, trains * weight * WIDE + states
    if element == WIDE:
        return logits + total, kept
    backward = logits + tile * vocabulary * element + trains * weight * element
    forward = logits + (weight + tile * width) * WIDE if device == "cpu" else logits
    return max(forward, backward, trains * weight * element) + total, kept


def _tile(learnt: int, vocabulary: int, device: str) -> int:
    """Return the tokens of the largest tile."""
    count = math.ceil(learnt / max(16, TILE_ELEMENTS[device] // vocabulary))
    return math.ceil(learnt / max(count, 1))
