"""What ranks are dealt, tell each other, and fail by together."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftkit.core.errors import RunError, ServiceError, UserError, user_error
from ftkit.parallel.world import OneProcess


class Other(OneProcess):
    """One of several ranks, of which nothing is asked that needs the others."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size


@given(costs=st.lists(st.integers(1, 500), max_size=40), size=st.integers(1, 5))
def test_every_item_is_dealt_once_and_loads_are_even(costs, size):
    shares = [Other(rank, size).dealt(costs) for rank in range(size)]
    assert sorted(item for share in shares for item in share) == list(range(len(costs)))
    loads = [sum(costs[item] for item in share) for share in shares]
    assert max(loads) - min(loads) <= max(costs, default=0)
    assert all(share == sorted(share) for share in shares)


def together(world, kind):
    def work():
        if world.rank != 1:
            return world.rank
        raise {
            "user": user_error("a", "is wrong", "mend it"),
            "run": RunError("it broke"),
            "service": ServiceError("it is gone"),
            "full": OSError(28, "No space left on device"),
            "other": ValueError("odd"),
        }[kind]

    try:
        world.together(work)
    except Exception as error:
        return type(error).__name__, str(error), getattr(error, "shared", False)
    return None


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("user", UserError, "a: is wrong; mend it"),
        ("run", RunError, "it broke"),
        ("service", ServiceError, "it is gone"),
        ("full", OSError, "No space left on device"),
        ("other", RunError, "rank 1: ValueError: odd"),
    ],
)
def test_what_fails_on_one_rank_fails_on_all(ranks, kind, error, said):
    found = ranks(3).run(together, kind)
    names = {error.__name__} if kind != "other" else {"RunError", "ValueError"}
    assert {name for name, _, _ in found} == names
    assert all(shared for _, _, shared in found)
    assert said in found[0][1] and said in found[2][1]


def told(world):
    """What a rank hears of the others."""
    share = list(range(world.rank, 7, world.size))
    return {
        "sum": world.sum(torch.tensor([1.0, world.rank], dtype=torch.float64)).tolist(),
        "gather": world.gather([world.rank] * world.rank),
        "joined": world.joined(share),
        "most": world.most(world.rank),
        "means": world.means({"a": (2.0 * world.rank, 1.0), f"only {world.rank}": (3.0, 2.0)}),
        "first": world.first(lambda: world.rank),
    }


def test_what_ranks_hear_of_each_other(ranks):
    for rank, found in enumerate(ranks(3).run(told)):
        assert found == {
            "sum": [3.0, 3.0],
            "gather": [1, 2, 2],
            "joined": list(range(7)),
            "most": 2,
            "means": {"a": 2.0, "only 0": 1.5, "only 1": 1.5, "only 2": 1.5},
            "first": rank,
        }


def failing_first(world):
    def work():
        if world.rank == 0:
            raise user_error("data", "is not there")
        return "never"

    try:
        return world.first(work)
    except UserError as error:
        return [str(fault) for fault in error.faults]


def test_what_fails_for_the_first_is_not_tried_by_the_others(ranks):
    assert ranks(3).run(failing_first) == [["data: is not there"], [], []]
