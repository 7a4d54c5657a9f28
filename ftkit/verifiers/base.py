"""What a verifier is: who judges whether an answer is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, get_args

if TYPE_CHECKING:
    from ftkit.core.group import Answer, Group
    from ftkit.verifiers.config import Verify

Status = Literal["correct", "incorrect", "unparseable", "timeout", "error"]
"""``unparseable``: the answer says nothing that could be compared; ``timeout``: judging it took too
long, or of a proof too much memory; ``error``: the verifier or the truth is at fault, not the
answer."""

STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True, slots=True)
class Item:
    """An answer to be judged."""

    answer: str
    """What was said, without the stop token."""
    truth: str
    """What it is compared with; empty where the row has none."""
    prompt: str = ""
    prompt_tokens: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    """As sampled, with the stop token if one was drawn."""
    cut: bool = False
    """Whether the length limit ended it."""

    @classmethod
    def of(cls, group: Group, said: Answer) -> Item:
        """Return an answer to a group's prompt, as verifiers see it."""
        cut = said.finish == "length"
        prompt = (group.prompt_text, group.prompt)
        return cls(said.text, group.truth or "", *prompt, said.tokens, cut)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judgement, and why."""

    status: Status
    reward: float | None
    """1 for correct, 0 for what is not and for a timeout, or a number in between or beyond where
    the verifier has degrees; None where nothing was judged (``error``)."""
    detail: str = ""
    """What a person reads in the log."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Of a sum of verifiers: the reward of each, before its weight."""
    seconds: float = 0.0
    """How long it took."""


Verifier = Callable[[str, str], Verdict]
"""(answer, truth) -> verdict: pure, and total, that is, it never raises."""

ItemVerifier = Callable[[Item], Verdict]
"""The same with all that is known of an answer; it may hang, raise or end its process."""


class SetupError(Exception):
    """A verifier's process cannot begin: what was found."""


class Judge(Protocol):
    """Judges many answers: verifiers with their processes, limits and weights."""

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """Return a verdict on each, in the same order; never raises for what an answer says."""
        ...

    def close(self) -> None:
        """End its processes."""
        ...


def build_verifier(config: Verify) -> Verifier:
    """Return the verifier that a recipe names, if it is pure and bounded: it needs no process.

    Raises:
        TypeError: if it does; ``judge.build_judge`` serves every verifier.
    """
    from ftkit.verifiers.config import ExactConfig, NumericConfig
    from ftkit.verifiers.exact import exact
    from ftkit.verifiers.numeric import numeric

    if isinstance(config, ExactConfig):
        return exact(config)
    if isinstance(config, NumericConfig):
        return numeric(config)
    raise TypeError(f"{type(config).__name__}: take build_judge")
