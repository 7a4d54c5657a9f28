"""The learning rate in closed form (PITFALLS 27)."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit.train.schedule import learning_rate


@pytest.mark.parametrize("shape", ["constant", "linear", "cosine"])
@given(steps=st.integers(1, 500), warmup=st.floats(0, 0.9), min_lr=st.floats(0, 1))
def test_rises_to_lr_and_never_exceeds_it(shape, steps, warmup, min_lr):
    rates = [
        learning_rate(t, steps=steps, lr=2.0, shape=shape, warmup=warmup, min_lr=min_lr)
        for t in range(1, steps + 1)
    ]
    rise = round(warmup * steps)
    assert all(0 < rate <= 2.0 + 1e-12 or min_lr == 0 for rate in rates)
    assert rates[: rise + 1] == sorted(rates[: rise + 1])
    assert rates[rise:] == sorted(rates[rise:], reverse=True)
    if rise < steps:
        assert rates[rise] == pytest.approx(2.0)


def test_cosine_in_closed_form():
    rates = [
        learning_rate(t, steps=110, lr=1.0, shape="cosine", warmup=10, min_lr=0.1)
        for t in range(1, 111)
    ]
    for t in range(1, 11):
        assert rates[t - 1] == pytest.approx(t / 10)
    for t in range(11, 111):
        half = (1 + math.cos(math.pi * (t - 11) / 100)) / 2
        assert rates[t - 1] == pytest.approx(0.1 + 0.9 * half)


def test_warmup_as_share_and_as_steps():
    def at(warmup):
        return [
            learning_rate(t, steps=20, lr=1.0, shape="linear", warmup=warmup) for t in range(1, 21)
        ]

    assert at(0.25) == at(5)
