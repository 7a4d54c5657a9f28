"""What allocators hold besides the tensors: gaps between them, and what was given back to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftkit.plan.parts import Part
from ftkit.plan.setting import BEFORE, LEARN, SAVE, VALUES
from ftkit.plan.spread import WIDE

if TYPE_CHECKING:
    from ftkit.plan.setting import Setting

RESERVED = 0.1
"""torch's on a GPU: in parts of what comes and goes; an assumption, not measured."""

GAPS = 0.4
"""glibc's: in parts of all small tensors but the weights (docs/plan.md has measurements)."""

LOOSE = 1.0
"""The same with adapters, in parts of small activations: small products lie between large ones."""


def kept(setting: Setting, coming: Sequence[Part]) -> Part:
    """Return what the allocator holds besides in each phase.

    glibc hands tensors of 32 MiB and more pages of their own, and keeps the memory of smaller ones
    for others that may come; the pages of a file that is read back are none of it.

    Args:
        setting: of the run.
        coming: parts that come and go.
    """
    gone = {phase: sum(part.during.get(phase, 0) for part in coming) for phase in setting.phases}
    if setting.machine.kind == "cuda":
        sizes = {phase: round(RESERVED * size) for phase, size in gone.items() if phase != SAVE}
        return Part("allocator", sizes)
    small = _small(setting)
    if setting.facts.trained < setting.facts.numbers:
        gaps = round(LOOSE * small)
    else:
        gaps = round(GAPS * (small + _small_states(setting)))
    sizes = {
        phase: gaps if phase in {LEARN, VALUES} else max(small + gaps - size, 0)
        for phase, size in gone.items()
        if phase != BEFORE  # nothing was given back yet
    }
    return Part("allocator", sizes)


def _small(setting: Setting) -> int:
    """Return the bytes of small tensors that come and go in a pass."""
    held = [setting.held]
    if VALUES in setting.phases:
        held.append(setting.held_by_critic)
    return max(each.small + each.work for each in held)


def _small_states(setting: Setting) -> int:
    """Return the bytes of gradients and states of small tensors; DeepSpeed's are in one piece."""
    if setting.spread.stage is not None:
        return 0
    copies = 1 + setting.spread.moments
    return sum(
        (copies * each.small + min(each.small, each.narrow)) * WIDE for each in setting.trained
    )
