"""Which of a run's answers a person wants to see, found in its file line by line."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ftkit.core.errors import user_error
from ftkit.tasks.curves.jsonl import GrowingFile
from ftkit.tasks.visible import visible


@dataclass(frozen=True)
class Wanted:
    """Which groups to show. A group is shown if one of its answers is all that is wanted."""

    step: int | None = None
    kind: str | None = None
    """``rollout``, ``greedy`` or ``sampled``."""
    status: str | None = None
    low: float | None = None
    high: float | None = None
    """Of the reward; an answer without one is outside of any range."""
    text: str | None = None
    """Stands in the answer, or in the prompt."""

    def answers(self, row: dict[str, Any]) -> list[int]:
        """Return the indices of the answers that are wanted; none where the group is not."""
        if self.step is not None and row["step"] != self.step:
            return []
        if self.kind is not None and row.get("decoding") != self.kind:
            return []
        asked = self.text is not None and self.text in str(row.get("prompt_text", ""))
        return [n for n, each in enumerate(row["answers"]) if self._takes(each, asked=asked)]

    def words(self) -> str:
        """Return what is wanted, as it was asked for."""
        low, high = ("" if end is None else f"{end:g}" for end in (self.low, self.high))
        said = {
            "--step": self.step,
            "--kind": self.kind,
            "--status": self.status,
            "--reward": f"{low}..{high}" if low or high else None,
            "--grep": self.text,
        }
        asked = (f"{key} {value}" for key, value in said.items() if value is not None)
        return (
            visible(" ".join(("with", *asked))) if any(v is not None for v in said.values()) else ""
        )

    def _takes(self, answer: dict[str, Any], *, asked: bool) -> bool:
        """Whether one answer is wanted; ``asked``: the text stands in its prompt."""
        reward = reward_of(answer)
        if self.status is not None and status_of(answer) != self.status:
            return False
        if self.low is not None and (reward is None or reward < self.low):
            return False
        if self.high is not None and (reward is None or reward > self.high):
            return False
        return self.text is None or asked or self.text in str(answer.get("text", ""))


def reward_of(answer: dict[str, Any]) -> float | None:
    """Return an answer's reward; None where it was not judged."""
    reward = answer.get("reward")
    return reward if isinstance(reward, int | float) and math.isfinite(reward) else None


def status_of(answer: dict[str, Any]) -> str:
    """Return what the verifier said; where that is not written down, what the reward says.

    >>> status_of({"status": "timeout", "reward": 0.0}), status_of({"reward": 1.0})
    ('timeout', 'correct')
    >>> status_of({"reward": 0.0}), status_of({"reward": 0.5}), status_of({"reward": None})
    ('incorrect', '', '')
    """
    told = {1.0: "correct", 0.0: "incorrect", None: ""}
    return str(answer.get("status") or told.get(reward_of(answer), ""))


def bounds(text: str) -> tuple[float | None, float | None]:
    """Return the ends of a range.

    Raises:
        ValueError: if it is none.

    >>> bounds("0.5..1"), bounds("..0"), bounds("1")
    ((0.5, 1.0), (None, 0.0), (1.0, 1.0))
    """
    first, dots, second = text.partition("..")
    parts = (first, second if dots else first)
    low, high = (float(part) if part.strip() else None for part in parts)
    ends = [end for end in (low, high) if end is not None]
    if not ends or any(map(math.isnan, ends)) or ends != sorted(ends):
        raise ValueError(text)
    return low, high


@dataclass
class Found:
    """Groups that are wanted, each with the indices of its answers that are."""

    groups: list[tuple[dict[str, Any], list[int]]] = field(default_factory=list)
    more: bool = False
    """Whether there are others."""


def first(file: GrowingFile, wanted: Wanted, most: int) -> Found:
    """Return the first groups that are wanted, and read no further."""
    found = Found()
    for row in rows(file, wanted.step):
        matches = wanted.answers(row)
        if matches and len(found.groups) == most:
            found.more = True
            break
        if matches:
            found.groups.append((row, matches))
    return found


def last_step(file: GrowingFile, wanted: Wanted, most: int) -> Found:
    """Return the first groups that are wanted of the last step that has some."""
    step = file.last_step()
    found = Found() if step is None else first(file, replace(wanted, step=step), most)
    return found if found.groups else _last_of_all(file, wanted, most)


def _last_of_all(file: GrowingFile, wanted: Wanted, most: int) -> Found:
    """Return the same, where the last step has none; this takes reading every line."""
    found = Found()
    for row in rows(file, None):
        matches = wanted.answers(row)
        if not matches:
            continue
        if found.groups and found.groups[0][0]["step"] != row["step"]:
            found = Found()
        if len(found.groups) < most:
            found.groups.append((row, matches))
        else:
            found.more = True
    return found


def rows(file: GrowingFile, step: int | None) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file, one at a time; with a step, its lines and few others."""
    for number, row in file.rows(step):
        answers = row.get("answers")
        if not isinstance(answers, list) or not all(isinstance(each, dict) for each in answers):
            place = f"{file.path}:{number}"
            raise user_error(place, "no group: it has no answers", "bring the run's file back")
        yield row


def mean_reward(row: dict[str, Any]) -> float | None:
    """Return the mean over the answers that have a reward; None where none has."""
    rewards = [reward for each in row["answers"] if (reward := reward_of(each)) is not None]
    return statistics.fmean(rewards) if rewards else None
