"""A real Slurm of two nodes on this machine, and runs for it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from ftkit.launch.slurm import Job, script
from tests.end_to_end.conftest import files, recipe  # noqa: F401 (fixtures)

ROOT = Path(__file__).parents[2]
TESTBED = ROOT / "scripts" / "slurm_testbed.sh"
COMMAND = (sys.executable, "-m", "ftkit")


@dataclass(frozen=True)
class Cluster:
    """Slurm's commands, which find it by ``environment``."""

    environment: dict[str, str]

    def __call__(self, *command: str | Path) -> str:
        done = subprocess.run(
            [str(word) for word in command],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def send(self, *arguments: str | Path) -> str:
        return self("sbatch", "--parsable", *arguments).strip()

    def of(self, job: str) -> dict[str, str]:
        """What Slurm knows of a job."""
        said = self("scontrol", "--oneliner", "show", "job", job)
        return dict(re.findall(r"(?:^| )([\w/]+)=(\S*)", said))

    def wait(self, job: str, seconds: float = 60, **values: str) -> dict[str, str]:
        """Wait until a job has these values: JobState, Restarts and so on."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.of(job)
            if all(found[key] == value for key, value in values.items()):
                return found
            log = Path(found["StdOut"])
            told = log.read_text() if log.is_file() else ""
            assert time.monotonic() < deadline, f"{values} of {found}\n{told}"
            time.sleep(0.2)


def free_ports() -> int:
    """Return the first of three ports in a row that nobody listens on."""
    for first in range(20000 + os.getpid() % 1000 * 10, 32000, 3):
        with socket.socket() as a, socket.socket() as b, socket.socket() as c:
            try:
                for i, probe in enumerate((a, b, c)):
                    probe.bind(("127.0.0.1", first + i))
            except OSError:
                continue
            return first
    raise AssertionError


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    how = {"PORT": str(free_ports()), "GRACE": "60", "NOTICE": "1"}
    start = [TESTBED, "start", folder]
    started = subprocess.run(
        start, env={**os.environ, **how}, stderr=subprocess.PIPE, text=True, check=False
    )
    if started.returncode != 0:
        pytest.fail(started.stderr, pytrace=False)
    try:
        yield Cluster({**os.environ, "SLURM_CONF": str(folder / "slurm.conf")})
    finally:
        subprocess.run([TESTBED, "stop", folder], check=True)


@dataclass(frozen=True)
class Run:
    """A run and its job's script, in a folder whose name has spaces."""

    job: Job
    steps: int

    @property
    def folder(self) -> Path:
        return self.job.folder / self.job.run

    @property
    def path(self) -> Path:
        return self.job.folder / self.job.script

    def log(self, number: str) -> str:
        return Path(str(self.job.folder / self.job.log).replace("%j", number)).read_text()


@pytest.fixture
def made(recipe, tmp_path):  # noqa: F811
    """Return a function that writes a recipe and its script."""

    def make(steps: int, *options: str) -> Run:
        folder = tmp_path / "a b"
        folder.mkdir()
        rows = folder / "train.jsonl"
        rows.write_text(
            "".join(f'{{"prompt": "{n}+1=", "completion": "{n + 1}"}}\n' for n in range(20))
        )
        sections = {
            "run": "a run",
            "data": {"train": "train.jsonl"},
            "checkpoint": {"every": 10**6},
        }
        path = recipe("r", **sections, train={"steps": steps}, eval={"every": 10**6})
        job = Job(
            recipe=str(path),
            overrides=(),
            run=Path("a run"),
            folder=folder,
            nodes=2,
            processes=1,
            cpus=1,
            command=COMMAND,
            options=options,
        )
        made = Run(job, steps)
        made.path.write_text(script(job))
        return made

    return make
