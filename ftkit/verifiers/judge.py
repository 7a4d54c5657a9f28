"""The judge of a recipe: one verifier, or several whose rewards are summed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ftkit.core.errors import Fault, UserError
from ftkit.core.phase import phase
from ftkit.verifiers.base import Item, Verdict, build_verifier
from ftkit.verifiers.check import faults_of, listed, place_of
from ftkit.verifiers.config import (
    ExactConfig,
    FormatConfig,
    HttpConfig,
    LengthConfig,
    MathConfig,
    ModelJudgeConfig,
    NumericConfig,
    OneVerify,
    ProofConfig,
    PythonConfig,
    Verify,
)
from ftkit.verifiers.http import longest
from ftkit.verifiers.length import length
from ftkit.verifiers.pool import Pool
from ftkit.verifiers.process import Setup

if TYPE_CHECKING:
    from ftkit.model.policy import Policy

ABOUT_CORRECTNESS = frozenset({"exact", "numeric", "math", "proof", "python", "http"})
"""Verifiers that say whether an answer is right, and not how it looks or pleases."""

REQUESTS = 8
"""Requests at once to a server, where nothing is said."""

MARGIN = 5.0
"""Seconds more than all requests may take after which a process that sends them is killed."""

REMEDIES = {"python": ("function", "correct it"), "proof": ("header", "correct it")}
"""The key that a verifier's process most likely fails by, and what to do."""


@dataclass(frozen=True)
class Part:
    """One verifier of a judge.

    Attributes:
        name: in ``Verdict.parts``: the verifier's, with a number where it is not the only one.
        config: what the recipe says.
        judge: judges answers; the rewards are before ``config.weight``.
        pool: its processes, if it has any.
    """

    name: str
    config: OneVerify
    judge: Callable[[Sequence[Item]], list[Verdict]]
    pool: Pool | None = None


class WeightedSum:
    """Judges by each of its parts; the reward is the weighted sum of theirs.

    The status is that of the first part that is about correctness, else of the first part.  Where
    any part has an error, the whole has: a sum without one of its terms is none.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        """Take at least one part."""
        self.parts = tuple(parts)
        self.leading = next(
            (at for at, one in enumerate(parts) if one.config.name in ABOUT_CORRECTNESS), 0
        )

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """Return a verdict on each answer, in the same order."""
        with phase("judging answers"):
            columns = [part.judge(items) for part in self.parts]
        return [self._joined(verdicts) for verdicts in zip(*columns, strict=True)]

    def close(self) -> None:
        """Kill the processes; a later ``judge`` starts new ones."""
        for part in self.parts:
            if part.pool is not None:
                part.pool.close()

    def __enter__(self) -> WeightedSum:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill the processes."""
        self.close()

    def _joined(self, verdicts: Sequence[Verdict]) -> Verdict:
        leading, seconds = verdicts[self.leading], sum(each.seconds for each in verdicts)
        named = list(zip(self.parts, verdicts, strict=True))
        for part, verdict in named:
            if verdict.reward is None:
                detail = verdict.detail if len(named) == 1 else f"{part.name}: {verdict.detail}"
                return Verdict("error", None, detail, seconds=seconds)
        reward = sum(part.config.weight * (each.reward or 0.0) for part, each in named)
        if len(named) == 1:
            return replace(leading, reward=reward)
        parts = {part.name: each.reward or 0.0 for part, each in named}
        return Verdict(leading.status, reward, leading.detail, parts, seconds)


def build_judge(verify: Verify, *, policy: Policy | None = None) -> WeightedSum:
    """Return the judge that a recipe describes, with its processes begun.

    Args:
        verify: the recipe's ``verify:``.
        policy: whose answers are judged; a reward model must read its tokens and lies where it
            does.

    Raises:
        UserError: for everything that is wrong with it: a function, a program or a model that is
            not there, an address that is none.
    """
    faults = faults_of(verify)
    wrong = {fault.place.rpartition(".")[0] for fault in faults}
    parts: list[Part] = []
    names = _names(listed(verify))
    for index, config in enumerate(listed(verify)):
        place = place_of(verify, index)
        if place in wrong or (isinstance(config, ModelJudgeConfig) and faults):
            continue
        try:
            parts.append(_part(config, names[index], place, policy))
        except UserError as error:
            faults += error.faults
    judge = WeightedSum(parts)
    if faults:
        judge.close()
        raise UserError(faults)
    return judge


def _names(configs: Sequence[OneVerify]) -> list[str]:
    counted = Counter(config.name for config in configs)
    seen: Counter[str] = Counter()
    names = []
    for config in configs:
        seen[config.name] += 1
        number = seen[config.name] if counted[config.name] > 1 else ""
        names.append(f"{config.name}{number}")
    return names


def _part(config: OneVerify, name: str, place: str, policy: Policy | None) -> Part:
    """Return one part.

    Raises:
        UserError: if its process or its model does not begin.
    """
    if isinstance(config, ExactConfig | NumericConfig):
        verifier = build_verifier(config)
        return Part(name, config, _inline(lambda item: verifier(item.answer, item.truth)))
    if isinstance(config, LengthConfig):
        return Part(name, config, _inline(lambda item: length(item, config)))
    if isinstance(config, ModelJudgeConfig):
        from ftkit.verifiers.model import RewardModel

        return Part(name, config, RewardModel(config, place, policy).judge)
    pool = pool_of(config)
    fault = pool.check()
    if fault is not None:
        pool.close()
        key, remedy = REMEDIES.get(config.name, ("memory_mb", "give it more, or see why"))
        raise UserError(Fault(f"{place}.{key}", fault, remedy))
    return Part(name, config, pool.judge, pool)


def pool_of(config: MathConfig | ProofConfig | PythonConfig | HttpConfig | FormatConfig) -> Pool:
    """Return the processes of a verifier, none of them started."""
    values: dict[str, Any] = config.model_dump(
        exclude={"name", "weight", "workers", "memory_mb", "timeout", "start_timeout", "gold"}
    )
    seconds, started = config.timeout, 60.0
    workers = config.workers
    if isinstance(config, HttpConfig):
        values["timeout"] = config.timeout
        seconds, workers = longest(config.timeout, config.retries) + MARGIN, workers or REQUESTS
    if isinstance(config, ProofConfig):
        started = config.start_timeout
    setup = Setup(config.name, values, seconds, config.memory_mb, started)
    if isinstance(config, HttpConfig):  # it has repeated its requests itself
        return Pool(setup, workers=workers, late="error", tries=1)
    return Pool(setup, workers=workers)


def _inline(verify: Callable[[Item], Verdict]) -> Callable[[Sequence[Item]], list[Verdict]]:
    def judge(items: Sequence[Item]) -> list[Verdict]:
        verdicts = []
        for item in items:
            start = time.perf_counter()
            verdict = verify(item)
            verdicts.append(replace(verdict, seconds=time.perf_counter() - start))
        return verdicts

    return judge


def count_statuses(verdicts: Sequence[Verdict]) -> Mapping[str, int]:
    """Return how many verdicts have each status, of those that occur."""
    return Counter(verdict.status for verdict in verdicts)
