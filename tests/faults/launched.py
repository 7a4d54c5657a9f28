"""The real command with several ranks, quickly: processes are forks of one that has imported all.

Only the birth of processes differs from ``ftkit train --gpus N`` in a shell: the launcher, its
signals, the ranks, what they write and how they end are the real ones.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import SimpleNamespace

from tests.parallel.ranks import PRELOADED

LIMIT = 60.0
"""Seconds that a launcher may take."""


class Launched:
    """``ftkit train RECIPE --gpus N`` while it runs.

    Args:
        path: the recipe.
        arguments: further ones.
        gpus: how many ranks.
        cause: what is called in each process before it begins: a fault, for instance.
        environment: further variables.
    """

    def __init__(self, path, *arguments, gpus=2, cause=None, environment=None):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.folder = Path(path).with_suffix(f".{time.monotonic_ns()}")
        self.folder.mkdir()
        argv = ["ftkit", "train", str(path), "--gpus", str(gpus), *arguments]
        self.process = context.Process(
            target=launch, args=(argv, self.folder, cause, environment or {})
        )
        self.began = time.monotonic()
        self.process.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def text(self) -> str:
        """What was printed so far, by all of them."""
        file = self.folder / "out"
        return file.read_text() if file.is_file() else ""

    def rank(self, number: int) -> int:
        """The process of a rank, once it is there."""
        file = self.folder / f"rank-{number}"
        self.until(file.is_file)
        return int(file.read_text())

    def until(self, holds, seconds=LIMIT):
        """Wait until something holds."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, self.text
            assert self.process.is_alive(), self.text
            time.sleep(0.002)

    def wait(self, seconds=LIMIT) -> int:
        """Return the exit status; no process may be left then."""
        self.process.join(seconds)
        status = self.process.exitcode
        if status is None:
            self.kill()
            raise AssertionError(f"it did not end within {seconds} s:\n{self.text}")
        left = self.left()
        self.kill()
        assert not left, self.text
        return status

    def left(self, seconds=2.0) -> list[int]:
        """The processes that are still there after some seconds: ranks and what they started."""
        deadline = time.monotonic() + seconds
        while (found := self._there()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return found

    def kill(self) -> None:
        for pid in [self.pid, *self._there()]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.join()

    def _there(self) -> list[int]:
        sessions = {int(file.read_text()) for file in self.folder.glob("rank-*")}
        return [pid for pid, session in living().items() if pid in sessions or session in sessions]


def living() -> dict[int, int]:
    """The processes of this machine that are no zombies, and the session of each."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if state not in {"Z", "X"}:
            found[int(path.parent.name)] = int(session)
    return found


class Fork:
    """What the launcher uses of ``subprocess.Popen``."""

    folder: Path
    cause = [None]

    def __init__(self, command, *, env, stdin, start_new_session):
        assert command[:3] == [sys.executable, "-m", "ftkit"]
        assert stdin == subprocess.DEVNULL
        assert start_new_session
        self.returncode = None
        self.pid = os.fork()
        if self.pid == 0:
            self._be(command, env)
        (self.folder / f".rank-{env['RANK']}").write_text(str(self.pid))
        (self.folder / f".rank-{env['RANK']}").rename(self.folder / f"rank-{env['RANK']}")

    def _be(self, command, env):
        status = 70
        try:
            os.setsid()
            for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                if callable(signal.getsignal(number)):
                    signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.environ.clear()
            os.environ.update(env)
            begin(["ftkit", *command[3:]], *self.cause)
        except SystemExit as error:
            status = error.code
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self):
        while self.poll() is None:
            time.sleep(0.005)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)


def launch(argv, folder, cause, environment) -> None:
    """Be the launcher."""
    from ftkit.launch import local

    out = os.open(folder / "out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.environ.update({"CUDA_VISIBLE_DEVICES": "", **environment})
    Fork.folder, Fork.cause = folder, [cause]
    local.subprocess = SimpleNamespace(Popen=Fork, DEVNULL=subprocess.DEVNULL)
    begin(argv, None)


def begin(argv, cause):
    from ftkit.__main__ import main

    if cause is not None:
        cause()
    sys.argv[:] = argv
    main()
