"""Negatives are drawn without repetition until the pool is used up, whatever came before."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.core.group import Answer, Group
from ftkit.data.order import Order
from ftkit.parallel.world import OneProcess
from ftkit.sources.pool import Pooled, draw


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 9), count=st.integers(1, 5), visits=st.integers(1, 12))
def test_none_is_drawn_twice_before_all_were_drawn(size, count, visits):
    if size < count:
        assert draw(size, count, visits, [1]) == list(range(size))
        return
    taken = [draw(size, count, visit, [size, count]) for visit in range(visits)]
    assert all(len(set(each)) == count for each in taken)
    joined = [i for each in taken for i in each]
    for start in range(0, len(joined) - size + 1, size):
        assert sorted(joined[start : start + size]) == list(range(size))


def test_other_prompts_draw_otherwise():
    assert len({tuple(draw(8, 3, 0, [0, 0, row])) for row in range(20)}) > 10


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=2),
    weights=st.lists(st.sampled_from([0.5, 1.0, 1.7, 2.0]), min_size=2, max_size=2),
    prompts=st.integers(1, 5),
)
def test_visits_count_the_times_before(sizes, weights, prompts):
    order = Order(sizes, weights[: len(sizes)], seed=3)
    seen: Counter[tuple[int, int]] = Counter()
    for step in range(12):
        rows = order.rows_of_step(step, prompts)
        visits = Order(sizes, weights[: len(sizes)], seed=3).visits_of_step(step, prompts)
        for row, visit in zip(rows, visits, strict=True):
            assert visit == seen[row]
            seen[row] += 1


class Rows(list):
    """Rows, and a pool of them by content hash."""

    def of(self, name):
        return next(group for group in self if group.id == name)

    @property
    def tokens(self):
        return [10 - len(group.answers) for group in self]


def rows(prompts, negatives):
    return Rows(
        Group(
            f"{p:016x}", (p,), (Answer((0,)), *(Answer((100 * p + n,)) for n in range(negatives)))
        )
        for p in range(prompts)
    )


@pytest.mark.parametrize(("negatives", "kept"), [(2, 2), (1, 1), (9, 4)])
def test_a_step_has_the_demonstration_and_so_many_negatives(negatives, kept):
    pool = rows(6, 4)
    source = Pooled([pool], pool, Order([6], [1.0], 0), 3, negatives, OneProcess())
    for group in [*source.groups(1), *source.groups(2)]:
        first, *others = group.answers
        assert first.tokens == (0,)
        assert len({a.tokens for a in others}) == kept
        assert all(a.tokens[0] // 100 == group.prompt[0] for a in others)


class Half(OneProcess):
    size = 2

    def __init__(self, rank):
        self.rank = rank


def test_ranks_share_a_step():
    pool = rows(6, 4)
    whole, *halves = (
        Pooled([pool], pool, Order([6], [1.0], 0), 6, 2, world)
        for world in (OneProcess(), Half(0), Half(1))
    )
    dealt = [group for half in halves for group in half.groups(2)]
    assert sorted(dealt, key=str) == sorted(whole.groups(2), key=str)


def test_the_last_step_may_be_smaller():
    pool = rows(5, 2)
    source = Pooled([pool], pool, Order([5], [1.0], 0), 3, 1, OneProcess(), total=5)
    assert [len(source.groups(step)) for step in (1, 2)] == [3, 2]


def test_order_of_visits_is_an_array_of_every_row():
    assert np.array(Order([4], [2.0], 1).visits_of_step(0, 8)).sum() == 4  # each once, then again
