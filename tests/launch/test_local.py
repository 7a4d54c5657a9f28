"""The launcher with ranks that are real processes, of a line of Python each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

LAUNCHER = """
import sys
from ftkit.launch import local
local.GRACE = 2.0
first = "import os, signal, sys, time; from ftkit.launch.rank import begin; begin();"
command = [sys.executable, "-c", first + "rank = os.environ['RANK'];" + sys.argv[1]]
sys.exit(local.Ranks(local.Node(2), command, controlled=len(sys.argv) > 2).run())
"""
GENTLE = (
    "n = []; f = lambda s, _: n.append(s);"
    "[signal.signal(s, f) for s in (2, 10, 15)]; print(os.getpid(), flush=True);"
)
"""A rank that notes signals."""
NOTED = (
    GENTLE + "exec('while not n: time.sleep(0.01)'); time.sleep(0.3); print(rank, n, flush=True);"
)
ENDLESS = GENTLE + "exec('while True: time.sleep(0.1)')"


HERE = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


@pytest.fixture
def launcher():
    """Return a function that starts a launcher of two ranks."""
    begun = []

    def start(rank, *more):
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, rank, *more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=HERE,
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def started(process) -> list[int]:
    """The ranks' processes, in no order, when both take signals."""
    lines = [process.stdout.readline() for _ in range(2)]
    return [int(line.split("] ")[-1]) for line in lines]


def lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 (it may go away meanwhile)
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def end(process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


def test_the_status_is_that_of_all(launcher, tmp_path):
    there = f"open(f'{tmp_path}/{{rank}}', 'w').close();"
    meet = f"""exec('while len(os.listdir("{tmp_path}")) < 2: time.sleep(0.01)');"""
    failing = f"{there} {meet} print('half a line', end=''); sys.exit(7)"
    both = [launcher("sys.exit(0)"), launcher(failing)]
    assert end(both[0]) == (0, "", "")
    status, out, err = end(both[1])
    assert status == 1
    wanted = ["rank 0 ended with status 7", "rank 1 ended with status 7"]
    assert sorted(err.splitlines()) == wanted  # the first that ended comes first
    assert "half a line" in out


def test_a_rank_that_is_killed_ends_the_others_and_is_named(launcher):
    process = launcher(GENTLE + "os.kill(os.getpid(), 9) if rank == '1' else time.sleep(60)")
    pids = started(process)
    status, _, err = end(process)
    assert status == 1
    assert err.splitlines() == [
        "rank 1 was killed by SIGKILL: perhaps for want of memory (see dmesg)",
        "ranks 0 were ended",
    ]
    assert not any(lives(pid) for pid in pids)


def test_ranks_end_with_a_launcher_that_is_killed(launcher):
    process = launcher(ENDLESS)
    pids = started(process)
    os.kill(pids[0], signal.SIGSTOP)  # even one that is stopped
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while any(lives(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_signals_are_handed_on_however_many_there_are(launcher):
    """As Slurm sends them: SIGUSR1 and SIGTERM, each to every process, and once more."""
    process = launcher(NOTED + "sys.exit(128 + n[0])")
    started(process)
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM, signal.SIGTERM):
        process.send_signal(number)
        time.sleep(0.02)
    status, out, err = end(process)
    assert (status, err) == (138, "")
    assert "0 [10, 15" in out
    assert "1 [10, 15" in out


def test_a_third_ctrl_c_kills_but_not_one_that_came_twice(launcher):
    process = launcher(ENDLESS)
    pids = started(process)
    for _ in range(5):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    assert all(lives(pid) for pid in pids)
    for _ in range(2):
        time.sleep(1.05)
        process.send_signal(signal.SIGINT)
    status, _, err = end(process)
    assert (status, err) == (130, "ranks 0, 1 were ended\n")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGINT, 130)]
)
def test_a_signal_before_a_rank_can_take_it_ends_it_without_a_word_of_its_own(
    launcher, number, status
):
    process = launcher("print(os.getpid(), flush=True); time.sleep(60)")
    started(process)
    process.send_signal(number)
    found, _, err = end(process)
    assert found == status
    assert err.startswith(f"{number.name}: stopped before the first step")
    assert "Traceback" not in err


def test_ranks_begin_with_signals_blocked_and_none_is_lost(launcher):
    """A signal that comes while Python itself starts: no traceback, and not forgotten."""
    mask = "print(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))));"
    code = LAUNCHER.replace('first = "import', f'first = "import signal; {mask} import')
    command = [sys.executable, "-c", code, mask]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=HERE).stdout
    assert out.count("[1, 2, 10, 15]") == 2
    assert out.count("[]") == 2


def test_the_end_of_the_control_is_the_end_of_the_run(launcher):
    """As over ssh: signals come by standard input; its end means that nobody is there any more."""
    process = launcher(NOTED + "sys.exit(128 + n[0])", "controlled")
    started(process)
    process.stdin.write("15\n")
    process.stdin.flush()
    assert process.wait(20) == 143
    process = launcher(ENDLESS, "controlled")
    pids = started(process)
    process.stdin.close()
    process.stdin = None
    assert end(process)[0] == 130
    assert not any(lives(pid) for pid in pids)
