"""Which node of a run this process starts the ranks of: of the command, the launcher, or Slurm."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from ftkit.core.errors import Fault, UserError, user_error

NODE, NODES, MASTER = "FTKIT_NODE", "FTKIT_NODES", "FTKIT_MASTER"
"""Variables of the environment by which each node is told who it is: its number, how many there
are, and address:port of rank 0.  ``ftkit train --hostfile`` sets them, or a person."""

PORTS = range(20000, 32000)
"""Among which a port is chosen: below those that Linux gives to connections (32768 on)."""


@dataclass(frozen=True)
class Where:
    """A node among those of a run."""

    node: int
    nodes: int
    address: str
    """Of the machine of rank 0."""
    port: int
    """On which rank 0 listens; 0 = any that is free."""


def where(
    nodes: int | None, port: int | None, environment: Mapping[str, str] = os.environ
) -> Where:
    """Return which node this is.

    Args:
        nodes: ``--nodes``; None = not said.
        port: ``--port``; None = chosen.
        environment: of this process.

    Raises:
        UserError: if there are to be several and nobody has said which one this is; or what was
            said makes no sense.

    >>> where(None, None, {"FTKIT_NODE": "1", "FTKIT_NODES": "2", "FTKIT_MASTER": "n0:29500"})
    Where(node=1, nodes=2, address='n0', port=29500)
    """
    if any(name in environment for name in (NODE, NODES, MASTER)):
        return _told(nodes, port, environment)
    if "SLURM_STEP_NUM_NODES" in environment:  # srun says so, and a batch script does not
        return _of_slurm(int(environment["SLURM_STEP_NUM_NODES"]), nodes, port, environment)
    if (nodes or 1) > 1:
        raise user_error(
            f"--nodes {nodes}",
            "nothing says which machines these are",
            "write --hostfile FILE, or --slurm, or start it by srun within a Slurm job",
        )
    return Where(0, 1, "127.0.0.1", port or 0)


def _told(nodes: int | None, port: int | None, environment: Mapping[str, str]) -> Where:
    """Read what a launcher or a person has said of this node."""
    node, count = environment.get(NODE, ""), environment.get(NODES, "")
    address, _, meet = environment.get(MASTER, "").rpartition(":")
    faults = []
    if not count.isdecimal() or int(count) < 1:
        faults.append(Fault(NODES, f"{count!r} is no number of nodes", f"set {NODES}=2 for two"))
    elif not node.isdecimal() or int(node) >= int(count):
        remedy = f"set it from 0 to {int(count) - 1}, another on each node"
        faults.append(Fault(NODE, f"{node!r} is none of {count} nodes", remedy))
    if not address or not meet.isdecimal() or not 0 < int(meet) < 65536:  # noqa: PLR2004 (2^16)
        found = f"{environment.get(MASTER, '')!r} is no address and port"
        remedy = f"set {MASTER}=ADDRESS:PORT of the first node, the same on each, such as n0:29500"
        faults.append(Fault(MASTER, found, remedy))
    if not faults and nodes not in {None, int(count)}:
        remedy = f"write --nodes {count}, or leave it out"
        faults.append(Fault(f"--nodes {nodes}", f"{NODES} says {count}", remedy))
    if not faults and port not in {None, int(meet)}:
        faults.append(Fault(f"--port {port}", f"{MASTER} says {meet}", "leave it out"))
    if faults:
        raise UserError(faults)
    return Where(int(node), int(count), address.strip("[]"), int(meet))


def _of_slurm(
    found: int, nodes: int | None, port: int | None, environment: Mapping[str, str]
) -> Where:
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", found))
    if tasks > found:
        raise user_error(
            "srun",
            f"it has started {tasks} tasks on {found} node{'s' * (found > 1)}, and ftkit itself "
            "starts a process a GPU",
            "write srun --ntasks-per-node=1",
        )
    if nodes not in {None, found}:
        raise user_error(
            f"--nodes {nodes}",
            f"this step of Slurm's has {found} node{'s' * (found > 1)}",
            f"write --nodes {found}, or ask srun for {nodes}",
        )
    if found == 1:
        return Where(0, 1, "127.0.0.1", port or 0)
    job, step = (int(environment.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    chosen = port or PORTS[(job + 997 * step) % len(PORTS)]
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
