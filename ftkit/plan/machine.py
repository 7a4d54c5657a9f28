"""The memory that there is for each process of a run."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ftkit.core.errors import user_error

GIB = 2**30

Kind = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Machine:
    """Where a run shall go."""

    kind: Kind
    processes: int
    memory: int
    """Bytes for one process: of its GPU; without GPUs its share of the host's."""
    host: int | None
    """Bytes of the host for one process; None = the machine is another one."""
    source: str
    """Where that is known from, in words."""


def machine_of(gpus: int | None, memory: float | None) -> Machine:
    """Return the machine that is meant.

    Args:
        gpus: processes, one a GPU; None = as many as there are GPUs here, and 1 without any.
        memory: GiB of each GPU; None = what there is here.

    Raises:
        UserError: if the memory is no positive number.
    """
    if memory is not None:
        if not 0 < memory < float("inf"):
            raise user_error("--memory", f"{memory:g} GiB", "write a number above 0, such as 80")
        size = round(memory * GIB)
        return Machine("cuda", gpus or 1, size, None, f"--memory {memory:g}")
    found = gpus_here()
    if found:
        count = gpus or len(found)
        size = min(found[:count])
        return Machine("cuda", count, size, host_memory() // count, "nvidia-smi")
    count = gpus or 1
    share = host_memory() // count
    return Machine("cpu", count, share, share, "the host's free memory, and there is no GPU here")


def gpus_here() -> list[int]:
    """Return the bytes of each GPU that nvidia-smi shows; none without it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30)
    except (subprocess.SubprocessError, OSError):
        return []
    return [int(line) * 2**20 for line in done.stdout.split() if line.isdecimal()]


def host_memory() -> int:
    """Return the bytes of the host that are free, within the limit of this process's group."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line)
    except (OSError, StopIteration, ValueError):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / f"memory.{of}").read_text()) for of in ("max", "current"))
    except (OSError, ValueError):  # no group, or one without a limit
        return free
    return min(free, max(limit - used, 0))
