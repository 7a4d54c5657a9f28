"""Whether all ranks are about to do the same: recipe, rows, versions."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ftkit.core.errors import Fault, UserError
from ftkit.recipe import flatten
from ftkit.train.folder import versions

if TYPE_CHECKING:
    from ftkit.parallel.world import World
    from ftkit.recipe import Loaded
    from ftkit.run_data import Data


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
    faults = [
        Fault(f"rank {rank} on {host}", found, remedy)
        for rank, (host, its) in enumerate(told)
        for found, remedy in differences(told[0][1], its)
    ]
    if faults:
        raise UserError(faults)


REMEDIES = {
    "recipe": "start every node with the same recipe and the same KEY=VALUE",
    "rows": "give every node the same files, as by a shared file system",
    "versions": "install the same versions on every node",
}


def differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what differs between two ranks, in words, and what to do about it.

    >>> differences({"rows": {"fingerprint": "a"}}, {"rows": {"fingerprint": "b"}})[0][0]
    'its rows differ from rank 0: fingerprint b, not a'
    """
    found = []
    for part, mine in first.items():
        its = other[part]
        keys = [key for key in {**mine, **its} if mine.get(key) != its.get(key)]
        if keys:
            said = ", ".join(f"{key} {its.get(key)}, not {mine.get(key)}" for key in keys[:5])
            found.append((f"its {part} differ from rank 0: {said}", REMEDIES[part]))
    return found
