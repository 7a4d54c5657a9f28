from __future__ import annotations

import re

import pytest

from ftkit.data.arithmetic import KINDS, Problem, problems


def value(expression: str) -> int:
    return sum(int(number) for number in re.findall(r"[+-]?\d+", expression))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_truth_is_what_the_question_says(kind, split):
    for problem in problems(kind, split, limit=300):
        expression = problem.question.removesuffix("=")
        assert int(problem.truth) == value(expression)
        assert problem.answer.split("#### ")[-1] == problem.truth


def test_worked_steps_lead_from_the_start_to_the_truth_and_never_below_zero():
    for problem in problems("running-total", "train", limit=300):
        steps = problem.answer.split(" #### ")[0].split(", ")
        totals = [step.split("=") for step in steps]
        assert all(value(left) == int(right) >= 0 for left, right in totals)
        assert totals[-1][1] == problem.truth
        starts = [re.match(r"\d+", step).group() for step in steps]
        assert starts[1:] == [right for _, right in totals[:-1]]


@pytest.mark.parametrize("seed", [0, 1])
def test_no_held_out_sum_is_learnt_from_in_either_order(seed):
    train = problems("addition", "train", seed=seed)
    test = problems("addition", "test", seed=seed)
    assert len(train) + len(test) == 100 * 100
    assert 0.08 < len(test) / 10_000 < 0.12
    learnt = {frozenset(re.findall(r"\d+", p.question)) for p in train}
    assert not any(frozenset(re.findall(r"\d+", p.question)) in learnt for p in test)


@pytest.mark.parametrize("kind", KINDS)
def test_splits_of_every_kind_are_disjoint_and_without_repeats(kind):
    train, test = problems(kind, "train", limit=2000), problems(kind, "test", limit=500)
    assert not {p.key for p in train} & {p.key for p in test}
    assert len({p.question for p in train}) == len(train)


def test_the_same_arguments_give_the_same_problems_and_a_limit_gives_the_first_of_them():
    every = problems("subtraction", "train", seed=3)
    assert problems("subtraction", "train", seed=3) == every
    assert problems("subtraction", "train", seed=3, limit=7) == every[:7]
    assert problems("subtraction", "train", seed=4) != every


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 10_000)])
def test_the_held_out_share_reaches_its_ends(share, expected):
    assert len(problems("addition", "test", held_out=share)) == expected


def test_rows_are_those_that_users_bring():
    problem = Problem("47+38=", "85", "85", (38, 47))
    assert problem.text() == {"text": "47+38=85"}
    assert problem.row() == {"prompt": "47+38=", "completion": "85", "truth": "85"}
