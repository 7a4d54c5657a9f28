from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter

from ftkit.core.errors import RunError
from ftkit.verifiers.base import Verdict
from ftkit.verifiers.config import Verify
from ftkit.verifiers.judge import build_judge
from ftkit.verifiers.trial import ErrorRate, gold_answer, self_test

FILE = str(Path(__file__).with_name("judges.py"))


def config_of(name, **values):
    return TypeAdapter(Verify).validate_python({"name": name, **values})


@pytest.mark.parametrize(
    ("config", "truth", "answer"),
    [
        (config_of("exact"), "42", "42"),
        (config_of("exact", after="####"), "42", "#### 42"),
        (config_of("exact", after="####"), "6*7 #### 42", "6*7 #### 42"),
        (config_of("numeric", boxed=True), "42", r"\boxed{42}"),
        (config_of("math"), r"so \boxed{42}", r"so \boxed{42}"),
        (config_of("math", after="</think>"), "42", r"</think> \boxed{42}"),
        (config_of("math", after="</think>"), r"a</think>\boxed{4}", r"a</think>\boxed{4}"),
        (config_of("math", after="####", boxed=False), "42", "#### 42"),
        (config_of("python", function="a:b", gold="<a>{truth}</a>"), "42", "<a>42</a>"),
        (config_of("python", function="a:b"), "42", None),
        (config_of("http", url="http://x", gold="{truth}"), "42", "42"),
        (config_of("format", pattern="x"), "42", None),
        (config_of("length", soft=1, hard=2), "42", None),
    ],
)
def test_the_form_of_a_right_answer(config, truth, answer):
    assert gold_answer(config, truth) == answer


def test_gold_answers_must_be_right():
    sum_of = config_of("numeric", after="####"), config_of("length", soft=1, hard=2)
    with build_judge(list(sum_of)) as judge:
        fine = self_test(judge, ["42", "1,000", "#### 7"])
        wrong = self_test(judge, ["42", "forty-two"])
    assert (fine.tried, fine.failures, fine.share) == (3, (), 0.0)
    assert (wrong.tried, wrong.share) == (2, 0.5)
    assert "forty-two" in str(wrong)
    assert "no number" in str(wrong)


def test_a_function_is_tried_if_its_form_is_known():
    with build_judge(config_of("python", function=f"{FILE}:same", gold="={truth}")) as judge:
        tested = self_test(judge, ["42"])
    (failure,) = tested.failures
    assert (failure.verifier, failure.answer, failure.truth) == ("python", "=42", "42")
    with build_judge(config_of("python", function=f"{FILE}:same")) as judge:
        assert self_test(judge, ["42"]).tried == 0


def test_math_is_tried_in_boxes():
    with build_judge(config_of("math", workers=1)) as judge:
        tested = self_test(judge, ["42", r"\frac{1}{2}", "x^2+1", "?", r"\text{east}"])
    assert [failure.truth for failure in tested.failures] == ["?"]


RIGHT, FAILED = Verdict("correct", 1.0), Verdict("error", None, "no answer from the server")


def test_errors_stop_a_run_above_the_share_of_enough_verdicts():
    rate = ErrorRate()
    rate.add([FAILED] * 5)  # too few to tell
    rate.add([RIGHT] * 95)  # 5 of 100: not above 5 %
    with pytest.raises(RunError, match=r"6 of 101 .*\(5 times\) because: no answer from"):
        rate.add([Verdict("error", None, "another")])
    assert (rate.errors, rate.seen) == (6, 101)


def test_timeouts_and_wrong_answers_are_no_errors():
    rate = ErrorRate()
    rate.add([Verdict("timeout", 0.0, "late"), Verdict("unparseable", 0.0, "no")] * 500)
    assert rate.errors == 0
