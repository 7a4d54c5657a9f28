"""Pieces: whatever cuts a parameter in pieces, any stretch of it is read back."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.parallel.pieces import Piece, Stored, save_pieces

SHAPE = (4, 6)


def cut(edges):
    """A parameter, cut at these places, with a state of its own; each piece in another file."""
    weight, state = torch.arange(24.0), torch.arange(24.0) + 100
    places = [0, *sorted(set(edges)), 24]
    for start, stop in pairwise(places):
        values = {"weight": weight[start:stop], "exp_avg": state[start:stop]}
        yield {"w": Piece(SHAPE, start, values, steps=7)}


@settings(deadline=None, max_examples=25)
@given(edges=st.lists(st.integers(1, 23), max_size=4), at=st.integers(0, 23), n=st.integers(1, 24))
def test_any_stretch_is_read_back(tmp_path_factory, edges, at, n):
    folder = tmp_path_factory.mktemp("pieces")
    for i, pieces in enumerate(cut(edges)):
        save_pieces(pieces, folder / f"{i}")
    stored = Stored.at(sorted(folder.iterdir()))
    n = min(n, 24 - at)
    assert stored.read("w", "exp_avg", at, n).tolist() == [100.0 + i for i in range(at, at + n)]
    assert torch.equal(stored.whole("w"), torch.arange(24.0).view(SHAPE))
    assert (stored.names, stored.steps("w"), stored.keys("w")) == (["w"], 7, {"exp_avg"})


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_stretch_that_nobody_has_is_told(tmp_path, missing):
    for i, pieces in enumerate(cut([5, 11])):
        if i != missing:
            save_pieces(pieces, tmp_path / f"{i}")
    with pytest.raises(ValueError, match="of w everything behind place"):
        Stored.at(sorted(tmp_path.iterdir()))


def test_parameters_of_a_critic_by_their_own_names(tmp_path):
    one = Piece((2,), 0, {"weight": torch.tensor([1.0, 2.0])})
    save_pieces({"critic.a": one, "a": Piece((1,), 0, {"weight": torch.zeros(1)})}, tmp_path / "0")
    own = Stored.at([tmp_path / "0"]).under("critic.")
    assert own.names == ["a"] and own.whole("a").tolist() == [1.0, 2.0]
