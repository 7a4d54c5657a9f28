"""What a machine's launcher is told by the one that started it: variables, then signals.

Both come by standard input, a line each: nothing of them, such as a token, can be read in the list
of processes.  Its end means that nobody is there any more.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterable, Mapping

from ftkit.launch.rank import Prefixed
from ftkit.launch.where import MASTER, NODE, NODES

CONTROL = "FTKIT_CONTROL"
"""Variable of the environment: set where standard input brings the above."""
SENT = "FTKIT_SENT"
"""Variable of the environment: names of further variables that other machines are given."""
FOR_PYTHON = ("PATH", "LD_LIBRARY_PATH", "PYTHON")
"""How the names of variables begin that must be there when Python starts."""
FOR_RANKS = (
    *("FTKIT_", "CUDA_", "DS_", "GLOO_", "HF_", "MKL_", "NCCL_", "OMP_", "PYTORCH_"),
    *("TOKENIZERS_", "TORCH", "TRITON_", "UCX_", "VLLM_"),
)
"""How the names of others begin that every machine is given."""
OWN = (CONTROL, NODE, NODES, MASTER, "CUDA_VISIBLE_DEVICES", "PYTHONSTARTUP")
"""Variables that are each machine's own affair."""


def for_python(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that the command line of another machine has."""
    return {name: environment[name] for name in _beginning(FOR_PYTHON, environment)}


def line_of(names: Iterable[str] = (), environment: Mapping[str, str] = os.environ) -> bytes:
    r"""Return the first line for standard input.

    Args:
        names: of variables that it is to have besides.
        environment: of this process.

    >>> line_of(["KEY"], {"HF_TOKEN": "secret", "KEY": "too", "HOME": "its own"})
    b'{"HF_TOKEN": "secret", "KEY": "too"}\n'
    """
    listed = environment.get(SENT, "").replace(",", " ").split()
    wanted = {*_beginning(FOR_RANKS, environment), *names, *listed}
    sent = {name: environment[name] for name in sorted(wanted) if name in environment}
    return json.dumps(sent).encode() + b"\n"


def hear() -> None:
    """Take the variables, and put the machine's name before what is said from now on."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):  # what follows is for another
        line += byte
    os.environ |= json.loads(line) if line.strip() else {}
    if os.environ.get(NODE) != "0":
        sys.stderr = Prefixed(sys.stderr, f"[{socket.gethostname()}] ")


def _beginning(how: tuple[str, ...], environment: Mapping[str, str]) -> list[str]:
    return [name for name in sorted(environment) if name.startswith(how) and name not in OWN]
