"""What a method remembers of each prompt from visit to visit: SOX's moving averages."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.parallel.world import World

QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}


@dataclass
class Memory:
    """A logarithm for each prompt with its demonstration, by their content hash (LAWS T11).

    The same on every rank after every step.  A prompt that was never seen is not there.
    """

    world: World
    table: dict[str, float] = field(default_factory=dict)

    def recall(self, ids: Sequence[str]) -> Tensor:
        """Return what is remembered: float64 [B], NaN of a prompt that was not seen before."""
        known = [self.table.get(name, math.nan) for name in ids]
        return torch.tensor(known, dtype=torch.float64)

    def remember(self, ids: Sequence[str], carry: Tensor | None) -> dict[str, float]:
        """Take what a step found, on all ranks.

        Of a prompt that came several times the mean is kept, of what the logarithms are of.

        Args:
            ids: this rank's prompts.
            carry: float64 [B], on the CPU; NaN where nothing was found; None where there was
                no prompt, or nothing was found of any.

        Returns:
            Quantiles of what all ranks found, as metrics.
        """
        found: dict[str, list[float]] = defaultdict(list)
        mine = [] if carry is None else list(zip(ids, carry.tolist(), strict=True))
        for name, value in self.world.gather(mine):
            if not math.isnan(value):
                found[name].append(value)
        for name, values in found.items():
            self.table[name] = _log_mean(values)
        every = torch.tensor([v for values in found.values() for v in values], dtype=torch.float64)
        if not len(every):
            return {}
        return {f"log_u_{q}": every.quantile(share).item() for q, share in QUANTILES.items()}

    def state(self) -> dict[str, Tensor]:
        """Return the table for a checkpoint, sorted by content hash."""
        names = sorted(self.table)
        return {
            "ids": torch.tensor([_signed(name) for name in names], dtype=torch.int64),
            "values": torch.tensor([self.table[n] for n in names], dtype=torch.float64),
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the table back."""
        names = (f"{value % 2**64:016x}" for value in state["ids"].tolist())
        self.table = dict(zip(names, state["values"].tolist(), strict=True))


def _signed(name: str) -> int:
    """Return 16 hexadecimal digits as the int64 of the same bits."""
    value = int(name, 16)
    return value - 2**64 if value >= 2**63 else value


def _log_mean(values: Sequence[float]) -> float:
    """Return log mean exp, exact for a single value and whatever the order."""
    top = max(values)
    if len(values) == 1 or math.isinf(top):
        return top
    return top + math.log(math.fsum(math.exp(v - top) for v in values) / len(values))
