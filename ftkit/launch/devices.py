"""How many ranks a machine has room for."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ftkit.core.errors import user_error

DRIVER = Path("/proc/driver/nvidia/gpus")
"""Where NVIDIA's driver has a folder for each GPU."""


def gpus(environment: Mapping[str, str] = os.environ) -> int:
    """Return how many GPUs may be used here: of CUDA_VISIBLE_DEVICES, or all.

    >>> gpus({"CUDA_VISIBLE_DEVICES": ""})
    0
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in {"", "-1"}:
        return 0
    found = _listed(environment)
    if visible is None or not found:
        return found
    count = 0
    for each in visible.split(","):
        name = each.strip()
        if not name or (_is_number(name) and not 0 <= int(name) < found):
            break  # as CUDA does: what follows one that is not there does not count
        count += 1
    return count


def ranks_here(wanted: int | None, environment: Mapping[str, str] = os.environ) -> int:
    """Return how many ranks to start on this machine.

    Args:
        wanted: ``--gpus``; None = one for each GPU, or one where there is none.
        environment: of this process.

    Raises:
        UserError: if there are fewer GPUs than asked for.  Without any, ranks are on the CPU.
    """
    found = gpus(environment)
    if wanted is None:
        return max(found, 1)
    if found and wanted > found:
        raise user_error(f"--gpus {wanted}", too_few(found), remedy_for(found))
    return wanted


def too_few(found: int) -> str:
    """Say how many GPUs there are, and who says so."""
    some = "1 GPU" if found == 1 else f"{found} GPUs"
    return f"there {'is' if found == 1 else 'are'} {some} (nvidia-smi -L, CUDA_VISIBLE_DEVICES)"


def remedy_for(found: int) -> str:
    """Say what to do where there are fewer GPUs than asked for."""
    return f"write --gpus {found}, and more --nodes where that is too few"


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0))


def _is_number(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


def _listed(environment: Mapping[str, str]) -> int:
    """Return how many GPUs nvidia-smi lists, or where there is no word from it, the driver."""
    program = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if program is None:
        return _of_driver()
    try:
        told = subprocess.run(
            [program, "-L"], capture_output=True, text=True, timeout=30, check=True
        ).stdout
    except (subprocess.SubprocessError, OSError):
        return _of_driver()
    return sum(line.startswith("GPU ") for line in told.splitlines())


def _of_driver() -> int:
    return len(list(DRIVER.iterdir())) if DRIVER.is_dir() else 0
