"""The world of a run that has several processes: torch.distributed, joined by the environment.

Whoever starts the ranks (``ftkit train --gpus``, torchrun, deepspeed, srun) sets RANK, WORLD_SIZE,
LOCAL_RANK, MASTER_ADDR and MASTER_PORT; nothing else is read.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from threading import Timer
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ftkit.core.errors import RUN_FAILED, USER_ERROR, RunError, StoppedError, UserError
from ftkit.core.phase import WAITING, phase
from ftkit.launch.local import HANDED_ON
from ftkit.launch.rank import Prefixed
from ftkit.parallel.meeting import gloo_interface, introduce, not_joined, open_store
from ftkit.parallel.watchdog import Watchdog
from ftkit.parallel.world import OneProcess, World, shared
from ftkit.parallel.zero_config import prepare_deepspeed

T = TypeVar("T")

FOREVER = timedelta(days=30)
"""Of collectives: it is the watchdog that ends what hangs, and it says who does."""
COMING = 60.0
"""Seconds at least in which all ranks must have come: importing from a slow disk takes long."""
LEAVING = 600.0
"""Seconds for which a rank that is done waits for the others to be done."""
LOOK = 0.05
"""Seconds between looks at the store."""


@dataclass(frozen=True)
class Place:
    """Which of the ranks this process is, and where."""

    rank: int
    size: int
    local_rank: int
    local_size: int

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Place | None:
        """Read the environment; None where nobody started ranks.

        >>> Place.of({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"})
        Place(rank=3, size=4, local_rank=1, local_size=2)
        """
        if "RANK" not in environment or "WORLD_SIZE" not in environment:
            return None
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        local = int(environment.get("LOCAL_RANK", rank))
        return cls(rank, size, local, int(environment.get("LOCAL_WORLD_SIZE", size)))


class Processes(World):
    """Ranks that speak over gloo, and over NCCL where tensors are on GPUs."""

    def __init__(self, place: Place, store: Any = None) -> None:
        """Join the others.

        Args:
            place: of this rank.
            store: at which they have met (``meet``); None = they are yet to.

        Raises:
            UserError: if the port is taken, or the others do not come.
        """
        self.place, self.rank, self.size = place, place.rank, place.size
        store = meet(place, COMING) if store is None else store
        gpu = torch.cuda.is_available()
        if gpu:
            torch.cuda.set_device(place.local_rank)
        backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
        try:
            with phase("joining the other ranks"):
                dist.init_process_group(
                    backend,
                    store=store,
                    rank=place.rank,
                    world_size=place.size,
                    timeout=FOREVER,
                )
                # what ranks tell each other is never mixed with what an engine sends
                self._control = dist.new_group(backend="gloo", timeout=FOREVER)
        except (RuntimeError, ValueError, dist.DistNetworkError) as error:
            raise not_joined(error) from error
        prepare_deepspeed()
        self._store: Any = dist.distributed_c10d._get_default_store()
        self._turns = 0

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of ``x`` over all ranks, the same on each."""
        total = x.detach().clone()
        with phase(WAITING):
            dist.all_reduce(total, group=self._control if x.device.type == "cpu" else None)
        return total

    def gather(self, items: Sequence[T]) -> list[T]:
        """Return what all ranks give, in the order of the ranks, the same on each."""
        found: list[list[T]] = [[] for _ in range(self.size)]
        with phase(WAITING):
            dist.all_gather_object(found, list(items), group=self._control)
        return [item for share in found for item in share]

    def first(self, work: Callable[[], T]) -> T:
        """Have one rank of each machine do it first (``World.first``).

        Raises:
            UserError: on all ranks of a machine, if it failed on the first of them.
        """
        self._turns += 1
        key = f"first/{self._turns}/{self.rank - self.place.local_rank}"
        if self.place.local_rank == 0:
            try:
                result = work()
            except BaseException:
                self._store.set(key, "failed")
                raise
            self._store.set(key, "done")
            return result
        with phase(WAITING):
            while not self._store.check([key]):
                time.sleep(LOOK)
        if self._store.get(key) != b"done":
            raise UserError(())  # the first has said what it is
        return work()


def meet(place: Place, timeout: float) -> Any:
    """Return what all ranks share (torch's ``Store``: keys and values), when all have come to it.

    Args:
        place: of this rank; rank 0 keeps the store, or torchrun does.
        timeout: seconds in which all must have come.

    Raises:
        UserError: if the port is taken, or the others do not come, or were told other things.
    """
    store = open_store(place.rank, place.size, timeout)
    guests = introduce(store, place.rank, place.size, timeout)
    if interface := gloo_interface(guests, place.rank):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    store.set_timeout(FOREVER)
    return store


@contextmanager
def joined(timeout: float, environment: Mapping[str, str] = os.environ) -> Iterator[World]:
    """Hold the world that the environment speaks of; of one process where it speaks of none.

    Args:
        timeout: seconds without progress after which the process ends, and says who hangs.
        environment: what whoever started the ranks has said.
    """
    place = Place.of(environment)
    if place is None or place.size == 1:
        yield OneProcess()
        return
    store = meet(place, max(timeout, COMING))
    try:
        with Watchdog(store, place.rank, place.size, timeout):
            yield Processes(place, store)
    except KeyboardInterrupt as error:  # no framework of command lines shall take it for an exit
        raise shared(StoppedError()) from error
    except SystemExit as error:  # no rank may end by itself while the others go on
        where = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{where.filename}:{where.lineno} called sys.exit({error.code!r})"
        raise RunError(said) from error


def leave(status: int, *, alone: bool = False) -> NoReturn:
    """End this rank: gloo's threads may abort a process that ends in the usual way.

    Args:
        status: its exit status.
        alone: whether it waits for nobody, as does one that has failed.
    """
    for each in HANDED_ON:  # too late to stop anything
        signal.signal(each, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Prefixed):
            stream.end()
        stream.flush()
    if not alone and status not in {RUN_FAILED, USER_ERROR} and dist.is_initialized():
        late = Timer(LEAVING, os._exit, [status])
        late.daemon = True
        late.start()
        with suppress(RuntimeError):  # another one may have failed at the very end
            dist.barrier()
            dist.destroy_process_group()
    os._exit(status)
