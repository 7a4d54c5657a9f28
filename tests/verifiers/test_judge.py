"""Sums of verifiers, and what is refused at the start."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from ftkit.core.errors import UserError
from ftkit.verifiers.base import Item
from ftkit.verifiers.config import Verify
from ftkit.verifiers.judge import build_judge

FILE = str(Path(__file__).with_name("judges.py"))
VERIFY = TypeAdapter(Verify)


def judge_of(*configs):
    read = VERIFY.validate_python(list(configs) if len(configs) > 1 else configs[0])
    return build_judge(read)


EXACT = {"name": "exact"}
SHORT = {"name": "length", "soft": 2, "hard": 4, "weight": 0.5}
BRIEF = {"name": "format", "pattern": "[0-9]+", "weight": 0.25}


def item(answer, truth="42", tokens=1):
    return Item(answer, truth, tokens=(7,) * tokens)


def test_one_verifier_is_weighted_and_has_no_parts():
    with judge_of({**EXACT, "weight": 2.0}) as judge:
        right, wrong = judge.judge([item("42"), item("41")])
    assert (right.reward, right.status, right.parts) == (2.0, "correct", {})
    assert (wrong.reward, wrong.status) == (0.0, "incorrect")


def test_a_sum_has_the_parts_and_the_status_of_the_first_that_is_about_correctness():
    with judge_of(SHORT, BRIEF, EXACT, {**EXACT, "after": "####"}) as judge:
        answers = [item("42"), item("x", tokens=3), item("#### 42", tokens=9), item("41")]
        first, second, third, fourth = judge.judge(answers)
    assert first.parts == {"length": 0.0, "format": 1.0, "exact1": 1.0, "exact2": 0.0}
    assert (first.reward, first.status) == (1.25, "correct")
    assert second.parts == {"length": -0.5, "format": 0.0, "exact1": 0.0, "exact2": 0.0}
    assert (second.reward, second.status) == (-0.25, "incorrect")
    assert (third.reward, third.status) == (0.5, "incorrect")
    assert (fourth.reward, fourth.status) == (0.25, "incorrect")


def test_where_nothing_is_about_correctness_the_first_decides():
    with judge_of(SHORT, BRIEF) as judge:
        (verdict,) = judge.judge([item("x")])
    assert (verdict.status, verdict.reward) == ("correct", 0.0)


def test_an_error_in_one_part_is_an_error_and_a_timeout_counts_nothing():
    odd = {"name": "python", "function": f"{FILE}:odd", "timeout": 0.3, "workers": 1}
    with judge_of(EXACT, odd) as judge:
        failed, late = judge.judge([item("raise", "raise"), item("hang", "hang")])
    assert (failed.status, failed.reward) == ("error", None)
    assert failed.detail.startswith("python: ZeroDivisionError")
    assert (late.status, late.reward) == ("correct", 1.0)
    assert late.parts == {"exact": 1.0, "python": 0.0}


def test_a_length_needs_tokens():
    with judge_of(SHORT) as judge:
        assert judge.judge([Item("42", "42")])[0].status == "error"


def test_seconds_are_measured():
    with judge_of(EXACT, BRIEF) as judge:
        assert 0 < judge.judge([item("42")])[0].seconds < 1


def test_all_that_is_wrong_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.delenv("FTKIT_NO_TOKEN", raising=False)
    wrong = [
        {"name": "python", "function": "os"},
        {"name": "python", "function": f"{tmp_path}/none.py:f"},
        {"name": "python", "function": f"{FILE}:none"},
        {"name": "python", "function": "no_such_package.module:f"},
        {"name": "http", "url": "localhost:80", "auth_env": "FTKIT_NO_TOKEN"},
        {"name": "http", "url": "http://host:port/"},
        {"name": "proof", "system": "coq", "command": ["no-such-coqc"], "repl": ["x"]},
        {"name": "proof", "system": "lean", "directory": str(tmp_path / "none")},
        {"name": "format", "pattern": "("},
        {"name": "length", "soft": 4, "hard": 4},
        {"name": "numeric", "currency": "$."},
        {"name": "math"},
    ]
    with pytest.raises(UserError) as raised:
        judge_of(*wrong)
    places = [fault.place for fault in raised.value.faults]
    assert sorted(set(places)) == [
        "verify.0.function",
        "verify.1.function",
        "verify.10.currency",
        "verify.2.function",
        "verify.3.function",
        "verify.4.auth_env",
        "verify.4.url",
        "verify.5.url",
        "verify.6.repl",
        "verify.7.command",
        "verify.7.directory",
        "verify.8.pattern",
        "verify.9.soft",
    ]
    assert all(fault.remedy for fault in raised.value.faults)


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {},
        {"name": "nobody"},
        {"name": "math", "workers": 0},
        {"name": "format"},
        {"name": "exact", "weight": float("nan")},
        {"name": "length", "soft": -1, "hard": 3},
        [[{"name": "exact"}]],
    ],
)
def test_a_recipe_that_says_nonsense_is_refused(wrong):
    with pytest.raises(ValidationError):
        VERIFY.validate_python(wrong)


def test_the_place_of_a_verifier_that_stands_alone():
    with pytest.raises(UserError) as raised:
        judge_of({"name": "python", "function": f"{FILE}:none"})
    (fault,) = raised.value.faults
    assert fault.place == "verify.function"
    assert "has no function 'none'" in fault.found
