"""In which order rows are seen: a pure function of sizes, weights, seed and epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

DRAW, SHUFFLE = 0, 1
"""Streams of random numbers: for the fractional part of a weight, and for the order of an epoch."""


def epoch_rows(sizes: Sequence[int], weights: Sequence[float], seed: int, epoch: int) -> np.ndarray:
    """Return the rows of an epoch in the order in which they are seen.

    A set of weight w is seen floor(w) times in full; for the rest, rows come from one permutation
    after another, each used up before the next, so that successive epochs see other rows.

    Args:
        sizes: how many rows each set has.
        weights: how often each row of a set is seen in an epoch, on average.
        seed: of every permutation.
        epoch: which one, from 0.

    Returns:
        int64 [rows, 2]: (set, row).
    """
    parts = []
    for number, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
        drawn = range(_drawn(size, weight, epoch), _drawn(size, weight, epoch + 1))
        rows = np.concatenate(
            [np.tile(np.arange(size), int(weight)), _running(size, drawn, seed, number)]
        )
        parts.append(np.stack([np.full_like(rows, number), rows], axis=1))
    every = np.concatenate(parts)
    return every[_rng(seed, SHUFFLE, epoch).permutation(len(every))]


def epoch_visits(
    rows: np.ndarray, weights: Sequence[float], sizes: Sequence[int], seed: int, epoch: int
) -> np.ndarray:
    """Return how often each row of an epoch was seen before it comes, in all epochs.

    Args:
        rows: int64 [rows, 2], of ``epoch_rows``.
        weights: as of ``epoch_rows``, like all that follows.
        sizes: see there.
        seed: see there.
        epoch: see there.

    Returns:
        int64 [rows].
    """
    visits = np.zeros(len(rows), dtype=np.int64)
    for number, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
        before = np.full(size, epoch * int(weight), dtype=np.int64)
        drawn = _running(size, range(_drawn(size, weight, epoch)), seed, number)
        before += np.bincount(drawn, minlength=size)
        mine = rows[:, 0] == number
        own = rows[mine, 1]
        order = np.argsort(own, kind="stable")
        first = np.searchsorted(own[order], own[order])
        again = np.empty_like(own)
        again[order] = np.arange(len(own)) - first
        visits[mine] = before[own] + again
    return visits


def _drawn(size: int, weight: float, epoch: int) -> int:
    """Return how many rows the fractional part of a weight has taken before an epoch."""
    return round(epoch * (weight - int(weight)) * size)


def _running(size: int, draws: range, seed: int, number: int) -> np.ndarray:
    """Return what the given draws take, when one permutation of a set follows another."""
    if not draws:
        return np.zeros(0, dtype=np.int64)
    first, last = draws[0] // size, draws[-1] // size
    joined = np.concatenate(
        [_rng(seed, DRAW, number, turn).permutation(size) for turn in range(first, last + 1)]
    )
    return joined[draws[0] - first * size : draws[-1] + 1 - first * size]


def _rng(*key: int) -> np.random.RandomState:
    # numpy promises that RandomState's streams never change; a Generator's may.
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(key)))


@dataclass
class Order:
    """Epochs joined end to end and cut into steps; holds the rows of at most two epochs.

    Attributes:
        sizes: how many rows each set has.
        weights: how often each row of a set is seen in an epoch.
        seed: of the order.
    """

    sizes: Sequence[int]
    weights: Sequence[float]
    seed: int
    _held: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False)
    _visits: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    def rows_of_step(self, step: int, prompts: int) -> list[tuple[int, int]]:
        """Return the (set, row) of each prompt of a step; steps count from 0."""
        return self.rows_from(step * prompts, prompts)

    def rows_from(self, at: int, count: int) -> list[tuple[int, int]]:
        """Return the (set, row) of ``count`` prompts from the at-th on, counted from 0."""
        return [
            (int(number), int(row))
            for epoch, part in self._parts(at, at + count)
            for number, row in self._epoch(epoch)[part]
        ]

    def visits_of_step(self, step: int, prompts: int) -> list[int]:
        """Return how often each prompt of a step was seen before; as ``rows_of_step``."""
        visits: list[int] = []
        for epoch, part in self._parts(step * prompts, (step + 1) * prompts):
            if epoch not in self._visits:
                self._visits = {e: v for e, v in self._visits.items() if e == epoch - 1}
                self._visits[epoch] = epoch_visits(
                    self._epoch(epoch), self.weights, self.sizes, self.seed, epoch
                )
            visits += self._visits[epoch][part].tolist()
        return visits

    def _parts(self, at: int, stop: int) -> Iterator[tuple[int, slice]]:
        """Yield the epochs of some prompts, from the at-th on, and which places in each are its."""
        epoch = self._epoch_of(at)
        while at < stop:
            start, end = self._start(epoch), self._start(epoch + 1)
            yield epoch, slice(at - start, min(stop, end) - start)
            at, epoch = min(stop, end), epoch + 1

    def rows(self, epochs: float) -> int:
        """Return how many rows are seen in so many epochs; at least one."""
        whole = int(epochs)
        start, end = self._start(whole), self._start(whole + 1)
        return max(1, start + round((epochs - whole) * (end - start)))

    def steps(self, epochs: float, prompts: int) -> int:
        """Return how many steps see the rows of so many epochs; the last may be a smaller one."""
        return math.ceil(self.rows(epochs) / prompts)

    def _start(self, epoch: int) -> int:
        """Return how many rows are seen before an epoch."""
        return sum(
            epoch * size * int(weight) + _drawn(size, weight, epoch)
            for size, weight in zip(self.sizes, self.weights, strict=True)
        )

    def _epoch_of(self, at: int) -> int:
        """Return the epoch in which the at-th row is seen."""
        mean = sum(size * weight for size, weight in zip(self.sizes, self.weights, strict=True))
        epoch = int(at / mean)
        while self._start(epoch + 1) <= at:
            epoch += 1
        while self._start(epoch) > at:
            epoch -= 1
        return epoch

    def _epoch(self, epoch: int) -> np.ndarray:
        if epoch not in self._held:
            self._held = {
                number: rows for number, rows in self._held.items() if number == epoch - 1
            }
            self._held[epoch] = epoch_rows(self.sizes, self.weights, self.seed, epoch)
        return self._held[epoch]
