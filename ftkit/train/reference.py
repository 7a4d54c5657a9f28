"""Log-probabilities under a frozen reference: found once, kept under what they depend on."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ftkit.core.errors import user_error
from ftkit.core.fingerprint import fingerprint
from ftkit.data.load import cache_folder
from ftkit.model.likelihood import answer_log_probs
from ftkit.parallel.world import OneProcess

if TYPE_CHECKING:
    from ftkit.core.group import Group
    from ftkit.model.policy import Policy
    from ftkit.parallel.world import World

VERSION = 1
"""Of the way they are found; a change of it makes every kept one a miss."""

CHUNK = 256
"""Rows that are collated at once; memory only."""


class Rows(Protocol):
    """Rows with a name for their content."""

    @property
    def fingerprint(self) -> str:
        """Equal for equal rows in equal order."""
        ...

    @property
    def tokens(self) -> np.ndarray:
        """Int [rows]: the tokens of each."""
        ...

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __getitem__(self, index: int, /) -> Group:
        """Return one."""
        ...


@dataclass(frozen=True)
class Referenced:
    """Rows whose answers know their log-probability under the reference."""

    rows: Rows
    logp: np.ndarray
    """float64 [answers of all rows]."""
    start: np.ndarray
    """int64 [rows + 1]: where each row's answers begin."""
    known_as: str = "reference"
    """The key under which ``logps`` has them."""

    @property
    def fingerprint(self) -> str:
        """The name of the rows' content."""
        return self.rows.fingerprint

    @property
    def tokens(self) -> np.ndarray:
        """The tokens of each row."""
        return self.rows.tokens

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self.rows)

    def __getitem__(self, index: int, /) -> Group:
        """Return a row."""
        group = self.rows[index]
        mine = self.logp[self.start[index] : self.start[index + 1]].tolist()
        known = (
            replace(answer, logps={**answer.logps, self.known_as: value})
            for answer, value in zip(group.answers, mine, strict=True)
        )
        return group.with_answers(*known)


def with_reference(
    rows: Rows, reference: Policy, name: str, world: World | None = None
) -> Referenced:
    """Return rows whose answers have ``logps["reference"]``, from the cache if they are there.

    Args:
        rows: any.
        reference: the model; only run where the cache has nothing.
        name: the fingerprint of its weights.
        world: the ranks, each of which finds its share; None = there are no others.

    Raises:
        UserError: if a log-probability is not finite, with the number of such rows.
    """
    world = world or OneProcess()
    key = fingerprint("reference", VERSION, rows.fingerprint, name, str(reference.model.dtype))
    file = cache_folder().parent / "reference" / f"{key}.npz"
    if all(world.gather([file.is_file()])):
        kept = np.load(file)
        return Referenced(rows, kept["logp"], kept["start"])
    mine, own = world.mine(range(len(rows))), list[list[float]]()
    for at in range(0, -(-len(rows) // world.size), CHUNK):  # equally often on every rank
        own += answer_log_probs(reference, [rows[i] for i in mine[at : at + CHUNK]])
    found = world.joined(own)
    bad = [rows[i].id for i, values in enumerate(found) if not np.isfinite(values).all()]
    if bad:
        raise user_error(
            "the reference model",
            f"its log-probabilities of {len(bad)} of {len(rows)} rows are not finite, among them "
            f"{', '.join(bad[:3])}",
            "look at these rows with `ftkit data --json`, or take another reference",
        )
    every = np.array([value for values in found for value in values])
    out = Referenced(rows, every, np.cumsum([0, *map(len, found)]))
    _keep(file, out)
    return out


def _keep(file: Path, found: Referenced) -> None:
    """Write aside, then rename; a cache that cannot be written is no fault of the run."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".tmp", delete=False) as aside:
            np.savez(aside, logp=found.logp, start=found.start)
        os.replace(aside.name, file)  # noqa: PTH105 (a name, not a Path)
    except OSError:
        return
