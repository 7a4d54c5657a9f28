"""Whether all ranks are about to do the same: recipe, rows, versions; and in one folder."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ftkit.core.errors import Fault, UserError, user_error
from ftkit.launch.rank import ranks
from ftkit.parallel.world import shared
from ftkit.recipe import flatten
from ftkit.train.folder import versions

if TYPE_CHECKING:
    from ftkit.parallel.world import World
    from ftkit.recipe import Loaded
    from ftkit.run_data import Data


SEEN = 30.0
"""Seconds after which what one machine has written on a shared file system is seen by all."""


def check_same(world: World, loaded: Loaded, data: Data) -> None:
    """Refuse ranks that differ in what decides the numbers (PITFALLS 14).

    Raises:
        UserError: on all ranks, naming each that differs from the first, and in what.
    """
    about: dict[str, Any] = {
        "recipe": flatten(loaded.resolved()),
        "rows": {"fingerprint": data.sets.fingerprint},
        "versions": versions(),
    }
    told = world.gather([(socket.gethostname(), about)])
    faults: dict[tuple[str, str, str], list[int]] = {}
    for rank, (host, its) in enumerate(told):
        for found, remedy in differences(told[0][1], its):
            faults.setdefault((host, found, remedy), []).append(rank)
    if faults:
        raise shared(
            UserError(
                Fault(f"{ranks(numbers)} on {host}", found, remedy)
                for (host, found, remedy), numbers in faults.items()
            )
        )


REMEDIES = {
    "recipe": "start every node with the same recipe and the same KEY=VALUE",
    "rows": "give every node the same files, as by a shared file system",
    "versions": "install the same versions on every node",
}


def differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what differs between two ranks, in words, and what to do about it.

    >>> differences({"rows": {"fingerprint": "a"}}, {"rows": {"fingerprint": "b"}})[0][0]
    'other rows than rank 0: fingerprint b, not a'
    """
    found = []
    for part, mine in first.items():
        its = other[part]
        keys = [key for key in {**mine, **its} if mine.get(key) != its.get(key)]
        if keys:
            said = ", ".join(f"{key} {its.get(key)}, not {mine.get(key)}" for key in keys[:5])
            more = f", and {len(keys) - 5} more" if len(keys) > 5 else ""  # noqa: PLR2004 (as above)
            other_ = "another recipe" if part == "recipe" else f"other {part}"
            found.append((f"{other_} than rank 0: {said}{more}", REMEDIES[part]))
    return found


def check_shared(world: World, folder: Path) -> None:
    """Refuse a run's folder that some ranks do not see: each writes its part of a checkpoint there.

    Args:
        world: the ranks.
        folder: that of the run, which the leading rank has made.

    Raises:
        UserError: on all ranks, naming the first that does not see it.
    """
    if world.size == 1:
        return
    mark = folder / f".seen-by-all-{world.gather([uuid4().hex])[0]}"
    world.together(lambda: mark.touch() if world.leads else None)

    def look() -> None:
        late = time.monotonic() + SEEN
        while not (folder.is_dir() and mark.name in os.listdir(folder)):  # noqa: PTH208 (no stat)
            if time.monotonic() > late:
                found = f"{ranks([world.rank])} on {socket.gethostname()} does not see what rank 0"
                remedy = "give one on a file system that all nodes share (run=FOLDER)"
                raise user_error(f"run {folder}", f"{found} writes there", remedy)
            time.sleep(0.1)

    try:
        world.together(look)
    finally:
        if world.leads:
            mark.unlink(missing_ok=True)
