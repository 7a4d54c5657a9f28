from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ftkit.verifiers.base import STATUSES, build_verifier
from ftkit.verifiers.config import ExactConfig

WHOLE = build_verifier(ExactConfig(name="exact"))
MARKED = build_verifier(ExactConfig(name="exact", after="####"))


@pytest.mark.parametrize(
    ("verify", "answer", "truth", "status"),
    [
        (WHOLE, "42", "42", "correct"),
        (WHOLE, " 42\n", "\t42 ", "correct"),
        (WHOLE, "42.0", "42", "incorrect"),
        (WHOLE, "4 2", "42", "incorrect"),
        (WHOLE, "", "", "correct"),
        (MARKED, "6*7 #### 42", "so #### 42", "correct"),
        (MARKED, "#### 41 no #### 42", "#### 42", "correct"),  # the last one counts
        (MARKED, "#### 42 no #### 41", "#### 42", "incorrect"),
        (MARKED, "other words #### 42", "42", "correct"),  # a truth that is the bare result
        (MARKED, "42", "42", "unparseable"),
        (MARKED, "###42", "#### 42", "unparseable"),
        (MARKED, "####", "#### 42", "incorrect"),
    ],
)
def test_verdicts(verify, answer, truth, status):
    assert verify(answer, truth).status == status


@given(st.text(), st.text())
def test_total_pure_and_rewarded_by_status(answer, truth):
    for verify in (WHOLE, MARKED):
        verdict = verify(answer, truth)
        assert verdict == verify(answer, truth)
        assert verdict.status in STATUSES
        assert verdict.reward == float(verdict.status == "correct")
        assert verdict.detail or verdict.status == "correct"
    assert WHOLE(truth, truth).status == "correct"


def test_an_empty_marker_is_refused():
    with pytest.raises(ValidationError):
        ExactConfig(name="exact", after="")
