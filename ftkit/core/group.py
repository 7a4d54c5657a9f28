"""The one record on disk, in flight and in logs: a prompt and the answers to it."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Finish = Literal["given", "stop", "length"]
"""How an answer ended: it was given; the policy stopped; the length limit cut it (no EOS)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Tokens that follow a prompt, and what is known of them."""

    tokens: tuple[int, ...]
    """Token ids as given or as sampled, never decoded and tokenized again (LAWS T10)."""
    learn: tuple[tuple[int, int], ...] | None = None
    """Half-open ranges of ``tokens`` that the policy wrote; None = all of them (LAWS L4)."""
    text: str = ""
    reward: float | None = None
    finish: Finish = "given"
    logp: tuple[float, ...] | None = None
    """Log-probability of each token under whoever sampled it, in nats."""

    def mask(self) -> list[bool]:
        """Return, for each token, whether the policy wrote it.

        >>> Answer((7, 8, 9), learn=((1, 3),)).mask()
        [False, True, True]
        """
        if self.learn is None:
            return [True] * len(self.tokens)
        mask = [False] * len(self.tokens)
        for start, stop in self.learn:
            mask[start:stop] = [True] * (stop - start)
        return mask


@dataclass(frozen=True, slots=True)
class Group:
    """One example: a prompt, its answers, and what a verifier needs to judge them."""

    id: str
    """Content hash of the prompt and its first answer (``content_id``)."""
    prompt: tuple[int, ...]
    """Token ids; at least one, so that each token of an answer has a predecessor."""
    answers: tuple[Answer, ...] = ()
    prompt_text: str = ""
    truth: str | None = None
    """What a verifier compares an answer with."""
    source: str = ""
    """The data set that it came from."""

    def with_answers(self, *answers: Answer) -> Group:
        """Return this group with other answers."""
        return replace(self, answers=answers)

    def to_json(self) -> dict[str, Any]:
        """Return the row of a pool or of a log of samples."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Group:
        """Read what ``to_json`` wrote, from JSON (lists) or not (tuples)."""
        answers = tuple(_answer(answer) for answer in row["answers"])
        return cls(**{**row, "prompt": tuple(row["prompt"]), "answers": answers})


def _answer(row: dict[str, Any]) -> Answer:
    learn, logp = row.get("learn"), row.get("logp")
    return Answer(
        **{
            **row,
            "tokens": tuple(row["tokens"]),
            "learn": None if learn is None else tuple((a, b) for a, b in learn),
            "logp": None if logp is None else tuple(logp),
        }
    )


def content_id(prompt: Sequence[int], answer: Sequence[int]) -> str:
    """Return 16 hexadecimal digits that name a prompt and its demonstration (LAWS T11).

    >>> content_id([1, 2], [3]) == content_id([1], [2, 3])
    False
    """
    digest = hashlib.sha256(array("q", [len(prompt), *prompt, *answer]).tobytes())
    return digest.hexdigest()[:16]
