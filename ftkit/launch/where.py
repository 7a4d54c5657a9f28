"""Which node of a run this process starts the ranks of: of the command, the launcher, or Slurm."""

from __future__ import annotations

import os
import random
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from ftkit.core.errors import user_error

NODE, NODES, MASTER = "FTKIT_NODE", "FTKIT_NODES", "FTKIT_MASTER"
"""Variables of the environment by which a launcher tells each node who it is: its number, how many
there are, and address:port of rank 0."""

PORTS = range(20000, 40000)
"""Among which a port is chosen."""


@dataclass(frozen=True)
class Where:
    """A node among those of a run."""

    node: int
    nodes: int
    address: str
    """Of the machine of rank 0."""
    port: int
    """On which rank 0 listens; 0 = any that is free."""


ALONE = Where(0, 1, "127.0.0.1", 0)


def where(nodes: int, port: int | None, environment: Mapping[str, str] = os.environ) -> Where:
    """Return which node this is.

    Args:
        nodes: ``--nodes``.
        port: ``--port``; None = chosen.
        environment: of this process.

    Raises:
        UserError: if there are to be several and nobody has said which one this is.

    >>> where(1, None, {"FTKIT_NODE": "1", "FTKIT_NODES": "2", "FTKIT_MASTER": "n0:29500"})
    Where(node=1, nodes=2, address='n0', port=29500)
    """
    if NODE in environment:
        address, _, given = environment[MASTER].rpartition(":")
        return Where(int(environment[NODE]), int(environment[NODES]), address, int(given))
    steps = environment.get("SLURM_STEP_NUM_NODES", environment.get("SLURM_NNODES", "1"))
    if "SLURM_NODEID" in environment and int(steps) > 1:
        return _of_slurm(int(steps), nodes, port, environment)
    if nodes > 1:
        raise user_error(
            f"--nodes {nodes}",
            "nothing says which machines these are",
            "write --hostfile FILE, or --slurm, or start it by srun within a Slurm job",
        )
    return Where(0, 1, "127.0.0.1", port or 0)


def choose_port() -> int:
    """Return a port that is likely to be free on any machine."""
    return random.SystemRandom().choice(PORTS)


def _of_slurm(found: int, nodes: int, port: int | None, environment: Mapping[str, str]) -> Where:
    if nodes not in {1, found}:
        raise user_error(
            f"--nodes {nodes}",
            f"this step of Slurm's has {found} nodes",
            f"write --nodes {found}, or ask srun for {nodes}",
        )
    job = int(environment.get("SLURM_JOB_ID", "0"))
    chosen = port or PORTS.start + job % len(PORTS)
    return Where(int(environment["SLURM_NODEID"]), found, _first_host(environment), chosen)


def _first_host(environment: Mapping[str, str]) -> str:
    """Return the address of the step's first node, where rank 0 is."""
    listed = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_JOB_NODELIST", ""))
    try:
        told = subprocess.run(
            ["scontrol", "show", "hostnames", listed],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.split()
        return socket.gethostbyname(told[0])
    except (OSError, subprocess.SubprocessError, IndexError):
        # a name that no resolver knows: the batch script, and so srun, runs on the first node
        return environment.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")
