"""``ftkit train``, on one process or on many: which of them this one is, and what it starts."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftkit.core.errors import Fault, UserError, user_error
from ftkit.launch.devices import gpus, ranks_here, remedy_for, too_few
from ftkit.launch.hosts import Host, read_hosts, slots_of
from ftkit.launch.local import PARENT, Node, Ranks, free_port, is_free
from ftkit.launch.machine import Machine, ask
from ftkit.launch.nodes import Nodes
from ftkit.launch.rank import rank_of
from ftkit.launch.told import CONTROL, line_of
from ftkit.launch.where import MASTER, NODE, Where, where

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
        if PARENT not in os.environ:
            _refuse_as_rank(how)
        return _as_rank(loaded, resume=resume, dry_run=dry_run)
    if how.hostfile is not None and NODE not in os.environ:
        return _on_hosts(loaded, how, resume=resume, dry_run=dry_run)
    here = where(how.nodes, how.port)
    count = ranks_here(how.gpus)
    controlled = CONTROL in os.environ
    if count == 1 and here.nodes == 1 and not controlled:
        return _alone(loaded, resume=resume, dry_run=dry_run)
    if dry_run:
        return _tell(loaded, here, count, resume=resume)
    if here.node == 0 and here.port and not is_free("", here.port):
        raise _in_use(here.address, here.port)
    master = (here.address, here.port or free_port())
    node = Node(count, here.node * count, here.nodes * count, master)
    return Ranks(node, _command(), controlled).run()


def _refuse_as_rank(how: Spread) -> None:
    """Refuse to be told to start ranks as one that torchrun or deepspeed has started."""
    given = {"--gpus": how.gpus, "--nodes": how.nodes, "--hostfile": how.hostfile}
    said = [f"{option} {value}" for option, value in given.items() if value is not None]
    if not said:
        return
    found = "this process is one of several already: RANK and WORLD_SIZE are set"
    remedy = "leave it out, or start ftkit by itself, and not by torchrun or deepspeed"
    raise user_error(" ".join(said), found, remedy)


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
    wanted = how.gpus or slots_of(hosts, str(how.hostfile))
    machines = ask(hosts, how.port)
    count = _count(hosts, machines, wanted)
    if not machines[0].port:
        raise _in_use(hosts[0].address, how.port or 0)
    given = [] if how.gpus else ["--gpus", str(count)]
    nodes = Nodes(hosts, machines[0].port, [*_command(), *given], _named(loaded))
    if dry_run:
        return _tell_hosts(loaded, nodes, count, machines[0].gpus, resume=resume)
    return nodes.run()


def _count(hosts: Sequence[Host], machines: Sequence[Machine], wanted: int | None) -> int:
    """Return how many ranks each machine shall have.

    Args:
        hosts: the machines.
        machines: what each says of itself.
        wanted: ``--gpus``, or the slots of the hostfile; None = a rank a GPU.

    Raises:
        UserError: naming each that has fewer GPUs, or, where nothing is said, if they differ.
    """
    found = [machine.gpus for machine in machines]
    least, most = min(found), max(found)
    if wanted is None and least != most:
        told = ", ".join(f"{host.name} {n}" for host, n in zip(hosts, found, strict=True))
        place, remedy = "--hostfile", f"write --gpus {max(least, 1)}"
        raise user_error(place, f"machines have different numbers of GPUs: {told}", remedy)
    count = wanted or max(least, 1)
    few = [(h, n) for h, n in zip(hosts, found, strict=True) if most and n < count]
    if few:
        other = remedy_for(least) if least else "take it out of the hostfile"
        raise UserError(
            Fault(h.name, f"{count} GPUs are asked for, and {too_few(n)}", other) for h, n in few
        )
    return count


def _named(loaded: Loaded) -> list[str]:
    """Return the variables of the environment that a recipe names."""
    from ftkit.recipe import flatten

    tree = flatten(loaded.resolved())
    return [str(value) for key, value in tree.items() if key.endswith("auth_env") and value]


def _in_use(address: str, port: int) -> UserError:
    where_ = MASTER if NODE in os.environ else "--port N"
    return user_error(f"{address}:{port}", "the port is in use", f"give another one: {where_}")


def _tell(loaded: Loaded, here: Where, count: int, *, resume: bool) -> int:
    """Say what would be started, then what it would do."""
    which = f"node {here.node} of {here.nodes}" if here.nodes > 1 else "this machine"
    meet = f"{here.address}:{here.port}" if here.port else f"a free port of {here.address}"
    _say(f"{_ranks(count, gpus())} on {which}; rank 0 at {meet}")
    _say(f"each runs: {shlex.join(_command())}")
    return _alone(loaded, resume=resume, dry_run=True)


def _tell_hosts(loaded: Loaded, nodes: Nodes, count: int, found: int, *, resume: bool) -> int:
    """Say what would be started on each machine, then what it would do."""
    names = ", ".join(json.loads(line_of(nodes.names)))
    _say(f"{_ranks(count, found)} on each of {len(nodes.hosts)} machines")
    _say("\n".join(nodes.lines()))
    if names:
        _say(f"each is also given, by standard input: {names}")
    return _alone(loaded, resume=resume, dry_run=True)


def _ranks(count: int, found: int) -> str:
    """Say how many ranks there would be, and what each has.

    >>> _ranks(1, 0), _ranks(8, 8)
    ('1 rank (CPU)', '8 ranks (a GPU each)')
    """
    return f"{count} rank{'s' * (count > 1)} ({'a GPU each' if found else 'CPU'})"


def _command() -> list[str]:
    """Return this very command, as a list; where it only looks, the one that it looks for."""
    return [sys.executable, "-m", "ftkit", *(word for word in sys.argv[1:] if word != "--dry-run")]


def _say(text: str) -> None:
    from ftkit.tasks.train import say

    say(text)
