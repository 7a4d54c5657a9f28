"""``ftkit train``, on one process or on many: which of them this one is, and what it starts."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftkit.core.errors import user_error
from ftkit.launch.devices import gpus, ranks_here
from ftkit.launch.hosts import read_hosts
from ftkit.launch.local import Node, Ranks, free_port, is_free
from ftkit.launch.nodes import CONTROL, Nodes
from ftkit.launch.rank import rank_of
from ftkit.launch.where import NODE, Where, choose_port, where

if TYPE_CHECKING:
    from ftkit.recipe import Loaded


@dataclass(frozen=True)
class Spread:
    """What the command line says of processes and machines."""

    gpus: int | None = None
    nodes: int | None = None
    hostfile: str | None = None
    port: int | None = None


def spread(loaded: Loaded, how: Spread, *, resume: bool, dry_run: bool) -> int:
    """Train by a recipe: as one rank, in this process alone, or by starting ranks.

    Raises:
        UserError: if what is asked for is not there.
        RunError: if the run failed.
    """
    if rank_of() is not None:
        return _as_rank(loaded, resume=resume, dry_run=dry_run)
    if how.hostfile is not None and NODE not in os.environ:
        return _on_hosts(loaded, how, resume=resume, dry_run=dry_run)
    here = where(how.nodes or 1, how.port)
    count = ranks_here(how.gpus)
    if count == 1 and here.nodes == 1:
        return _alone(loaded, resume=resume, dry_run=dry_run)
    if dry_run:
        return _tell(loaded, here, count, resume=resume)
    if here.node == 0 and here.port and not is_free("", here.port):
        raise user_error(
            f"{here.address}:{here.port}", "the port is in use", "give another one: --port N"
        )
    master = (here.address, here.port or free_port())
    node = Node(count, here.node * count, here.nodes * count, master)
    return Ranks(node, _command(), CONTROL in os.environ).run()


def _as_rank(loaded: Loaded, *, resume: bool, dry_run: bool) -> int:
    from ftkit.parallel.processes import joined
    from ftkit.tasks.train import train

    with joined(loaded.recipe.parallel.timeout) as world:
        return train(loaded, resume=resume, dry_run=dry_run, world=world)


def _alone(loaded: Loaded, *, resume: bool, dry_run: bool) -> int:
    from ftkit.tasks.train import train

    return train(loaded, resume=resume, dry_run=dry_run)


def _on_hosts(loaded: Loaded, how: Spread, *, resume: bool, dry_run: bool) -> int:
    """Start a launcher on each machine of the hostfile."""
    hosts = read_hosts(str(how.hostfile), how.nodes)
    slots = {host.slots for host in hosts} - {None}
    if how.gpus is None and len(slots) > 1:
        told = ", ".join(f"{host.name} {host.slots}" for host in hosts)
        raise user_error(
            f"--hostfile {how.hostfile}",
            f"machines have different numbers of slots: {told}",
            "write the same for each, or --gpus N",
        )
    given = () if how.gpus is not None or not slots else ("--gpus", str(slots.pop()))
    nodes = Nodes(hosts, how.port or choose_port(), [*_command(), *given])
    nodes.check()
    if not dry_run:
        return nodes.run()
    _say("\n".join(nodes.lines()))
    return _alone(loaded, resume=resume, dry_run=True)


def _tell(loaded: Loaded, here: Where, count: int, *, resume: bool) -> int:
    """Say what would be started, then what it would do."""
    kind = "GPUs" if gpus() else "CPU processes"
    which = f"node {here.node} of {here.nodes}" if here.nodes > 1 else "this machine"
    port = here.port or "a free port"
    _say(
        f"ranks: {count} {kind} on {which}, {count * here.nodes} in all; "
        f"rank 0 at {here.address}:{port}\neach runs: {' '.join(_command())}"
    )
    return _alone(loaded, resume=resume, dry_run=True)


def _command() -> list[str]:
    """Return this very command, as a list."""
    return [sys.executable, "-m", "ftkit", *sys.argv[1:]]


def _say(text: str) -> None:
    from ftkit.tasks.train import say

    say(text)
