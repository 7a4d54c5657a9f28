"""Right if the answer is the truth, letter for letter."""

from __future__ import annotations

from ftkit.verifiers.base import Verdict, Verifier
from ftkit.verifiers.config import ExactConfig


def exact(config: ExactConfig) -> Verifier:
    """Return the verifier that compares text (``ExactConfig``).

    >>> exact(ExactConfig(name="exact"))(" 42 ", "42").status
    'correct'
    >>> exact(ExactConfig(name="exact", after="####"))("6 * 7 = 42", "42").status
    'unparseable'
    """

    def verify(answer: str, truth: str) -> Verdict:
        said, expected = _after(answer, config.after), _after(truth, config.after)
        if said is None:
            return Verdict("unparseable", 0.0, f"no '{config.after}' in the answer")
        # A truth without the marker is a column of bare results.
        expected = truth.strip() if expected is None else expected
        if said == expected:
            return Verdict("correct", 1.0)
        return Verdict("incorrect", 0.0, f"'{said}' is not '{expected}'")

    return verify


def _after(text: str, marker: str | None) -> str | None:
    """Return what follows the last marker, stripped; None if there is none."""
    if marker is None:
        return text.strip()
    _, found, rest = text.rpartition(marker)
    return rest.strip() if found else None
