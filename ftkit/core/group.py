"""The one record on disk, in flight and in logs: a prompt and the answers to it."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
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
    logps: Mapping[str, float] = field(default_factory=dict)
    """Log-probabilities of the whole answer, in nats, the sum over the tokens that the policy
    wrote: of the ``sampler``, as it drew; at temperature 1 of π_ref given the ``augmented`` prompt
    x̄, of π_ref given the ``prompt`` x, and of a ``reference`` given x."""
    system: int | None = None
    """Which of the pool's system prompts made x̄; None = none."""
    excluded: str = ""
    """Why it is not to be learnt from, where it is not."""
    status: str = ""
    """What the verifier said of it (``verifiers.base.Status``), where one did."""
    per_token: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """What the trainer found of each token before it learnt from it: log-probabilities in nats
    under the policy that sampled (``old``) and under the frozen one (``reference``), and a critic's
    ``value``, with ``advantage`` and ``returns`` made of it."""

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
    """Content hash (``content_id``) of the prompt and its first answer; of a preference pair, both
    answers."""
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
        row = asdict(self)
        row["answers"] = [_without_defaults(answer) for answer in row["answers"]]
        return row

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Group:
        """Read what ``to_json`` wrote, from JSON (lists) or not (tuples)."""
        answers = tuple(_answer(answer) for answer in row["answers"])
        return cls(**{**row, "prompt": tuple(row["prompt"]), "answers": answers})


def _without_defaults(answer: dict[str, Any]) -> dict[str, Any]:
    """Leave out what only pools and rollouts know of an answer, where nothing is known."""
    unknown: dict[str, Any] = {"logps": {}, "system": None, "excluded": ""}
    unknown |= {"status": "", "per_token": {}}
    return {k: v for k, v in answer.items() if k not in unknown or v != unknown[k]}


def _answer(row: dict[str, Any]) -> Answer:
    learn, logp = row.get("learn"), row.get("logp")
    return Answer(
        **{
            **row,
            "tokens": tuple(row["tokens"]),
            "learn": None if learn is None else tuple((a, b) for a, b in learn),
            "logp": None if logp is None else tuple(logp),
            "per_token": {name: tuple(v) for name, v in row.get("per_token", {}).items()},
        }
    )


def content_id(prompt: Sequence[int], *answers: Sequence[int]) -> str:
    """Return 16 hexadecimal digits that name a prompt and its demonstration (LAWS T11), or a pair.

    >>> content_id([1, 2], [3]) == content_id([1], [2, 3])
    False
    >>> content_id([1], [2, 3], [4]) == content_id([1], [2], [3, 4])
    False
    """
    numbers = [len(prompt), *prompt]
    for place, answer in enumerate(answers):
        numbers += [-1, *answer] if place else answer  # -1 is no token
    return hashlib.sha256(array("q", numbers).tobytes()).hexdigest()[:16]
