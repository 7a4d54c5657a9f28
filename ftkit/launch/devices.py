"""How many ranks a machine has room for."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

from ftkit.core.errors import user_error


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
    return len([each for each in visible.split(",") if each.strip()])


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
        some = "1 GPU" if found == 1 else f"{found} GPUs"
        raise user_error(
            f"--gpus {wanted}",
            f"{some} here (CUDA_VISIBLE_DEVICES and nvidia-smi say so)",
            f"write --gpus {found}, or more --nodes",
        )
    return wanted


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0))


def _listed(environment: Mapping[str, str]) -> int:
    """Return how many GPUs nvidia-smi lists; 0 where there is no such program, or it fails."""
    program = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if program is None:
        return 0
    try:
        told = subprocess.run(
            [program, "-L"], capture_output=True, text=True, timeout=30, check=True
        ).stdout
    except (subprocess.SubprocessError, OSError):
        return 0
    return sum(line.startswith("GPU ") for line in told.splitlines())
