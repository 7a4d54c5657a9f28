"""Disks, shared memory and limits of the process."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ftkit.tasks.doctor.finding import Finding, size

LITTLE = 5 * 2**30
"""Free bytes of a disk below which it is told."""
FILES = 4096
"""Open files that a run with many ranks and rows needs, at least."""
SHARED = 2**30
"""Bytes of /dev/shm that several ranks need, at least; containers have 64 MiB by default."""


def existing(path: Path) -> Path:
    """Return a path, or the nearest folder above it that is there."""
    path = path.expanduser().absolute()
    while not path.exists():
        path = path.parent
    return path


def places(run: str | None = None) -> dict[str, Path]:
    """Return the folders in which runs write, by what they are for."""
    from huggingface_hub import constants

    return {
        "working directory": Path.cwd(),
        **({"run": Path(run)} if run else {}),
        "rows (FTKIT_CACHE)": Path(os.environ.get("FTKIT_CACHE") or "~/.cache/ftkit"),
        "hub (HF_HOME)": Path(constants.HF_HUB_CACHE),
        "scratch (TMPDIR)": Path(tempfile.gettempdir()),
    }


def disks(where: Mapping[str, Path]) -> Iterator[Finding]:
    """Tell the free space of each disk, once, and what lies on it.

    Args:
        where: folders, made or not, by what they are for.
    """
    groups: dict[int, list[str]] = {}
    for what, path in where.items():
        groups.setdefault(existing(path).stat().st_dev, []).append(what)
    for names in groups.values():
        path = existing(where[names[0]])
        usage = shutil.disk_usage(path)
        found = f"{size(usage.free)} of {size(usage.total)} free: {', '.join(names)}"
        if usage.free < LITTLE:
            remedy = "free some, or let the folders lie on another disk"
            yield Finding("note", f"disk of {path}", found, remedy)
        else:
            yield Finding("ok", f"disk of {path}", found)
        if not os.access(path, os.W_OK):
            yield Finding(
                "problem",
                f"disk of {path}",
                "nothing can be written there",
                "chmod, or another folder",
            )


def shared_memory(folder: Path, ranks: int) -> Finding:
    """Tell the size of shared memory, by which ranks of one node talk.

    Args:
        folder: where it is, as /dev/shm.
        ranks: how many GPUs there are.
    """
    if not folder.is_dir():
        remedy = "mount it: without it, several ranks on a node cannot talk"
        return Finding("note", "shared memory", f"there is no {folder}", remedy)
    usage = shutil.disk_usage(folder)
    found = f"{size(usage.total)}, {size(usage.free)} of it free"
    if usage.free >= SHARED:
        return Finding("ok", "shared memory", found)
    remedy = "start the container with --shm-size=16g or --ipc=host"
    return Finding("problem" if ranks > 1 else "note", "shared memory", found, remedy)


def limits(root: Path = Path("/")) -> Iterator[Finding]:
    """Tell how many files may be open and, for InfiniBand, how much memory be locked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{_count(soft)}, up to {_count(hard)} on demand"
    if 0 <= soft < FILES:
        yield Finding("note", "open files", found, f"ulimit -n {_more(hard)} before a run")
    else:
        yield Finding("ok", "open files", found)
    if not (root / "sys/class/infiniband").is_dir():
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft != resource.RLIM_INFINITY:
        remedy = "ulimit -l unlimited: InfiniBand locks the memory that it sends"
        yield Finding("note", "locked memory", size(soft), remedy)
    else:
        yield Finding("ok", "locked memory", "no limit")


def _count(limit: int) -> str:
    return "no limit" if limit == resource.RLIM_INFINITY else f"{limit:,}"


def _more(hard: int) -> int:
    return 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
