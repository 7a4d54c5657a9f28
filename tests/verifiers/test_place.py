from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit.verifiers.place import MissingError, boxes, taken, taken_of_truth


@pytest.mark.parametrize(
    ("text", "place", "found"),
    [
        (r"\boxed{42}", {"boxed": True}, "42"),
        (r"\boxed {42}", {"boxed": True}, "42"),
        (r"\boxed{\frac{1}{2}}", {"boxed": True}, r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", {"boxed": True}, r"\{1, 2\}"),
        (r"\boxed{\boxed{42}}", {"boxed": True}, "42"),
        (r"\boxed{4 2} then \boxed{42}", {"boxed": True}, "42"),  # the same but for blanks
        (r"\boxed{1} </think> \boxed{42}", {"boxed": True, "after": "</think>"}, "42"),
        ("#### 1 #### 42 ", {"after": "####"}, "42"),
        (" 42\n", {}, "42"),
    ],
)
def test_where_the_answer_stands(text, place, found):
    assert taken(text, **place) == found


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("42", {"boxed": True}),
        (r"\boxed 42", {"boxed": True}),
        (r"\boxed{42", {"boxed": True}),
        (r"\boxed{41} \boxed{42}", {"boxed": True}),
        (r"\boxed{42} #### 1", {"boxed": True, "after": "####"}),
        ("the last number is 42", {"after": "####"}),
    ],
)
def test_no_place_or_several_is_no_answer(text, place):
    with pytest.raises(MissingError):
        taken(text, **place)


@given(st.text(alphabet="{}\\ab1 "))
def test_boxes_hold_balanced_text(inside):
    for box in boxes(f"\\boxed{{{inside}}} \\boxed{{{inside}"):
        plain = box.replace("\\\\", "").replace("\\{", "").replace("\\}", "")
        assert plain.count("{") == plain.count("}")


def test_no_nest_of_boxes_is_too_deep():
    assert boxes("\\boxed{" * 20_000) == []
    nested = "\\boxed{" * 20_000 + "42" + "}" * 20_000
    assert boxes(nested)[0].startswith("\\boxed{")


def test_a_truth_is_taken_from_its_place_or_whole():
    place = {"after": "####", "boxed": True}
    for truth in ("42", "#### 42", r"\boxed{42}", r"6*7 #### \boxed{42}"):
        assert taken_of_truth(truth, **place) == "42"
