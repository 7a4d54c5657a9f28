"""What a watchdog takes for hung, by a clock that the test sets."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from ftkit.core.phase import WAITING, beat, phase
from ftkit.parallel import watchdog as module
from ftkit.parallel.sign import Sign, place_of, waits_for_others
from ftkit.parallel.watchdog import Watchdog

TIMEOUT = 5.0


class Ended(Exception):  # noqa: N818 (it is no error)
    """In place of the end of the process."""


@pytest.fixture
def look(monkeypatch):
    """Return a function that lets rank 1 of three look at some moments, and tells what it says.

    Signs come between looks: for each moment, those of ranks that have said something.
    """
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.delenv("FTKIT_REPORTS", raising=False)

    def run(moments, *, own=None):
        dog = Watchdog(SimpleNamespace(clone=lambda: SimpleNamespace(set=print)), 1, 3, TIMEOUT)
        said, left = [], list(moments)

        def end(lines, *, follows=False, aloud=False):
            said.append((lines, aloud))
            raise Ended

        def wait(seconds):
            if not left:
                return True
            clock[0], signs = left.pop(0)
            dog._signs |= {each.rank: each for each in signs}
            if own is not None:
                own()
            return False

        dog._end = end
        dog._over = SimpleNamespace(wait=wait, is_set=lambda: False)
        with suppress(Ended):
            dog._watch()
        return said

    clock[0] = 0.0
    return run


def sign(rank, said, progress=0, waits=True, name="learning"):
    return Sign(rank, "node", name, 7, waits, "a.py:3 in f", progress, said)


def every_second(until, signs):
    return [(float(t), signs(t)) for t in range(1, until)]


def test_nothing_is_said_while_any_rank_gets_on(look):
    moments = every_second(60, lambda t: [sign(0, t), sign(1, t), sign(2, t, progress=t // 3)])
    assert look(moments) == []


def test_nothing_is_said_while_it_gets_on_itself(look):
    assert look(every_second(60, lambda _: []), own=beat) == []


def test_the_rank_that_does_not_wait_hangs(look):
    moments = every_second(60, lambda t: [sign(0, t), sign(1, t), sign(2, t, waits=False)])
    with phase(WAITING):
        ((lines, aloud),) = look(moments)
    assert lines[0] == "nothing has got on for 6 s (parallel.timeout)"
    assert lines[1] == "rank 2 on node, in step 7: learning, at a.py:3 in f (hangs)"
    assert lines[2:3] == ["rank 0 on node, in step 7: learning"]
    assert "waiting" in lines[3]
    assert not aloud  # rank 0 lives, and says it


def test_a_rank_that_says_nothing_any_more_hangs_whatever_others_do(look):
    def signs(t):
        return [sign(0, min(t, 2), waits=False), sign(1, t), sign(2, t, waits=False)]

    ((lines, aloud),) = look(every_second(60, signs))
    assert lines[1].startswith("rank 0 on node, in step 7: learning, when last heard (hangs:")
    assert len(lines) == 4
    assert not any("hangs" in line for line in lines[2:])
    assert aloud  # now this rank is the first


def test_where_the_store_tells_nothing_its_keeper_hangs(look):
    """Not even one's own words come back."""
    moments = every_second(60, lambda t: [sign(rank, min(t, 2)) for rank in range(3)])
    ((lines, _),) = look(moments)
    assert [line.split(" on ")[0] for line in lines if "hangs" in line] == ["rank 0"]


def test_where_torchrun_keeps_the_store_it_is_named(look, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    moments = every_second(60, lambda t: [sign(rank, min(t, 2)) for rank in range(3)])
    ((lines, _),) = look(moments)
    assert lines[1] == "the launcher at which all ranks meet says nothing"
    assert not any("hangs" in line for line in lines)


def test_ranks_that_never_came_are_named(look):
    ((lines, _),) = look(every_second(60, lambda t: [sign(0, t), sign(1, t)]))
    assert "rank 2 has not come" in lines


def test_all_wait_for_each_other(look):
    moments = every_second(60, lambda t: [sign(rank, t) for rank in range(3)])
    with phase(WAITING):
        ((lines, _),) = look(moments)
    assert lines[1] == "every rank waits for the others: they have lost each other"


def test_time_for_which_the_whole_run_was_suspended_does_not_count(look):
    """As by Slurm, or a lid that is closed: the clock went on, and this process did not."""
    moments = every_second(4, lambda t: [sign(rank, t) for rank in range(3)])
    moments += [(1000.0 + t, [sign(rank, t) for rank in range(3)]) for t in range(4, 5)]
    assert look(moments) == []


def test_who_waits_is_known_by_where_its_threads_are():
    seen = []

    class Looking:
        """A store that is asked within a collective."""

        def __getattr__(self, name):
            seen.append(waits_for_others(sys._current_frames()))
            raise RuntimeError

    with pytest.raises((RuntimeError, TypeError)):
        dist.distributed_c10d._store_based_barrier(0, Looking(), "group", 2, 1)
    assert seen == [True]
    assert not waits_for_others(sys._current_frames())


def test_a_thread_of_ours_in_a_collective_says_nothing_of_the_rank():
    inside, over = threading.Event(), threading.Event()

    class Held:
        """A store that keeps whoever asks it waiting."""

        def __getattr__(self, name):
            inside.set()
            over.wait(10)
            raise RuntimeError

    def ask():
        with suppress(RuntimeError, TypeError):
            dist.distributed_c10d._store_based_barrier(0, Held(), "group", 2, 1)

    thread = threading.Thread(target=ask)
    thread.start()
    assert inside.wait(10)
    found = waits_for_others(sys._current_frames())
    over.set()
    thread.join()
    assert not found


def test_the_place_is_that_of_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(place_of(sys._current_frames())))
    thread.start()
    thread.join()
    assert found[0].startswith("python3.")
    assert " in " in found[0]
    assert place_of(sys._current_frames()).startswith("parallel/test_watchdog.py:")
