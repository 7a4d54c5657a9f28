"""Whether a judge works: right answers tried at the start, and errors counted on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ftkit.core.errors import ServiceError
from ftkit.verifiers.base import Item, Verdict
from ftkit.verifiers.config import (
    ExactConfig,
    HttpConfig,
    MathConfig,
    NumericConfig,
    OneVerify,
    ProofConfig,
    PythonConfig,
)
from ftkit.verifiers.judge import Part, WeightedSum
from ftkit.verifiers.place import boxes
from ftkit.verifiers.proof import TRIALS, UNPROVED

MOST_ERRORS = 0.05
"""The share of errors above which a run stops."""
FEWEST = 100
"""Verdicts before which it does not."""


@dataclass(frozen=True)
class Failure:
    """A trial that went wrong."""

    verifier: str
    """The name of the part."""
    answer: str
    """What should have been right."""
    truth: str
    verdict: Verdict

    def __str__(self) -> str:
        """One line."""
        detail = f" ({self.verdict.detail})" if self.verdict.detail else ""
        said = f"{self.verifier} judges {self.answer[-60:]!r}, to {self.truth[-60:]!r}"
        return f"{said}, {self.verdict.status}{detail}"


@dataclass(frozen=True)
class SelfTest:
    """What became of right answers."""

    tried: int
    """Judgements; 0 where no form of a right answer is known."""
    failures: tuple[Failure, ...]

    @property
    def share(self) -> float:
        """The part of the judgements that went wrong."""
        return len(self.failures) / self.tried if self.tried else 0.0

    def __str__(self) -> str:
        """How many, and examples."""
        if not self.failures:
            return f"{self.tried} trials, all judged as they must be"
        shown = "; ".join(map(str, self.failures[:3]))
        return f"{len(self.failures)} of {self.tried} trials are judged wrongly: {shown}"


def self_test(judge: WeightedSum, golds: Sequence[str]) -> SelfTest:
    """Have right answers judged by each part that is about correctness.

    Of a proof system a true statement and a false one are tried, and each gold, which is a
    statement, must be readable.  Of ``python`` and ``http`` the form of a right answer is known
    only if ``gold`` says it.

    Args:
        judge: the judge.
        golds: truths of the data.
    """
    tried, failures = 0, []
    for part in judge.parts:
        trials = _trials(part.config, golds)
        verdicts = part.judge([item for item, _ in trials])
        tried += len(trials)
        for (item, wanted), verdict in zip(trials, verdicts, strict=True):
            if verdict.status not in wanted:
                failures.append(_failure(part, item, verdict))
    return SelfTest(tried, tuple(failures))


def _failure(part: Part, item: Item, verdict: Verdict) -> Failure:
    return Failure(part.name, item.answer, item.truth, verdict)


def _trials(config: OneVerify, golds: Sequence[str]) -> list[tuple[Item, frozenset[str]]]:
    """Return answers, and of each the statuses that are right."""
    if isinstance(config, ProofConfig):
        return _proofs(config, golds)
    right = frozenset({"correct"})
    said = [(gold_answer(config, truth), truth) for truth in golds]
    return [(Item(answer, truth), right) for answer, truth in said if answer is not None]


def gold_answer(config: OneVerify, truth: str) -> str | None:
    r"""Return a truth in the form that a verifier asks for; None where that is not known.

    >>> gold_answer(MathConfig(name="math"), "42")
    '\\boxed{42}'
    >>> gold_answer(ExactConfig(name="exact", after="####"), "42")
    '#### 42'
    """
    if isinstance(config, PythonConfig | HttpConfig):
        return None if config.gold is None else config.gold.replace("{truth}", truth)
    if not isinstance(config, ExactConfig | NumericConfig | MathConfig):
        return None
    boxed, after = getattr(config, "boxed", False), config.after
    rest = truth.rpartition(after)[2] if after is not None else truth
    marked = after is None or after in truth
    if boxed and not boxes(rest):
        rest, marked = f"\\boxed{{{rest.strip()}}}", after is None
        return rest if marked else f"{after} {rest}"
    return truth if marked else f"{after} {truth}"


def _proofs(config: ProofConfig, golds: Sequence[str]) -> list[tuple[Item, frozenset[str]]]:
    mark = "" if config.after is None else f"{config.after}\n"
    trials = [
        (Item(mark + proof, claim), frozenset({"correct" if holds else "incorrect"}))
        for claim, proof, holds in TRIALS[config.system]
    ]
    nothing = mark + UNPROVED[config.system]
    return trials + [(Item(nothing, truth), frozenset({"incorrect"})) for truth in golds]


@dataclass
class ErrorRate:
    """Counts verdicts, and stops the run where too many are errors."""

    most: float = MOST_ERRORS
    fewest: int = FEWEST
    seen: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def errors(self) -> int:
        """How many there were."""
        return self.reasons.total()

    def add(self, verdicts: Sequence[Verdict]) -> None:
        """Count verdicts.

        Raises:
            ServiceError: if more than ``most`` of at least ``fewest`` are errors.
        """
        self.seen += len(verdicts)
        self.reasons.update(each.detail for each in verdicts if each.status == "error")
        if self.seen >= self.fewest and self.errors > self.most * self.seen:
            reason, times = self.reasons.most_common(1)[0]
            raise ServiceError(
                f"{self.errors} of {self.seen} answers could not be judged, most often ({times} "
                f"times) because: {reason}; correct `verify`, its limits (timeout, memory_mb) or "
                "the truths of these rows, then go on with --resume"
            )
