from __future__ import annotations

import logging

import pytest

from ftkit.verifiers.base import Item
from ftkit.verifiers.config import MathConfig
from ftkit.verifiers.math import compare, make


@pytest.mark.parametrize(
    ("said", "truth"),
    [
        ("42", "42"),
        ("42.0", "42"),
        ("1,000", "1000"),
        ("1{,}000", "1000"),
        (r"1\,000", "1000"),
        ("042", "42"),
        ("\u22125", "-5"),
        (r"\frac12", "0.5"),
        ("1/3", r"\frac{1}{3}"),
        (r"1\frac{1}{2}", "1.5"),
        (r"6.02 \times 10^{2}", "602"),
        (r"\$18.00", "18"),
        ("18 dollars", "18"),
        ("18 red candies", "18"),
        (r"18\text{ notebooks}", "18"),
        (r"5\text{ cm}^2", "5"),
        (r"42^\circ", "42"),
        ("x = 5", "5"),
        ("5", "x=5"),
        ("1+x^2", "x^2+1"),
        (r"\sqrt{18}", r"3\sqrt{2}"),
        ("2, 1", "1, 2"),
        (r"\{2,1\}", r"\{1,2\}"),
        ("2, 1", r"1 \text{ or } 2"),
        (r"(3,\pi/2)", r"(3, \frac{\pi}{2})"),
        (r"10\%", "10.0%"),
        ("yes", r"\text{Yes}"),
        (r"\text{(B)}", "B"),
    ],
)
def test_equal(said, truth):
    assert compare(said, truth).reward == 1


@pytest.mark.parametrize(
    ("said", "truth", "status"),
    [
        # what math-verify by itself takes for right
        ("11_2", "11", "incorrect"),
        ("11_{2}", "11", "incorrect"),
        (r"10\%", "10", "incorrect"),
        (r"10\%", "0.1", "incorrect"),
        ("3=42", "42", "unparseable"),
        ("2+2=4", "4", "unparseable"),
        ("2+2", "4", "unparseable"),
        (r"6 \cdot 7", "42", "unparseable"),
        ("3!", "6", "unparseable"),
        (r"\int_0^1 2x dx", "1", "unparseable"),
        ("41 42", "83", "unparseable"),
        (r"41\quad 42", "83", "unparseable"),
        ("eys", "yes", "incorrect"),
        ("eys", r"\text{yes}", "incorrect"),
        ("1.8 billion", "1.8", "unparseable"),
        (r"3\text{ factorial}", "3", "unparseable"),
        # and what is simply not right
        ("41 or 42", "42", "unparseable"),
        (r"41 \text{ or } 42", "42", "unparseable"),
        ("41, 42", "42", "unparseable"),
        ("7 or 2", "1 or 2", "incorrect"),
        (r"\text{41} 42", "42", "unparseable"),
        ("0.3333", r"\frac13", "incorrect"),
        ("(2,1)", "(1,2)", "incorrect"),
        ("[1,2]", "(1,2)", "incorrect"),
        ("y=5", "x=5", "incorrect"),
        ("}{", "x", "unparseable"),
        ("", "42", "unparseable"),
        ("9" * 3000, "42", "unparseable"),
    ],
)
def test_not_taken_for_right(said, truth, status):
    verdict = compare(said, truth)
    assert (verdict.status, verdict.reward) == (status, 0.0)
    assert verdict.detail


@pytest.mark.parametrize("truth", ["", "?", "}{"])
def test_a_truth_that_is_no_mathematics_is_an_error_whatever_is_said(truth):
    for said in ("42", truth, "?"):
        assert compare(said, truth).reward is None


@pytest.mark.parametrize(
    ("values", "said", "truth", "reward"),
    [
        ({"worked_out": False}, "6*7", "42", 1.0),
        ({"percent": "ignore"}, r"10\%", "10", 1.0),
        ({"percent": "hundredth"}, r"10\%", "0.1", 1.0),
        ({"percent": "hundredth"}, r"50\%", r"\frac{1}{2}", 1.0),
        ({"percent": "hundredth"}, r"10\%", "10", 0.0),
    ],
)
def test_constants(values, said, truth, reward):
    assert compare(said, truth, **values).reward == reward


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (r"so $\boxed{42}$.", "correct"),
        (r"\boxed{41} or \boxed{42}", "unparseable"),
        (r"\boxed{42} and \boxed{42}", "correct"),
        ("the answer is 42", "unparseable"),
    ],
)
def test_the_answer_is_in_a_box(answer, status):
    config = MathConfig(name="math")
    verify = make(after=config.after, boxed=True, worked_out=True, percent="same")
    assert verify(Item(answer, "42")).status == status
    assert verify(Item(answer, r"\boxed{42}")).status == status


def test_or_after_a_marker():
    verify = make(after="####", boxed=False, worked_out=True, percent="same")
    assert verify(Item("#### $42$.", "42")).status == "correct"
    assert verify(Item(r"\boxed{42}", "42")).status == "unparseable"


def test_the_library_sets_no_alarm(monkeypatch):
    import signal

    def refuse(*_):
        raise AssertionError("an alarm")

    monkeypatch.setattr(signal, "alarm", refuse)
    monkeypatch.setattr(signal, "setitimer", refuse)
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    assert compare("3+2x", "2x+3").status == "correct"
