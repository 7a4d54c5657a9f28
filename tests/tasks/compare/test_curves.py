"""Curves: smoothed, thinned, with axes and colours."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.tasks.curves.line import Curve, build_line, smoothed
from ftkit.tasks.curves.log import read_run
from ftkit.tasks.curves.style import DARK, LIGHT, thinned, ticks
from tests.tasks.compare.online import online, rows, write


class TestSmoothing:
    @given(st.lists(st.floats(-9, 9), min_size=1, max_size=40), st.integers(1, 50))
    def test_each_value_is_a_mean_of_its_neighbours(self, values, width):
        found = smoothed(np.array(values), width)
        for i, value in enumerate(found):
            near = values[max(0, i - (width - 1) // 2) : i + width // 2 + 1]
            assert value == pytest.approx(statistics.fmean(near), abs=1e-9)

    def test_training_is_smoothed_for_each_run_and_what_was_before_is_kept(self, here):
        logs = [read_run(online(here / str(seed), seed=seed, steps=30)) for seed in range(2)]
        curve = build_line("x", "", logs, ["reward"], 7).curves["reward"]
        told = [[point.value for point in log.measures["reward"].values()] for log in logs]
        np.testing.assert_allclose(curve.raw, np.mean(told, 0))
        np.testing.assert_allclose(
            curve.value, np.mean([smoothed(np.array(row), 7) for row in told], 0)
        )
        assert np.ptp(np.diff(curve.value)) < np.ptp(np.diff(curve.raw))

    def test_a_measure_of_every_fourth_step_is_averaged_over_as_many_steps(self, here):
        run = online(here / "a", steps=40)
        kept = rows(run)
        for row in kept:
            if row["step"] % 4 != 1:
                del row["reward"]
        write(run / "metrics.jsonl", kept)
        log = read_run(run)
        curve = build_line("a", "", [log], ["reward"], 12).curves["reward"]
        assert curve.step.tolist() == list(range(1, 41, 4))
        np.testing.assert_allclose(curve.value, smoothed(curve.raw, 3))
        assert log.notes == []

    @given(st.integers(0, 99), st.integers(2, 3000), st.integers(10, 400))
    @settings(max_examples=50)
    def test_thinning_keeps_the_ends_and_the_extremes(self, seed, size, most):
        y = np.random.default_rng(seed).normal(size=size)
        x = np.arange(len(y), dtype=float)
        found = thinned(Curve(x, x, y, y), most)
        assert len(found.step) <= max(most, 3)
        assert (found.value.min(), found.value.max()) == (y.min(), y.max())
        assert (found.step[0], found.step[-1]) == (0, len(y) - 1)

    @given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 9))
    def test_ticks_are_few_and_within_the_range(self, low, reach, most):
        found = ticks(low, low + reach, most)
        assert len(found) <= most + 1
        assert all(low - reach / 50 <= tick <= low + reach * 1.02 for tick in found)


def test_colours_stay_apart_for_the_colour_blind_and_from_the_ground():
    for palette, ground, least in ((LIGHT, "#ffffff", 3.0), (DARK, "#14171b", 4.0)):
        assert all(contrast(colour, ground) >= least for colour in palette)
        for matrix in SIGHT.values():
            seen = [oklab(np.array(matrix) @ linear(colour)) for colour in palette]
            pairs = itertools.combinations(seen, 2)
            assert min(np.linalg.norm(a - b) for a, b in pairs) > 0.09


SIGHT = {
    "whole": np.eye(3),
    "no red": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.052]],
    "no green": [[0.3673, 0.8606, -0.228], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "no blue": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}
"""What is seen of linear RGB (Machado et al., 2009, IEEE TVCG 15, 1291; severity 1)."""


def linear(colour):
    part = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    low, high = sorted(linear(each) @ [0.2126, 0.7152, 0.0722] for each in (one, other))
    return (high + 0.05) / (low + 0.05)


def oklab(rgb):
    cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.array(lab) @ np.cbrt(np.array(cones) @ np.clip(rgb, 0, 1))
