"""The rules of ``parallel:``: which stages of ZeRO serve which run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ftkit.core.errors import Fault

if TYPE_CHECKING:
    from ftkit.recipe.rules import Said


def faults_parallel(said: Said) -> Iterator[Fault]:
    """Yield what cannot run as ``parallel:`` asks."""
    zero, offload = said.get("parallel.zero"), said.get("parallel.offload", "none")
    if said.get("method.name") == "trpo":
        if zero in {1, 2, 3}:
            found = f"{zero}, and trpo has no optimizer's state to share, and needs whole weights"
            yield Fault("parallel.zero", found, "write 0, or leave it out")
        if offload != "none":
            found = f"{offload}, and trpo has no optimizer's state to keep elsewhere"
            yield Fault("parallel.offload", found, "write none, or leave it out")
        return
    if offload == "optimizer" and zero == 0:
        found = "optimizer, and with zero: 0 no engine could keep it elsewhere"
        yield Fault("parallel.offload", found, "write zero: 1, 2 or 3, or offload: none")
    if offload == "all" and zero != 3:  # noqa: PLR2004 (the stage)
        said_of = "1 where nothing is written" if zero is None else str(zero)
        found = f"all, and only zero: 3 keeps shares of weights (it is {said_of})"
        yield Fault("parallel.offload", found, "write zero: 3, or offload: optimizer")
