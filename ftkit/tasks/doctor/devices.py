"""GPUs, CPUs and memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.tasks.doctor.finding import LATER, BrokenError, Finding, Later, said, size

SMI = "nvidia-smi"
IN_TORCH = "GPUs in torch"
QUERY = ("index", "name", "memory.total", "memory.used", "compute_cap", "driver_version")
BFLOAT16 = 8.0
"""The compute capability from which on GPUs compute in bfloat16."""
BUSY = 0.05
"""The share of a GPU's memory from which on it is told that somebody uses it."""
SHORT = 0.1
"""The share of the host's memory below which it is told that little is free."""


@dataclass(frozen=True, slots=True)
class GPU:
    """A GPU as nvidia-smi tells it."""

    index: str
    name: str
    total: float
    """Bytes."""
    used: float
    capability: float | None
    driver: str

    @property
    def bfloat16(self) -> bool | None:
        """Whether it computes in bfloat16; None where that is not known."""
        return None if self.capability is None else self.capability >= BFLOAT16


def listed() -> list[GPU]:
    """Return the GPUs that nvidia-smi lists; none where there is no such program.

    Raises:
        BrokenError: if it fails.
    """
    if shutil.which(SMI) is None:
        return []
    text = said([SMI, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"])
    return [_gpu(line) for line in text.splitlines() if line.count(",") == len(QUERY) - 1]


def _gpu(line: str) -> GPU:
    index, name, total, used, capability, driver = (part.strip() for part in line.split(","))
    return GPU(
        index,
        name,
        _number(total) * 2**20,
        _number(used) * 2**20,
        _number(capability) or None,
        driver,
    )


def _number(text: str) -> float:
    """Return a number; 0 for what nvidia-smi has no number for, such as [N/A]."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def gpus(torch: Later[dict[str, Any]]) -> Iterator[Finding]:
    """Tell the GPUs, and whether torch can use them.

    Args:
        torch: what it says of itself (``inside.torch_itself``).
    """
    try:
        there = listed()
    except BrokenError as error:
        remedy = "look at the driver: dmesg, nvidia-smi; in a container, at how it is started"
        yield Finding("problem", SMI, str(error), remedy)
        return
    if there:
        yield Finding("ok", "driver", there[0].driver)
    for gpu in there:
        yield _told(gpu)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = visible is not None and not visible.strip()
    if there and hidden:
        found = "empty: no GPU is seen"
        yield Finding("note", "CUDA_VISIBLE_DEVICES", found, "unset it to use the GPUs")
    elif there and visible:
        yield Finding("ok", "CUDA_VISIBLE_DEVICES", visible)
    try:
        told = torch.wait(LATER)
    except Exception:  # told among the versions
        return
    yield from _of_torch(there, told, hidden=hidden)


def _told(gpu: GPU) -> Finding:
    """Return what there is to say of a GPU."""
    parts = [gpu.name, size(gpu.total)]
    if gpu.capability is not None:
        parts.append(f"compute capability {gpu.capability}")
        parts.append("bfloat16" if gpu.bfloat16 else "no bfloat16")
    if gpu.used > BUSY * gpu.total:
        parts.append(f"{size(gpu.used)} in use")
        remedy = "see who uses it: nvidia-smi"
        return Finding("note", f"GPU {gpu.index}", ", ".join(parts), remedy)
    return Finding("ok", f"GPU {gpu.index}", ", ".join(parts))


def _of_torch(there: list[GPU], told: dict[str, Any], *, hidden: bool) -> Iterator[Finding]:
    """Say what of the GPUs torch can use."""
    usable = told["gpus"]
    if there and not usable and not hidden:
        if told["cuda"] is None and told["hip"] is None:
            remedy = "install a build with CUDA: see pytorch.org for your driver"
            yield Finding("problem", IN_TORCH, "its build knows no GPUs", remedy)
        else:
            why = told["warnings"][0] if told["warnings"] else "it does not say why"
            remedy = "take a build for an older CUDA, or a newer driver"
            yield Finding("problem", IN_TORCH, f"cannot use the GPUs: {why}", remedy)
    if not there:
        for index, gpu in enumerate(usable):  # of another maker, or without nvidia-smi
            yield Finding("ok", f"GPU {index}", f"{gpu['name']}, {size(gpu['memory'])}")
        if not usable:
            yield Finding("ok", "GPUs", "none: models run on the CPU")


def cpus(torch: Later[dict[str, Any]], root: Path = Path("/")) -> Iterator[Finding]:
    """Tell CPUs and threads.

    Args:
        torch: what it says of itself (``inside.torch_itself``).
        root: of the file system that tells limits.
    """
    count, mine = os.cpu_count() or 1, len(os.sched_getaffinity(0))
    parts = [f"{mine}" if mine == count else f"{mine} of {count} may be used"]
    quotas = [int(q) / int(period) for q, period in _limits(root, "cpu.max") if q.isdecimal()]
    parts += [f"a quota of {min(quotas):g}"] if quotas else []
    threads = os.environ.get("OMP_NUM_THREADS")
    parts += [f"OMP_NUM_THREADS={threads}"] if threads else []
    try:
        parts.append(f"threads of torch: {torch.wait(LATER)['threads']}")
    except Exception:  # told among the versions
        parts.append("threads of torch: not known")
    yield Finding("ok", "CPUs", ", ".join(parts))


def memory(root: Path = Path("/")) -> Iterator[Finding]:
    """Tell the host's memory, and what of it this container or job may have."""
    words = [line.split() for line in (root / "proc/meminfo").read_text().splitlines()]
    known = {line[0].rstrip(":"): float(line[1]) * 1024 for line in words if len(line) > 1}
    total, free = known["MemTotal"], known["MemAvailable"]
    found = f"{size(total)}, {size(free)} of it free"
    limits = [int(limit) for (limit,) in _limits(root, "memory.max") if limit.isdecimal()]
    if limits and min(limits) < total:
        found += f"; a limit of {size(min(limits))} for this container or job"
    if free < SHORT * total:
        yield Finding("note", "memory", found, "see who uses it: top -o %MEM")
    else:
        yield Finding("ok", "memory", found)


def _limits(root: Path, name: str) -> Iterator[list[str]]:
    """Yield the words of a limit of this process' control group and of all that hold it."""
    base = root / "sys/fs/cgroup"
    lines = _text(root / "proc/self/cgroup").splitlines()
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    for group in (base / own, *(base / own).parents):
        if words := _text(group / name).split():
            yield words
        if group == base:
            return


def _text(file: Path) -> str:
    """Return what a file says; nothing where there is no such file."""
    try:
        return file.read_text()
    except OSError:
        return ""
