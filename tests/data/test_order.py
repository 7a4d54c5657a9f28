"""The order of rows: a pure function, in which every row comes as often as its weight says."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.data.order import Order, epoch_rows

SETS = st.lists(
    st.tuples(st.integers(1, 12), st.sampled_from([0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 2.7])),
    min_size=1,
    max_size=3,
).filter(lambda sets: sum(size * weight for size, weight in sets) >= 1)


def counts(sizes, weights, seed, epochs):
    rows = [epoch_rows(sizes, weights, seed, epoch) for epoch in epochs]
    return Counter(map(tuple, np.concatenate(rows).tolist()))


@settings(max_examples=40, deadline=None)
@given(sets=SETS, seed=st.integers(0, 2**40), epochs=st.integers(1, 20))
def test_each_row_is_seen_as_often_as_its_weight_says(sets, seed, epochs):
    """After any number of epochs, to within the one copy that the rounding may move."""
    sizes, weights = zip(*sets, strict=True)
    seen = counts(sizes, weights, seed, range(epochs))
    for number, (size, weight) in enumerate(sets):
        each = [seen[number, row] for row in range(size)]
        assert sum(each) == epochs * size * int(weight) + round(epochs * (weight % 1) * size)
        assert max(each) - min(each) <= 1


def test_successive_epochs_see_other_rows():
    quarters = [counts([100], [0.25], 7, [epoch]) for epoch in range(4)]
    assert all(len(quarter) == 25 for quarter in quarters)
    assert len(sum(quarters, Counter())) == 100
    assert counts([100], [0.25], 7, range(4, 8)) == counts([100], [1.0], 7, [0])
    assert counts([100], [0.25], 7, [4]) != quarters[0]


def test_weights_of_whole_numbers_are_copies():
    assert counts([3, 2], [2.0, 1.0], 0, [0]) == {
        (0, 0): 2,
        (0, 1): 2,
        (0, 2): 2,
        (1, 0): 1,
        (1, 1): 1,
    }


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        return epoch_rows([50], [1.0], seed, epoch).tolist()

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(2, 2)
    assert order(1, 2) != order(1, 3)
    # Written down: a checkpoint of today must find the same rows tomorrow.
    assert epoch_rows([6], [1.0], 0, 0)[:, 1].tolist() == EXPECTED


EXPECTED = [1, 0, 3, 4, 5, 2]


@settings(max_examples=40, deadline=None)
@given(sets=SETS, seed=st.integers(0, 99), prompts=st.integers(1, 9))
def test_steps_are_the_epochs_joined_and_cut(sets, seed, prompts):
    """LAWS L3: any step is found without the ones before it."""
    sizes, weights = zip(*sets, strict=True)
    joined = np.concatenate([epoch_rows(sizes, weights, seed, epoch) for epoch in range(9)])
    order = Order(sizes, weights, seed)
    steps = min(12, len(joined) // prompts)
    found = [order.rows_of_step(step, prompts) for step in range(steps)]
    assert [row for step in found for row in step] == [
        tuple(row) for row in joined[: steps * prompts].tolist()
    ]
    last = Order(sizes, weights, seed).rows_of_step(steps - 1, prompts)
    assert last == found[-1]


@pytest.mark.parametrize(
    ("size", "weight", "epochs", "prompts", "steps"),
    [
        (7473, 1.0, 2.0, 32, 468),
        (10, 1.0, 1.0, 10, 1),
        (10, 0.5, 3.0, 5, 3),
        (10, 1.0, 0.5, 2, 3),
        (3, 1.0, 1.0, 64, 1),
    ],
)
def test_steps_of_epochs(size, weight, epochs, prompts, steps):
    assert Order([size], [weight], 0).steps(epochs, prompts) == steps


def test_memory_is_that_of_the_epochs_at_hand():
    order = Order([10], [1.0], 0)
    for step in range(100):
        order.rows_of_step(step, 3)
        assert len(order._held) <= 2
