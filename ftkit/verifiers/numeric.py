"""Right if the answer is the number that the truth is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from ftkit.verifiers.base import Verdict, Verifier
from ftkit.verifiers.config import NumericConfig
from ftkit.verifiers.place import MissingError, taken, taken_of_truth

LONGEST = 100
"""Letters of a number that is read."""
PARTING = {"comma": ",", "point": ".", "space": " ", "none": ""}

KEPT = 10_000
"""Truths that are read once."""

MINUS = str.maketrans({"\u2212": "-", "\u2013": "-", "\u00a0": " ", "\u202f": " "})
"""Signs and spaces that are typeset."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number, exactly."""

    value: Fraction
    percent: bool


def numeric(config: NumericConfig) -> Verifier:
    """Return the verifier that compares numbers (``NumericConfig``).

    >>> numeric(NumericConfig(name="numeric", after="####"))("9 * 2 #### $1,018.0", "1018").status
    'correct'
    >>> numeric(NumericConfig(name="numeric"))("it is 1018", "1018").status
    'unparseable'
    """
    read = reader(config)
    place = {"after": config.after, "boxed": config.boxed}

    @lru_cache(KEPT)
    def expected_of(truth: str) -> Number | None:
        return read(taken_of_truth(truth, **place))  # type: ignore[arg-type]

    def verify(answer: str, truth: str) -> Verdict:
        expected = expected_of(truth)
        if expected is None:
            return Verdict("error", None, f"the truth '{_short(truth)}' is no number")
        try:
            said = taken(answer, **place)  # type: ignore[arg-type]
        except MissingError as missing:
            return Verdict("unparseable", 0.0, str(missing))
        number = read(said)
        if number is None:
            return Verdict("unparseable", 0.0, f"'{_short(said)}' is no number")
        if number.percent != expected.percent and config.percent == "same":
            return Verdict("incorrect", 0.0, f"'{said}' and '{_short(truth)}': % in one of them")
        allowed = max(Fraction(config.tolerance), Fraction(config.relative) * abs(expected.value))
        if abs(number.value - expected.value) <= allowed:
            return Verdict("correct", 1.0)
        return Verdict("incorrect", 0.0, f"'{said}' is not '{_short(truth)}'")

    return verify


def reader(config: NumericConfig) -> Callable[[str], Number | None]:
    """Return the function that reads a number, or None where the text is anything else.

    >>> read = reader(NumericConfig(name="numeric"))
    >>> read("-1,234.50").value, read("1/3").value, read("12,34"), read("11_2"), read("41 or 42")
    (Fraction(-2469, 2), Fraction(1, 3), None, None, None)
    """
    parting = PARTING[config.thousands]
    parted, mark = re.escape(parting), "," if parting == "." else r"\."
    whole = rf"[0-9]{{1,3}}(?:{parted}[0-9]{{3}})+|[0-9]+" if parted else "[0-9]+"
    sign = rf"(?:\\?[{re.escape(config.currency)}])? *" if config.currency else ""
    form = re.compile(
        rf"{sign}(?P<sign>[+-]?) *{sign}"
        rf"(?:(?P<whole>{whole})(?:{mark}(?P<part>[0-9]*))?|{mark}(?P<only>[0-9]+))"
        # a longer exponent would fill the memory
        r"(?:[eE](?P<power>[+-]?[0-9]{1,4}))?(?: */ *(?P<under>[0-9]+))?(?P<percent> *\\?%)?\.?"
    )

    def read(text: str) -> Number | None:
        text = text.translate(MINUS).strip()
        if len(text) > LONGEST:
            return None
        found = form.fullmatch(text)
        if found is None:
            return None
        value = _value(found, parting)
        percent = found["percent"] is not None
        if value is not None and percent and config.percent == "hundredth":
            return Number(value / 100, percent=False)
        return None if value is None else Number(value, percent)

    return read


def _value(found: re.Match[str], thousands: str) -> Fraction | None:
    digits, part = found["whole"] or "0", found["part"] or found["only"] or ""
    if thousands:
        digits = digits.replace(thousands, "")
    power, under = int(found["power"] or 0), int(found["under"] or 1)
    if under == 0:
        return None
    value = Fraction(int(digits + part), 10 ** len(part)) * Fraction(10) ** power / under
    return -value if found["sign"] == "-" else value


def _short(text: str, most: int = 60) -> str:
    text = text.strip()
    return text if len(text) <= most else f"...{text[-most:]}"
