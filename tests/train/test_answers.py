"""pass@k: what it estimates, over which answers, and who counts as one prompt."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit.core.group import Answer, Group
from ftkit.core.intervals import clustered_mean
from ftkit.train.answers import pass_at
from ftkit.verifiers.base import STATUSES, Verdict

WRONG = sorted(set(STATUSES) - {"correct"})


def judged(*statuses):
    """Answers to one prompt with these verdicts; the reward says nothing here."""
    return [(Answer((7,)), Verdict(status, 0.5)) for status in statuses]


def prompt(i):
    return Group(str(i), (i,))


def by_hand(right, n, k):
    """The share of all ways to take k of n answers that have a right one among them."""
    ways = list(combinations([True] * right + [False] * (n - right), k))
    return Fraction(sum(map(any, ways)), len(ways))


@pytest.mark.parametrize("n", range(1, 10))
def test_it_is_the_mean_over_all_ways_to_take_k_answers(n):
    for right in range(n + 1):
        row = judged(*["correct"] * right, *["incorrect"] * (n - right))
        found = pass_at([prompt(0)], [row])
        assert list(found) == [f"pass@{k}" for k in (2, 4, 8) if k <= n]
        for name, figure in found.items():
            expected = by_hand(right, n, int(name.removeprefix("pass@")))
            assert figure.value == pytest.approx(float(expected), abs=1e-15)


@given(st.integers(2, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_it_grows_with_k_and_is_certain_where_fewer_than_k_are_wrong(counts):
    n, right = counts
    found = pass_at([prompt(0)], [judged(*["incorrect"] * (n - right), *["correct"] * right)])
    values = [figure.value for figure in found.values()]
    assert values == sorted(values)
    assert values[0] >= right / n - 1e-12  # one answer alone
    for name, value in zip(found, values, strict=True):
        few = n - right < int(name.removeprefix("pass@"))
        assert (value == 1) == few
        assert (value == 0) == (right == 0)


@pytest.mark.parametrize("status", WRONG)
def test_whatever_is_not_correct_is_a_try_that_failed(status):
    found = pass_at([prompt(0)], [judged("correct", status, status, status)])
    assert found["pass@2"].value == pytest.approx(1 / 2)  # 3 of 6 pairs


def test_prompts_weigh_alike_and_the_fewest_answers_say_how_far_k_goes():
    rows = [judged("correct", *["incorrect"] * 7), judged("correct", *["incorrect"] * 3)]
    found = pass_at([prompt(0), prompt(1)], rows)
    assert list(found) == ["pass@2", "pass@4"]
    assert found["pass@2"].value == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert found["pass@4"].value == pytest.approx((1 / 2 + 1) / 2)


def test_rows_with_the_same_prompt_are_one_cluster():
    rows = [judged("correct", "incorrect"), judged("incorrect", "incorrect")]
    found = pass_at([prompt(0), prompt(0), prompt(1)], [*rows, rows[0]])
    assert found["pass@2"] == clustered_mean([1.0, 1.0], [2, 1])


@pytest.mark.parametrize("rows", [[], [judged("correct")]])
def test_one_answer_or_none_has_no_pass_at_k(rows):
    assert not pass_at([prompt(i) for i in range(len(rows))], rows)
