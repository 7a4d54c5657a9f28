r"""Right if the answer is mathematically equal to the truth, by math-verify.

The library takes `10\%` for 10, 11_2 for 11, `3=42` for 42, 6*7 for 42, `41 42` for 83 and `sye`
for `yes`: what it would misread is settled here before it is asked.  Its own time limits work by an
alarm, in the main thread only and in whole seconds: they are off, and it runs in a pool.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Any

from ftkit.verifiers.base import Item, ItemVerifier, Verdict
from ftkit.verifiers.place import MissingError, closing, taken, taken_of_truth


class UnreadableError(ValueError):
    """An answer that says nothing, or nothing certain: why."""


LONGEST = 2_000
"""Letters of an answer that is read."""
KEPT = 10_000
"""Truths that are read once."""

DIGITS = r"(?:[0-9]{1,3}(?:(?:,|\{,\})[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
PLAIN = re.compile(rf"[+-]?(?:{DIGITS})")
VALUE = re.compile(
    rf"[+-]?(?:(?:{DIGITS})(?:/(?:{DIGITS}))?(?:(?:\\times|\\cdot)10\^(?:\{{[+-]?[0-9]+\}}|[0-9]))?"
    rf"|(?:[0-9]*)\\[dt]?frac(?:\{{[+-]?(?:{DIGITS})\}}\{{(?:{DIGITS})\}}|[0-9][0-9]))"
)
"""What is a number without being worked out: digits, a fraction, a power of ten."""
UNIT = re.compile(
    r"(?:\s|\\[,!;: ]|~)*(?:\\(?:text|mathrm|mbox|textbf|textit)\s*\{[^{}0-9]*\}(?:\^\{?[0-9]\}?)?"
    r"|\^\s*\{?\s*\\circ\s*\}?|(?<=[0-9}])\s+[a-zA-Z]{2}[a-zA-Z ]*)$"
)
"""What may follow a plain number and means nothing."""
NO_UNIT = re.compile(
    r"(?<![a-z])(?:(?:hundred|thousand|[a-z]+illion|dozen|score|third|quarter|time)s?|percent|half"
    r"|halves|squared?|cubed?|factorial|over|plus|minus|divided|mod|root|or|and|not)(?![a-z])"
)
"""Words after a number that change it."""
SPACES = re.compile(r"\\[,!;: ]|\\q?quad(?![a-zA-Z])|~|\s+")
SIDE = re.compile(r"\\?[a-zA-Z]+(?:_\{?\w+\}?)?(?:\([a-zA-Z]\))?")
TEXT = re.compile(r"\\(?:text|mathrm|mbox|textbf|textit)\s*\{([^{}]*)\}")
BASED = re.compile(r"[0-9]\s*\}?\s*_")
TWO = re.compile(r"[0-9](?:\s|\\[,!;: ]|\\q?quad|~)+[0-9]")
GROUPS = re.compile(r"[0-9]{1,3}(?:(?:\s|\\[,!;: ]|~)+[0-9]{3})+(?![0-9])")
OR = re.compile(r"(?<![a-zA-Z])(?:or|and)(?![a-zA-Z])")
PERCENT = re.compile(r"\\?%")


def make(*, after: str | None, boxed: bool, worked_out: bool, percent: str) -> ItemVerifier:
    """Return the verifier of ``MathConfig``."""
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    place = {"after": after, "boxed": boxed}

    def verify(item: Item) -> Verdict:
        truth = taken_of_truth(item.truth, **place)  # type: ignore[arg-type]
        try:
            said = taken(item.answer, **place)  # type: ignore[arg-type]
        except MissingError as missing:
            return Verdict("unparseable", 0.0, str(missing))
        if not truth:
            return Verdict("error", None, "the truth is empty")
        return compare(_bare(said), _bare(truth), worked_out=worked_out, percent=percent)

    return verify


def compare(said: str, truth: str, *, worked_out: bool = True, percent: str = "same") -> Verdict:
    r"""Return the verdict on an answer, both being LaTeX without a box.

    >>> [compare(each, "42").status for each in ("42.0", "6*7", "41 or 42", "42_{8}", r"42\%")]
    ['correct', 'unparseable', 'unparseable', 'incorrect', 'incorrect']
    """
    if _read(truth) is None and _word(truth) is None:
        return Verdict("error", None, f"the truth '{truth}' cannot be read as mathematics")
    if not said or len(said) > LONGEST:
        return Verdict("unparseable", 0.0, f"{len(said)} letters")
    try:
        right = _same(said, truth, worked_out=worked_out, percent=percent)
    except UnreadableError as reason:
        return Verdict("unparseable", 0.0, f"'{said}': {reason}")
    return Verdict("correct", 1.0) if right else Verdict("incorrect", 0.0, f"'{said}' != '{truth}'")


def _same(said: str, truth: str, *, worked_out: bool, percent: str) -> bool:
    if _tight(said) == _tight(truth):
        return True
    if _word(truth) is not None:
        return _word(said) == _word(truth)
    if BASED.search(said) or BASED.search(truth):
        return False  # a number in another base: equal only letter for letter
    if percent == "same" and bool(PERCENT.search(said)) != bool(PERCENT.search(truth)):
        return False
    factor = "*0.01" if percent == "hundredth" else ""
    truth = _without_percent(truth, factor)
    _refuse_ambiguous(said, truth)
    if worked_out and PLAIN.fullmatch(SPACES.sub("", truth)):
        said = _value(_without_percent(said, ""), factor if "%" in said else "")
    else:
        said = _without_percent(said, factor)
    parsed = _read(said)
    if parsed is None:
        raise UnreadableError("it cannot be read as mathematics")
    return _equal(_read(truth), parsed)


def _bare(text: str) -> str:
    """Drop what means nothing around an answer: dollars, a full stop."""
    text = text.strip()
    for left, right in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        inner = text.removesuffix(".").rstrip()
        if inner.startswith(left) and inner.endswith(right) and len(inner) >= len(left + right):
            text = inner[len(left) : len(inner) - len(right)].strip()
    return text.removesuffix(".").rstrip() if text.endswith(".") else text


def _tight(text: str) -> str:
    return SPACES.sub(" ", text).strip()


def _word(text: str) -> str | None:
    """Return the words that a text is, in small letters; None where it is mathematics."""
    inner = TEXT.fullmatch(text.strip())
    words = (inner[1] if inner else text).strip().strip("()").strip()
    long = inner is not None or len(words) > 2  # noqa: PLR2004 (xy may be a product)
    if not long or not re.fullmatch(r"[^\W\d_]+(?:[ '-][^\W\d_]+)*", words):
        return None
    return " ".join(words.lower().split())


def _without_percent(text: str, factor: str) -> str:
    found = PERCENT.search(text)
    if found is None:
        return text
    value = PERCENT.sub("", text).strip()
    return f"({value}){factor}" if factor else value


def _refuse_ambiguous(said: str, truth: str) -> None:
    """Refuse what could be read in more than one way."""
    if closing(said + "}", 0) != len(said):
        raise UnreadableError("braces that do not match")
    if OR.search(said) and not OR.search(truth):
        raise UnreadableError("more than one value")
    if TWO.search(GROUPS.sub("0", said)):
        raise UnreadableError("two numbers side by side")
    if "=" in said and "=" not in truth:
        left, *right = said.split("=")
        if len(right) > 1 or not SIDE.fullmatch(left.strip()):
            raise UnreadableError("an equation where a value is asked")


def _value(said: str, factor: str) -> str:
    """Return the plain number that an answer is, without its unit, times a factor."""
    value = said.rpartition("=")[2].strip()
    unit = UNIT.search(value)
    if unit is not None and not NO_UNIT.search(unit[0].lower()):
        value = value[: unit.start()]
    value = SPACES.sub("", value.replace("\\$", "").replace("$", "").replace("\u2212", "-"))
    if not VALUE.fullmatch(value):
        raise UnreadableError("no number that is worked out")
    return f"({value}){factor}" if factor else value


@lru_cache(KEPT)
def _read(text: str) -> Any | None:
    """Return what math-verify reads, for its ``verify``; None where that is nothing."""
    import math_verify

    config = [math_verify.LatexExtractionConfig(boxed_match_priority=0)]
    found = math_verify.parse(
        f"\\boxed{{{text}}}",
        extraction_config=config,
        parsing_timeout=None,
    )
    return found if any(not isinstance(each, str) for each in found) else None


def _equal(expected: Any, said: Any) -> bool:
    import math_verify

    return bool(math_verify.verify(expected, said, timeout_seconds=None))
