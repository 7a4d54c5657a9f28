"""A rank that hangs ends the run, which says which, where, and in what; a slow one does not."""

from __future__ import annotations

import socket

import pytest

from tests.faults.causes import LOADING, STEP, UPDATING, before, sleep, stop, work

HOST = socket.gethostname()
HASTY = {"timeout": 1.5}
NOTHING = "the run failed: nothing has got on for"


def lines_of(process) -> list[str]:
    """What was said of the failure."""
    _, found, text = process.text.partition(NOTHING)
    assert found, process.text
    return text.splitlines()[1:]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_sleeps_is_named_with_step_phase_and_place(recipe, launched, rank):
    """In the update, where the other waits in a collective of DeepSpeed's, in the same phase."""
    path = recipe(parallel={"zero": 2, **HASTY})
    process = launched(path, cause=before(UPDATING, rank, sleep, 3))
    assert process.wait(20) == 1
    assert lines_of(process) == [
        f"rank {rank} on {HOST}, in step 3: updating, at faults/causes.py:"
        f"{sleep.__code__.co_firstlineno + 1} in sleep (hangs)",
        f"rank {1 - rank} on {HOST}, in step 3: updating",
    ]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_was_stopped_is_named_though_it_keeps_the_store(recipe, launched, rank):
    process = launched(recipe(parallel=HASTY), cause=before(STEP, rank, stop, 3))
    assert process.wait(20) == 1
    first, second, third = lines_of(process)
    assert first.startswith(f"rank {rank} on {HOST}, in step ")
    assert first.endswith(", when last heard (hangs: it is stopped, or cut off)")
    assert second == f"rank {1 - rank} on {HOST}, in step 3: waiting for the other ranks"
    assert third == f"ranks {rank} were ended"


def test_a_rank_that_hangs_before_the_first_step(recipe, launched):
    process = launched(recipe(parallel=HASTY), cause=before(LOADING, 1, sleep))
    assert process.wait(20) == 1
    assert "rank 1 on" in lines_of(process)[0]
    assert "in step 0: loading the model, at faults/causes.py" in lines_of(process)[0]


def test_a_rank_that_takes_long_and_gets_on_is_left_alone(recipe, launched):
    """Three seconds, of which the other rank waits."""
    path = recipe(train={"steps": 2}, parallel=HASTY)
    process = launched(path, cause=before(STEP, 1, work, 2))
    assert process.wait() == 0
