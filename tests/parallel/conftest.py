"""Ranks for all tests of a file."""

from __future__ import annotations

import pytest

from tests.end_to_end.conftest import files, recipe, run  # noqa: F401 (fixtures)
from tests.parallel.ranks import Ranks
from tests.parallel.runs import SHALLOW


@pytest.fixture(scope="session")
def ranks():
    """Return a function from a number of ranks to that many, which stay for the next test."""
    kept = {}

    def get(size):
        if size not in kept or not all(each.is_alive() for each in kept[size].processes):
            kept[size] = Ranks(size)
        return kept[size]

    yield get
    for each in kept.values():
        each.close()


@pytest.fixture
def base(recipe, files, tmp_path):  # noqa: F811
    """A model's folder, for adapters."""
    model = {**SHALLOW, "tokenizer": str(files / "tokenizer")}
    assert run(recipe("base", train={"steps": 1}, model=model)) == 0
    return str(tmp_path / "base" / "model")
