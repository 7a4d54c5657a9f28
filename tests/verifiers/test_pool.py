"""Judging in processes: whatever a verifier does, a verdict comes, and nothing else goes on."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from ftkit.verifiers.base import Item
from ftkit.verifiers.pool import Pool
from ftkit.verifiers.process import Setup

FILE = str(Path(__file__).with_name("judges.py"))


def pool_with(function="odd", *, timeout=0.5, workers=2, threshold=1.0):
    values = {"function": f"{FILE}:{function}", "threshold": threshold}
    return Pool(Setup("python", values, timeout, memory_mb=512), workers=workers)


@pytest.fixture(scope="module")
def odd():
    pool = pool_with()
    yield pool
    pool.close()


def judge(pool, *answers, truth=""):
    return pool.judge([Item(answer, truth) for answer in answers])


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        ("hang", "timeout", "more than 0.5 s"),
        ("spin", "timeout", "more than 0.5 s"),
        ("hog", "error", "512 MiB"),
        ("leave", "error", "status 3"),
        ("crash", "error", "SIGABRT"),
        ("forge", "error", "socket of the verdicts"),
        ("nan", "error", "nan"),
        ("inf", "error", "inf"),
        ("text", "error", "returned str"),
        ("nothing", "error", "returned NoneType"),
        ("complex", "error", "complex"),
        ("raise", "error", "ZeroDivisionError"),
        ("exit", "error", "SystemExit"),
        ("no such key", "error", "KeyError"),
        ("say", "incorrect", "less than 1"),
        ("right", "correct", ""),
    ],
)
def test_a_verdict_with_its_reason_comes_of_everything(odd, answer, status, reason):
    before, verdict, after = judge(odd, "right", answer, "right")
    assert (verdict.status, verdict.reward) == (
        status,
        {"correct": 1.0, "error": None}.get(status, 0.0),
    )
    assert reason in verdict.detail
    assert before.status == after.status == "correct"


def test_what_it_prints_goes_nowhere(capfd):
    pool = pool_with()
    assert judge(pool, "say")[0].status == "incorrect"
    pool.close()
    assert capfd.readouterr() == ("", "")


def test_verdicts_are_in_the_order_of_the_answers():
    pool = pool_with("value", threshold=50.0)
    verdicts = judge(pool, *map(str, range(100)))
    pool.close()
    assert [verdict.reward for verdict in verdicts] == list(range(100))
    assert [verdict.status for verdict in verdicts] == ["incorrect"] * 50 + ["correct"] * 50


def test_several_are_judged_at_once():
    pool = pool_with(timeout=0.6, workers=3)
    assert pool.check() is None
    start = time.monotonic()
    verdicts = judge(pool, "hang", "hang", "hang")
    assert time.monotonic() - start < 1.5
    assert [verdict.status for verdict in verdicts] == ["timeout"] * 3
    pool.close()


def test_what_it_started_dies_with_it_and_its_files_are_removed(tmp_path, monkeypatch):
    child, scratch = tmp_path / "child", tmp_path / "scratch"
    monkeypatch.setenv("FTKIT_TEST_CHILD", str(child))
    monkeypatch.setenv("FTKIT_TEST_SCRATCH", str(scratch))
    pool = pool_with()
    assert judge(pool, "scratch")[0].reward == 1
    assert Path(scratch.read_text(encoding="utf-8")).is_dir()
    assert judge(pool, "start another")[0].status == "timeout"
    pids = [process.process.pid for process in pool.processes]
    pool.close()
    pid = int(child.read_text(encoding="utf-8"))
    until = time.monotonic() + 2
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(pid)
    assert not any(alive(each) for each in pids)
    assert not Path(scratch.read_text(encoding="utf-8")).parent.exists()


def test_it_works_from_a_thread_and_after_it_was_closed():
    pool = pool_with("same")
    found = []
    thread = threading.Thread(target=lambda: found.extend(judge(pool, "a", truth="a")))
    thread.start()
    thread.join()
    pool.close()
    found += judge(pool, "a", truth="a")
    pool.close()
    assert [verdict.status for verdict in found] == ["correct"] * 2


@pytest.mark.parametrize("reaped", [False, True])
def test_a_process_that_dies_while_idle_is_replaced_in_silence(reaped):
    pool = pool_with("same", workers=1)
    assert judge(pool, "a", truth="a")[0].status == "correct"
    process = pool.processes[0].process
    os.kill(process.pid, 9)
    if reaped:  # by somebody who waits for all children
        os.waitpid(process.pid, 0)
    assert judge(pool, "a", truth="a")[0].status == "correct"
    pool.close()


def test_a_process_ends_when_nobody_is_left_at_the_other_end():
    pool = pool_with("same", workers=1)
    assert pool.check() is None
    (process,) = pool.processes
    process.socket.shutdown(socket.SHUT_RDWR)  # what the end of this process would do
    assert process.process.wait(2.0) == 0
    pool.close()


def test_an_error_is_tried_twice_and_a_timeout_once(tmp_path):
    file = tmp_path / "counting.py"
    count = tmp_path / "count"
    file.write_text(
        "import time\n"
        "def judge(answer, truth):\n"
        f"    with open({str(count)!r}, 'a') as out: out.write('.')\n"
        "    if answer == 'late': time.sleep(9)\n"
        f"    if len(open({str(count)!r}).read()) == 1: raise OSError('once')\n"
        "    return True\n",
        encoding="utf-8",
    )
    setup = Setup("python", {"function": f"{file}:judge", "threshold": 1.0}, 0.5, 512)
    pool = Pool(setup, workers=1)
    assert judge(pool, "a")[0].status == "correct"
    assert count.read_text(encoding="utf-8") == ".."
    assert judge(pool, "late")[0].status == "timeout"
    assert count.read_text(encoding="utf-8") == "..."
    pool.close()


def test_a_verifier_that_does_not_start_says_why_and_judge_does_not_raise(tmp_path):
    pool = pool_with("missing")
    assert "has no function 'missing'; it has crash, forge" in pool.check()
    (verdict,) = judge(pool, "a")
    assert verdict.reward is None
    assert "has no function" in verdict.detail
    slow = tmp_path / "slow.py"
    slow.write_text("import time; time.sleep(60)", encoding="utf-8")
    setup = Setup("python", {"function": f"{slow}:f", "threshold": 1.0}, 1.0, 512, 0.3)
    assert "not ready after 0.3 s" in Pool(setup, workers=1).check()


def test_the_processes_hold_neither_torch_nor_pydantic_and_long_texts_pass(tmp_path):
    file = tmp_path / "look.py"
    file.write_text(
        "import sys\n"
        "def judge(answer, truth):\n"
        "    return len(answer) if not {'torch', 'pydantic'} & set(sys.modules) else -1\n",
        encoding="utf-8",
    )
    setup = Setup("python", {"function": f"{file}:judge", "threshold": 1.0}, 5.0, 512)
    pool = Pool(setup, workers=1)
    long = "\ud800\n\0\u00e9" * 250_000
    assert judge(pool, long)[0].reward == len(long)
    pool.close()


def test_a_regular_expression_that_explodes_is_a_timeout():
    pool = Pool(Setup("format", {"pattern": "(a+)+b"}, 0.3, 512), workers=1)
    verdicts = judge(pool, "aab", "a" * 40, "aa")
    pool.close()
    assert [verdict.status for verdict in verdicts] == ["correct", "timeout", "incorrect"]
    assert [verdict.reward for verdict in verdicts] == [1.0, 0.0, 0.0]


def test_signals_to_the_run_are_not_for_the_processes():
    """Slurm sends them to every process of a job; one that comes as it starts is no harm either."""
    pool = Pool(
        Setup("python", {"function": f"{FILE}:slow", "threshold": 1.0}, 5.0, 512), workers=1
    )
    pool.grow(1)
    stop = threading.Event()

    def disturb():
        while not stop.wait(0.02):
            for process in list(pool.processes):
                for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
                    os.kill(process.process.pid, number)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        (verdict,) = judge(pool, "a", truth="a")
    finally:
        stop.set()
        thread.join()
        pool.close()
    assert (verdict.status, verdict.detail) == ("correct", "")


def test_a_program_that_a_process_starts_can_be_asked_to_end(tmp_path):
    """What the verifier itself starts has the usual signals."""
    pool = pool_with("terminates", timeout=5.0, workers=1)
    (verdict,) = judge(pool, "a")
    pool.close()
    assert verdict.status == "correct"
