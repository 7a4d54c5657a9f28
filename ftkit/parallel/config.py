"""The recipe's ``parallel:``: how a run is spread over processes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftkit.core.section import Section

Stage = Literal[0, 1, 2, 3]
"""Of ZeRO."""


class ParallelConfig(Section):
    """How a run is spread over processes; memory and time only, never the result."""

    zero: Stage | None = None
    """DeepSpeed ZeRO: 0, every process holds everything; 1, each holds a share of the optimizer's
    state; 2, of the gradients too; 3, of the weights too. null = 1 with several processes (trpo: 0,
    it has no such state)."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """What is kept in the host's memory instead of the GPU's: the `optimizer`'s state (zero 1 to
    3), or `all`: the weights too, but for the layer at work (zero 3)."""
    timeout: float = Field(1800.0, gt=0)
    """Seconds without any progress after which a process is taken for hung, and the run is stopped,
    naming it and what it was doing."""
    deepspeed: str | None = Field(None, min_length=1)
    """For experts: a JSON file of further DeepSpeed settings, such as bucket sizes; what the recipe
    says itself cannot be set there."""
