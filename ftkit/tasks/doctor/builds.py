"""What compiles extensions, and what stops it from doing so."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ftkit.tasks.doctor.finding import Finding

OLD = 300.0
"""Seconds after which a lock is taken for one that a killed build has left."""
COMPILERS = ("c++", "g++", "clang++")


def compilers() -> Iterator[Finding]:
    """Tell what DeepSpeed's extensions are compiled with."""
    chosen = os.environ.get("CXX")
    names = (chosen,) if chosen else COMPILERS
    compiler = next((path for name in names if (path := shutil.which(name))), None)
    if compiler is None:
        remedy = (
            "apt-get install g++, or load the module that has it: DeepSpeed compiles extensions"
        )
        yield Finding("note", "C++ compiler", f"none ({', '.join(names)})", remedy)
    else:
        yield Finding("ok", "C++ compiler", compiler)
    ninja = shutil.which("ninja")
    beside = Path(sys.executable).with_name("ninja")
    if ninja:
        yield Finding("ok", "ninja", ninja)
    elif beside.is_file():
        remedy = f"put its folder on PATH: export PATH={shlex.quote(str(beside.parent))}:$PATH"
        yield Finding("note", "ninja", f"{beside}, which is not on PATH", remedy)
    else:
        yield Finding("note", "ninja", "none", "pip install ninja: extensions are built with it")
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which("nvcc") or (shutil.which(f"{home}/bin/nvcc") if home else None)
    yield Finding("ok", "nvcc", nvcc or "none; only extensions for GPUs need it")


def extensions() -> Path:
    """Return the folder of torch's extensions."""
    named = os.environ.get("TORCH_EXTENSIONS_DIR")
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(named) if named else Path(cache) / "torch_extensions").expanduser()


def locks(now: float | None = None) -> Iterator[Finding]:
    """Tell locks of builds that ended without removing them: later ones wait for them for ever.

    Args:
        now: seconds since 1970; None = now.
    """
    folder = extensions()
    found = [path for depth in ("*/lock", "*/*/lock") for path in sorted(folder.glob(depth))]
    if not found:
        yield Finding("ok", "extension locks", f"none in {folder}")
    for path in found:
        try:
            age = (time.time() if now is None else now) - path.stat().st_mtime
        except FileNotFoundError:  # its build has ended this moment
            continue
        if age < OLD:
            remedy = "wait for the build that holds it; look again in some minutes"
            yield Finding("note", "extension lock", f"{path}, {age:.0f} s old", remedy)
            continue
        remedy = f"if no build is running any more: rm {shlex.quote(str(path))}"
        what = f"{path} is {_age(age)} old: every build of this extension waits for it for ever"
        yield Finding("problem", "extension lock", what, remedy)


def _age(seconds: float) -> str:
    """Return an age in words.

    >>> _age(600), _age(7200), _age(200000)
    ('10 minutes', '2 hours', '2 days')
    """
    for unit, length in (("days", 86400.0), ("hours", 3600.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"
