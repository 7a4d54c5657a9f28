from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit.verifiers.base import build_verifier
from ftkit.verifiers.config import NumericConfig


def verifier(**values):
    return build_verifier(NumericConfig(name="numeric", **values))


@pytest.mark.parametrize(
    ("answer", "truth", "status"),
    [
        ("42", "42", "correct"),
        ("42.0", "42", "correct"),
        ("42.", "42", "correct"),
        ("+42", "42", "correct"),
        ("$42", "42", "correct"),
        (r"\$42", "42", "correct"),
        ("-$42", "-42", "correct"),
        ("\u221242", "-42", "correct"),
        ("1,234,567", "1234567", "correct"),
        ("1234567", "1,234,567", "correct"),
        ("12,34", "1234", "unparseable"),
        ("1,2345", "12345", "unparseable"),
        ("4.2e1", "42", "correct"),
        ("84/2", "42", "correct"),
        ("1/0", "42", "unparseable"),
        ("1e999999999", "42", "unparseable"),
        ("9" * 500, "42", "unparseable"),
        ("42%", "42", "incorrect"),
        ("42%", "42 %", "correct"),
        ("4 2", "42", "unparseable"),
        ("4$2", "42", "unparseable"),
        ("11_2", "11", "unparseable"),
        ("41 or 42", "42", "unparseable"),
        ("it is 42", "42", "unparseable"),
        ("42 apples", "42", "unparseable"),
        ("\u0664\u0662", "42", "unparseable"),
        ("0.3333", "1/3", "incorrect"),
        ("nan", "42", "unparseable"),
        ("inf", "42", "unparseable"),
        ("", "42", "unparseable"),
        ("42", "forty-two", "error"),
        ("42", "", "error"),
    ],
)
def test_verdicts(answer, truth, status):
    assert verifier()(answer, truth).status == status


@pytest.mark.parametrize(
    ("values", "answer", "truth", "status"),
    [
        ({"tolerance": 0.01}, "0.33", "0.3333", "correct"),
        ({"tolerance": 0.001}, "0.33", "0.3333", "incorrect"),
        ({"relative": 0.01}, "101", "100", "correct"),
        ({"relative": 0.01}, "101.1", "100", "incorrect"),
        ({"relative": 0.01}, "-101", "-100", "correct"),
        ({"thousands": "point"}, "1.234,5", "1234,5", "correct"),
        ({"thousands": "space"}, "1 234", "1234", "correct"),
        ({"thousands": "none"}, "1,234", "1234", "unparseable"),
        ({"percent": "ignore"}, "10%", "10", "correct"),
        ({"percent": "hundredth"}, "10%", "0.1", "correct"),
        ({"percent": "hundredth"}, "10%", "10", "incorrect"),
        ({"currency": ""}, "$42", "42", "unparseable"),
        ({"currency": "\u20ac"}, "\u20ac42", "42", "correct"),
        ({"after": "####"}, "41 #### 42", "42", "correct"),
        ({"after": "####"}, "42 #### 41", "#### 42", "incorrect"),
        ({"after": "####"}, "42", "42", "unparseable"),
        ({"boxed": True}, r"so \boxed{42}", "42", "correct"),
        ({"boxed": True}, r"\boxed{41} \boxed{42}", "42", "unparseable"),
    ],
)
def test_constants(values, answer, truth, status):
    assert verifier(**values)(answer, truth).status == status


@given(st.integers(-(10**12), 10**12))
def test_a_number_equals_itself_in_every_notation(number):
    half = number / 2
    for said in (f"{half:,.1f}", f"{half:.1f}", f"{number}/2", f"{half:.13e}", f"{half:.13E}"):
        assert verifier()(said, f"{half:.6f}").reward == 1, said


@given(st.text(), st.text())
def test_total_and_rewarded_by_status(answer, truth):
    verdict = verifier(after="x")(answer, truth)
    expected = {"correct": 1.0, "error": None}.get(verdict.status, 0.0)
    assert verdict.reward == expected
