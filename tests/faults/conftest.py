"""Runs that faults are done to."""

from __future__ import annotations

import pytest

from tests.end_to_end.conftest import files, recipe  # noqa: F401 (fixtures)
from tests.faults.launched import Launched


@pytest.fixture
def launched():
    """Return a function that starts ``ftkit train``, of whose processes none outlives the test."""
    begun = []

    def start(*args, **kwargs):
        begun.append(Launched(*args, **kwargs))
        return begun[-1]

    yield start
    for each in begun:
        each.kill()
