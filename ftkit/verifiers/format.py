"""1 if the whole answer matches a regular expression."""

from __future__ import annotations

import re

from ftkit.verifiers.base import Item, ItemVerifier, Verdict


def make(*, pattern: str) -> ItemVerifier:
    """Return the verifier of ``FormatConfig``.  It may take for ever: it runs in a pool.

    >>> make(pattern="<a>.*</a>")(Item("<a>42</a> ", "")).reward
    0.0
    """
    compiled = re.compile(pattern)

    def verify(item: Item) -> Verdict:
        if compiled.fullmatch(item.answer):
            return Verdict("correct", 1.0)
        return Verdict("incorrect", 0.0, "the answer does not match the pattern")

    return verify
