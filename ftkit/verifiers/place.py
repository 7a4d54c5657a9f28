"""Where in a text the answer stands: after a marker, in a box; never "the last number"."""

from __future__ import annotations

import re

BOX = re.compile(r"\\boxed\s*\{")

DEEPEST = 3
"""Boxes in a box that are opened."""


class MissingError(ValueError):
    """The answer does not stand where it must."""


def taken(text: str, *, after: str | None = None, boxed: bool = False) -> str:
    r"""Return the answer that a text gives, stripped.

    Args:
        text: what was said.
        after: only what follows the last occurrence of this counts.
        boxed: only what is in LaTeX's box counts.

    Raises:
        MissingError: if there is no such place, or boxes differ.

    >>> taken("6 * 7 #### 42 ", after="####")
    '42'
    >>> taken(r"so it is $\boxed{\frac{1}{2}}$.", boxed=True)
    '\\frac{1}{2}'
    """
    if after is not None:
        _, found, text = text.rpartition(after)
        if not found:
            raise MissingError(f"no '{after}' in the answer")
    if boxed:
        text = _of_boxes(text)
    return text.strip()


def taken_of_truth(text: str, *, after: str | None = None, boxed: bool = False) -> str:
    """Return what a truth says: where an answer must say it, or else the whole of it."""
    for marker, box in ((after, boxed), (after, False), (None, boxed)):
        try:
            return taken(text, after=marker, boxed=box)
        except MissingError:
            continue
    return text.strip()


def _of_boxes(text: str) -> str:
    found = boxes(text)
    if not found:
        raise MissingError("no \\boxed{} in the answer")
    if len({re.sub(r"\s+", "", each) for each in found}) > 1:
        raise MissingError(f"{len(found)} boxes that differ")
    return found[-1]


def boxes(text: str) -> list[str]:
    r"""Return what is in each outermost ``\boxed{}``; of a box in a box, the inner.

    >>> boxes(r"\boxed{1} \boxed{ \boxed{2}} \boxed{3")
    ['1', '2']
    """
    found, start = [], 0
    while opened := BOX.search(text, start):
        end = closing(text, opened.end())
        if end is None:
            break
        found.append(_innermost(text[opened.end() : end].strip()))
        start = end + 1
    return found


def _innermost(inside: str) -> str:
    """Return what is in a box in a box; deeper than so, nobody means it."""
    for _ in range(DEEPEST):
        opened = BOX.match(inside)
        if opened is None or closing(inside, opened.end()) != len(inside) - 1:
            break
        inside = inside[opened.end() : -1].strip()
    return inside


def closing(text: str, start: int) -> int | None:
    """Return where the brace closes that was opened before ``start``; None = it does not."""
    depth, at = 1, start
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            at += 1  # an escaped brace is no brace
        elif letter in "{}":
            depth += 1 if letter == "{" else -1
            if depth == 0:
                return at
        at += 1
    return None
