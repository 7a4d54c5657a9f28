"""What runs in a verifier's process: it reads answers from a socket and returns verdicts.

It is started by ``pool`` as a new interpreter: nothing of the training process is in it, and
neither torch nor pydantic.  Verdicts go through the socket, each with the number that only its
request told; what a verifier prints goes nowhere.
"""

from __future__ import annotations

import importlib
import json
import resource
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

from ftkit.verifiers.base import Item, ItemVerifier, SetupError, Verdict
from ftkit.verifiers.shield import serve_the_parent_alone

MODULES = ("math", "proof", "python", "http", "format")
"""Of this package, those whose ``make`` returns a verifier that runs here."""

GRACE = 5.0
"""Seconds beyond the limit after which the process ends itself, should nobody kill it."""

DETAIL = 300
"""Letters of a reason that are kept."""


def main(descriptor: int) -> None:
    """Serve until the socket is closed at the other end.

    Args:
        descriptor: of the socket.  Its first line says ``name``, the verifier; ``values``, what its
            ``make`` takes; ``memory_mb``; and ``timeout``, in seconds.
    """
    serve_the_parent_alone()
    connection = socket.socket(fileno=descriptor)
    lines = connection.makefile("rb")
    setup = json.loads(lines.readline())
    limit(resource.RLIMIT_AS, setup["memory_mb"] * 2**20)
    limit(resource.RLIMIT_CORE, 0)
    try:
        assert setup["name"] in MODULES
        module = importlib.import_module(f"ftkit.verifiers.{setup['name']}")
        verifier: ItemVerifier = module.make(**setup["values"])
    except SetupError as error:
        _send(connection, {"fault": str(error)})
        return
    except BaseException as error:
        _send(connection, {"fault": _said(error, setup["memory_mb"])})
        return
    _send(connection, {"ready": True})
    for line in lines:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, setup["timeout"] + GRACE)
        verdict = _verdict(verifier, Item(**request["item"]), setup["memory_mb"])
        signal.setitimer(signal.ITIMER_REAL, 0)
        told = {"status": verdict.status, "reward": verdict.reward, "detail": verdict.detail}
        spent = bool(getattr(verifier, "spent", False))
        _send(connection, {"number": request["number"], "last": spent, **told})


def limit(kind: int, value: int) -> None:
    """Set a limit of this process, as far as the one above it allows."""
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _verdict(verifier: ItemVerifier, item: Item, memory_mb: int) -> Verdict:
    try:
        return verifier(item)
    except BaseException as error:  # SystemExit too
        return Verdict("error", None, _said(error, memory_mb))


def _said(error: BaseException, memory_mb: int) -> str:
    if isinstance(error, MemoryError):
        return f"it needs more than {memory_mb} MiB of memory (memory_mb)"
    try:
        return f"{type(error).__name__}: {error}"[:DETAIL]
    except Exception:
        return type(error).__name__


def _send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
