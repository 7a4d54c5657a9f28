"""A run that is killed: the command, whom to kill and when, and what must be so afterwards."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from scripts.kills.results import folders, steps_of

LIMIT = 20.0
"""Seconds in which a launcher must have ended, and no process may be left."""
LOOK = 0.0005
"""Seconds between looks for the moment."""
MARK = "KILL_RUNS"
"""Variable of the environment by which the processes of a run are known."""

DIES = """import os, signal, time
if "RANK" in os.environ and os.environ["RANK"] == os.environ.get("KILL_RANK"):
    left, sync = int(os.environ["KILL_SYNC"]), os.fsync
    def dying(handle):
        global left
        left -= 1
        if left == 0:
            with open(os.environ["KILL_MOMENT"], "w") as file:
                file.write(str(time.monotonic()))
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)
    os.fsync = dying
"""
"""Run by Python before all else in each process: has a rank die before a file is on the disk."""


class WrongError(Exception):
    """Something that must hold after a kill does not."""


@dataclass(frozen=True)
class Plan:
    """Whom to kill, and when."""

    kind: str
    """``sync``: a rank before it has its so manieth file on the disk; ``seen``: when a checkpoint's
    folder appears; ``step``: after a step; ``time``: after the start."""
    victim: int | None
    """A rank; None = the launcher."""
    number: int
    """Of files, checkpoints or steps in this life."""
    delay: float
    """Seconds that are waited then."""

    @classmethod
    def drawn(cls, draw: random.Random, seconds: float) -> Plan:
        """Return a random one, for a run of so many seconds."""
        kind = draw.choices(("sync", "seen", "step", "time"), (4, 2, 3, 2))[0]
        victim = None if kind != "sync" and draw.random() < 1 / 6 else draw.randrange(2)
        delay = {"seen": 0.01, "step": 0.1, "time": seconds}.get(kind, 0.0)
        most = {"sync": 3 if victim else 12, "seen": 2, "step": 5}.get(kind, 1)
        return cls(kind, victim, draw.randint(1, most), draw.uniform(0, delay))

    def __str__(self) -> str:
        """In words."""
        who = "the launcher" if self.victim is None else f"rank {self.victim}"
        when = {
            "sync": f"before file {self.number} is on the disk",
            "seen": f"{self.delay * 1000:.0f} ms into checkpoint {self.number}",
            "step": f"{self.delay * 1000:.0f} ms after step {self.number}",
            "time": f"{self.delay:.1f} s after the start",
        }
        return f"{who} {when[self.kind]}"


@dataclass
class Job:
    """``ftkit train RECIPE --gpus 2`` while it runs."""

    recipe: Path
    run: Path
    arguments: tuple[str, ...] = ()
    plan: Plan | None = None
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        """Start it."""
        self.log, self._moment = self.run.with_suffix(".log"), self.run.with_suffix(".moment")
        own = {MARK: self.mark, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        own["FTKIT_CACHE"] = str(self.recipe.parent / "cache")
        if self.plan is not None and self.plan.kind == "sync":
            own |= {"KILL_RANK": str(self.plan.victim), "KILL_SYNC": str(self.plan.number)}
            own["KILL_MOMENT"] = str(self._moment)
            (site := self.recipe.parent / "site").mkdir(exist_ok=True)
            (site / "sitecustomize.py").write_text(DIES)
            own["PYTHONPATH"] = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "ftkit", "train", str(self.recipe), "--gpus", "2"]
        self.steps = steps_of(self.run)
        self.began = time.monotonic()
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                [*command, f"run={self.run}", *self.arguments],
                env={**os.environ, **own},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    @property
    def ended(self) -> bool:
        """Whether the launcher has."""
        return self.process.poll() is not None

    def kill(self) -> float | None:
        """Carry out the plan; return when (``time.monotonic``), None if the run came to its end."""
        assert self.plan is not None
        if self.plan.kind == "sync":
            return float(self._moment.read_text()) if self.process.wait() else None
        victim = self._victim()
        seen = set[str]()
        while not self.ended and not self._is_time(seen):
            time.sleep(LOOK)
        if self.plan.kind != "time":
            time.sleep(self.plan.delay)
        if victim is None or self.ended:
            return None
        os.kill(victim, signal.SIGKILL)
        return time.monotonic()

    def end(self, killed: float) -> float:
        """Wait for its end, and look at it; return how many seconds after the kill it came.

        Raises:
            WrongError: if it comes too late, says that all is well, or leaves a process behind.
        """
        assert self.plan is not None
        try:
            status = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            raise WrongError(f"it did not end within {LIMIT:g} s") from None
        while left := self._processes():
            if time.monotonic() - killed > LIMIT:
                raise WrongError(f"processes are left: {left}")
            time.sleep(0.01)
        seconds = time.monotonic() - killed
        said = f"rank {self.plan.victim} was killed by SIGKILL"
        if status == 0 or (self.plan.victim is not None and said not in self.log.read_text()):
            raise WrongError(f"status {status}, and it said:\n{self.log.read_text()}")
        return seconds

    def _is_time(self, seen: set[str]) -> bool:
        """Whether the moment has come.

        Args:
            seen: folders of checkpoints that were being written; added to.
        """
        assert self.plan is not None
        if self.plan.kind == "time":
            return time.monotonic() - self.began > self.plan.delay
        if self.plan.kind == "step":
            return steps_of(self.run) - self.steps >= self.plan.number
        seen |= (now := folders(self.run, ".tmp-*"))
        return bool(now) and len(seen) >= self.plan.number

    def _victim(self) -> int | None:
        """Return the process that is to be killed, as soon as there is one."""
        assert self.plan is not None
        if self.plan.victim is None:
            return self.process.pid
        while not self.ended:
            for pid, rank in self._processes().items():
                if rank == str(self.plan.victim):
                    return pid
            time.sleep(LOOK)
        return None

    def _processes(self) -> dict[int, str]:
        """Return the processes of this run that live: of a rank its number, of others nothing."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                told = (path / "environ").read_bytes().split(b"\0")
                command = (path / "cmdline").read_bytes()
            except OSError:
                continue
            if f"{MARK}={self.mark}".encode() in told:
                is_rank = b"\0-m\0ftkit\0" in command  # what judges answers has its variables
                ranks = [each[5:].decode() for each in told if each.startswith(b"RANK=")]
                found[int(path.name)] = ranks[0] if ranks and is_rank else ""
        return found
