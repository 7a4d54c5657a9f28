"""Where ranks meet: a store that all share, in which each says who it is when it comes."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is

from ftkit.core.errors import UserError, user_error
from ftkit.launch.rank import ranks
from ftkit.parallel.address import address_towards, interface_towards, is_loopback
from ftkit.parallel.world import shared

COUNT = "met"
"""The key under which the store counts those who have come; ``met/N`` is what each says."""
LOOK = 0.1
"""Seconds between looks at who has come."""
NOTE = 15.0
"""Seconds after which it is said for whom the others wait; then after twice as many, and so on."""


@dataclass(frozen=True, slots=True)
class Guest:
    """What a rank says when it comes."""

    rank: int
    size: int
    """Of how many it has been told."""
    host: str
    address: str
    """Its own, as rank 0's machine sees it; empty where that is not known."""


def open_store(rank: int, size: int, timeout: float) -> Any:
    """Return what all ranks share (torch's ``Store``: keys and values).

    Rank 0 keeps it at MASTER_ADDR and MASTER_PORT, or torchrun does.

    Args:
        rank: of this process.
        size: how many ranks there are.
        timeout: seconds in which it must be there.

    Raises:
        UserError: if the port is taken, or the address cannot be reached.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    ours = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        return TCPStore(
            address,
            port,
            size,
            is_master=ours and rank == 0,
            timeout=timedelta(seconds=timeout),
            wait_for_workers=False,
        )
    except (RuntimeError, ValueError) as error:
        raise not_joined(error) from error


def introduce(store: Any, rank: int, size: int, timeout: float) -> list[Guest]:
    """Say who this is and wait until all ranks have come; return them.

    Args:
        store: that they share.
        rank: of this process.
        size: of how many.
        timeout: seconds in which all must have come.

    Raises:
        UserError: if they have been told different things, or do not come.
    """
    address = ""
    with suppress(OSError):
        address = address_towards(os.environ["MASTER_ADDR"])
    own = Guest(rank, size, socket.gethostname(), address)
    begin, note = time.monotonic(), NOTE
    guests: list[Guest] = []
    try:
        store.set(f"{COUNT}/{store.add(COUNT, 1)}", json.dumps(asdict(own)))
        while True:
            new = range(len(guests) + 1, store.add(COUNT, 0) + 1)
            guests += [Guest(**json.loads(store.get(f"{COUNT}/{number}"))) for number in new]
            _compare(own, guests)
            missing = sorted(set(range(size)) - {guest.rank for guest in guests})
            if not missing:
                return guests
            waited = time.monotonic() - begin
            if waited > timeout:
                raise _not_come(missing, waited)
            if waited > note and rank == min(set(range(size)) - set(missing)):
                sys.stderr.write(f"waiting for {ranks(missing)} of {size}, {waited:.0f} s\n")
                sys.stderr.flush()
                note *= 2
            time.sleep(LOOK)
    except UserError:
        time.sleep(10 * LOOK if rank == 0 else 0)  # with it goes the store, and others look there
        raise
    except (RuntimeError, ValueError) as error:
        raise not_joined(error) from error


def gloo_interface(guests: Sequence[Guest], rank: int) -> str:
    """Return the interface by which the others reach this machine; empty where that is not known.

    It leads to rank 0's machine.  There itself, its name may mean the loopback, as Debian's
    installer has it; then it is the one that leads to another machine.
    """
    own = next(guest for guest in guests if guest.rank == rank)
    others = [g.address for g in guests if g.address and not is_loopback(g.address)]
    if is_loopback(own.address) and others:
        return interface_towards(others[0])
    return interface_towards(os.environ["MASTER_ADDR"])


def not_joined(error: Exception) -> UserError:
    """Return what a user is told where ranks did not find each other."""
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    reason = str(error).strip().splitlines()[0][:200]
    if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
        remedy = "stop what uses it, or give another one: --port, or MASTER_PORT"
        return user_error(where, "the port is in use", remedy)
    remedy = "see that every node reaches this address, and that nothing filters the port"
    return user_error(where, f"the ranks could not join: {reason}", remedy)


def _compare(own: Guest, guests: Sequence[Guest]) -> None:
    """Refuse ranks that do not belong together."""
    there: dict[int, Guest] = {}
    for guest in guests:
        if guest.size != own.size:
            found = f"{guest.host} was told of {guest.size} ranks, {own.host} of {own.size}"
            remedy = "give every node the same --gpus and the same number of nodes"
            raise shared(user_error("ranks", found, remedy))
        if guest.rank in there:
            found = f"it has come twice: from {there[guest.rank].host} and from {guest.host}"
            remedy = "give every node its own number (FTKIT_NODE, or torchrun's --node-rank)"
            raise shared(user_error(f"rank {guest.rank}", found, remedy))
        there[guest.rank] = guest


def _not_come(missing: Collection[int], waited: float) -> Exception:
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    remedy = "see what the nodes that start them say; parallel.timeout is how long they are awaited"
    return shared(user_error(where, f"{ranks(missing)} did not come within {waited:.0f} s", remedy))
