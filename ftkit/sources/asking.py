"""Prompts answered by the policy as it is now, judged, and looked at before they are learnt."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ftkit.core.batch import collate
from ftkit.core.errors import RunError
from ftkit.core.group import Answer, Group
from ftkit.verifiers.base import STATUSES, Item

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.core.batch import Batch
    from ftkit.model.policy import Policy
    from ftkit.parallel.world import World
    from ftkit.samplers.base import Sampler
    from ftkit.verifiers.base import Judge, Verdict

Look = Callable[["Batch"], "Tensor"]
"""From a batch to a value of each token of its answers: [B, K, T]."""

Told = dict[str, float]

Finish = Callable[[Sequence[Group]], tuple[list[Group], Told]]
"""From rewards and looks to what is learnt from, with metrics."""


@dataclass
class Asking:
    """Who answers, who judges, and what the trainer wants to know of an answer beforehand."""

    policy: Policy
    world: World
    """The ranks among which prompts are dealt."""
    sampler: Sampler
    judge: Judge
    answers: int
    """Answers to each prompt."""
    temperature: float
    """Of the samples; log-probabilities are those at it (LAWS T8)."""
    seed: int
    keeps_old: bool
    """Whether a rollout serves more than one update, so that π_old is another than π."""
    binary: bool = False
    """Whether rewards must be 0 or 1."""
    looks: Mapping[str, Look] | None = None
    """What else to find of each token, by the names of ``Answer.per_token``."""
    finish: Finish | None = None
    """What is made of rewards and looks before anything is learnt: a critic's advantages."""
    watch: Callable[[Sequence[Verdict]], None] | None = None
    """Told every verdict; stops the run where the verifier fails too often."""

    def answered(self, rows: Sequence[tuple[int, Group]]) -> list[Group]:
        """Return prompts with their sampled and judged answers.

        Answers that the verifier could not judge are left out, and groups that have no other.

        Args:
            rows: the prompts, each with its number among all that the run asks: what is drawn for
                it depends on the seed, that number, and the weights.

        Raises:
            RunError: if rewards are no numbers, or are not 0 or 1 where they must be.
        """
        prompts, keys = [group.prompt for _, group in rows], [key for key, _ in rows]
        written = self.sampler.generate(prompts, answers=self.answers, seed=self.seed, keys=keys)
        items = [
            Item.of(group, answer)
            for (_, group), answers in zip(rows, written, strict=True)
            for answer in answers
        ]
        verdicts = self.judge.judge(items)
        if self.watch is not None:
            self.watch(verdicts)
        judged = iter(verdicts)
        groups = []
        for (_, group), answers in zip(rows, written, strict=True):
            mine = [_rewarded(answer, next(judged)) for answer in answers]
            self._check(group, mine)
            groups.append(group.with_answers(*mine))
        return groups

    def prepared(self, groups: Mapping[int, Group]) -> tuple[dict[int, Group], Told]:
        """Return what is learnt from: judged answers alone, with what is known of each token.

        Groups without a judged answer are left out, unless there is no other on any rank.

        Args:
            groups: this rank's, by their places.
        """
        judged = {
            place: group.with_answers(*(a for a in group.answers if a.reward is not None))
            for place, group in groups.items()
        }
        kept = {place: group for place, group in judged.items() if group.answers}
        if not sum(self.world.gather([len(kept)])):
            kept = judged
        told: Told = {}
        looks: dict[str, Look] = dict(self.looks or {})
        if self.keeps_old:
            looks["old"] = self.policy.without_graph
        rows = list(kept.values())
        if looks:
            batch = collate(rows)
            with self.policy.at(self.temperature):
                found = {name: look(batch).cpu() for name, look in looks.items()}
            if "old" in found:
                told |= self.world.means({"sampler_gap": _gap(rows, found["old"])})
            rows = [_with(group, b, found) for b, group in enumerate(rows)]
        if self.finish is not None:
            rows, more = self.finish(rows)
            told |= more
        return dict(zip(kept, rows, strict=True)), told

    def report(self, groups: Sequence[Group]) -> dict[str, tuple[float, float]]:
        """Return what the answers to prompts come to, judged or not: of each measure (sum, n)."""
        answers = [answer for group in groups for answer in group.answers]
        n = float(len(answers))
        status = Counter(answer.status for answer in answers)
        told = {
            "length": (float(sum(len(answer.tokens) for answer in answers)), n),
            "truncated": (float(sum(answer.finish == "length" for answer in answers)), n),
        }
        shown = (name for name in STATUSES if name != "incorrect")
        return told | {name: (float(status[name]), n) for name in shown}

    def _check(self, group: Group, answers: Sequence[Answer]) -> None:
        rewards = [answer.reward for answer in answers if answer.reward is not None]
        if not all(math.isfinite(reward) for reward in rewards):
            raise RunError(f"{group.id} ({group.source}): a reward that is no number: {rewards}")
        if self.binary and not all(reward in (0, 1) for reward in rewards):
            odd = next(reward for reward in rewards if reward not in (0, 1))
            raise RunError(
                f"{group.id} ({group.source}): reward {odd:g}, and right and wrong answers can be "
                "told apart only if it is 0 or 1: write method.threshold, the reward from which on "
                "an answer is right, or another verifier"
            )


def _rewarded(answer: Answer, verdict: Verdict) -> Answer:
    return replace(answer, reward=verdict.reward, status=verdict.status)


def _with(group: Group, b: int, found: Mapping[str, Tensor]) -> Group:
    """Return a group whose answers know what was found of their tokens."""
    answers = []
    for k, answer in enumerate(group.answers):
        n = len(answer.tokens)
        mine = {name: tuple(values[b, k, :n].tolist()) for name, values in found.items()}
        answers.append(replace(answer, per_token={**answer.per_token, **mine}))
    return group.with_answers(*answers)


def _gap(groups: Sequence[Group], old: Tensor) -> tuple[float, float]:
    """Return by how much sampler and trainer differ, in nats, and over how many tokens."""
    total, count = old.new_zeros(()), 0
    for b, group in enumerate(groups):
        for k, answer in enumerate(group.answers):
            if answer.logp:
                apart = (old[b, k, : len(answer.logp)] - old.new_tensor(answer.logp)).abs()
                total, count = total + apart.sum(), count + len(answer.logp)
    return float(total), float(count)
