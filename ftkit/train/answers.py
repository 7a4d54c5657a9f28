"""Answers to held-out prompts: written by the policy, judged by a verifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import comb
from typing import TYPE_CHECKING, Any

from ftkit.core.group import Answer, Group
from ftkit.core.intervals import Estimate, by_cluster, clustered_mean, clustered_share
from ftkit.data.truth import with_truth
from ftkit.parallel.world import OneProcess
from ftkit.samplers.base import awake
from ftkit.samplers.config import SampleConfig
from ftkit.samplers.make import sampler_of
from ftkit.verifiers.base import STATUSES, Item, Judge, Verdict

if TYPE_CHECKING:
    from ftkit.model.policy import Policy
    from ftkit.objectives import Objective
    from ftkit.parallel.world import World
    from ftkit.samplers.base import Sampler
    from ftkit.samplers.vllm.base import Engine

Judged = tuple[Answer, Verdict]

GREEDY = SampleConfig(temperature=0.0)
"""How answers are written where the recipe does not say."""


def held_out_sampling(method: Objective, sample: SampleConfig | None) -> SampleConfig | None:
    """Return how held-out prompts are answered, given the recipe's ``sample:``.

    That of dft is about negatives; its held-out prompts are answered greedily.
    """
    if sample is None or method.kind != "pool":
        return sample
    return SampleConfig(temperature=0.0, max_tokens=sample.max_tokens)


@dataclass
class Answered:
    """What the answers to held-out prompts come to."""

    rows: Sequence[dict[str, Any]]
    """For each row its ``truth``, and what was said, ``greedy`` and ``sampled``."""
    figures: dict[str, Estimate] = field(default_factory=dict)
    """``exact_match``, ``length``, ``truncated``, and the same with ``_sampled``."""
    verdicts: dict[str, Mapping[str, int]] = field(default_factory=dict)
    """``verdicts``, ``verdicts_sampled``: how many answers got each."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """The answers, as groups, with ``decoding``."""


def answer(
    policy: Policy,
    groups: Sequence[Group],
    *,
    judge: Judge,
    sample: SampleConfig | None,
    stop: Sequence[int],
    keys: Sequence[int],
    seed: int,
    engine: Engine | None = None,
    world: World | None = None,
) -> Answered:
    """Have each prompt answered and judged, greedily and, with a temperature above 0, by draws.

    Args:
        policy: who answers.
        groups: the prompts, each with a truth or with its demonstration in the place of one.
        judge: who judges.
        sample: how answers are written.
        stop: ids of tokens that end an answer.
        keys: what each prompt's draws depend on.
        seed: of the draws.
        engine: the vLLM that writes them; None = the embedded sampler.
        world: the ranks, each of which has its share answered; None = there are no others.
    """
    world = world or OneProcess()
    groups = [with_truth(group, policy.tokenizer, stop) for group in groups]
    out = Answered([{"truth": group.truth} for group in groups])
    for sampler, answers, suffix in _samplers(policy, sample or GREEDY, stop, engine):
        mine = partial(_judge, world.mine(groups), sampler, judge)
        with awake(sampler):
            own = partial(mine, answers=answers, keys=world.mine(keys), seed=seed)
            judged = world.joined(world.together(own))
        if suffix:
            out.figures |= pass_at(groups, judged)
        out.figures |= {name + suffix: one for name, one in _figures(groups, judged).items()}
        out.verdicts["verdicts" + suffix] = _count(judged)
        decoding = "sampled" if suffix else "greedy"
        for row, group, said in zip(out.rows, groups, judged, strict=True):
            row[decoding] = [_told(*each) for each in said]
            rewarded = [
                replace(each, reward=verdict.reward, status=verdict.status)
                for each, verdict in said
            ]
            line = group.with_answers(*rewarded).to_json()
            out.samples.append({**line, "decoding": decoding})
    return out


def _samplers(
    policy: Policy, sample: SampleConfig, stop: Sequence[int], engine: Engine | None
) -> Iterator[tuple[Sampler, int, str]]:
    """Yield who writes answers, how many to a prompt, and what follows their figures' names."""
    greedy = sample.model_copy(update={"temperature": 0.0})
    yield sampler_of(policy, greedy, stop, engine), 1, ""
    if sample.temperature > 0:
        yield sampler_of(policy, sample, stop, engine), sample.answers, "_sampled"


def _judge(
    groups: Sequence[Group],
    sampler: Sampler,
    judge: Judge,
    *,
    answers: int,
    keys: Sequence[int],
    seed: int,
) -> list[list[Judged]]:
    """Have answers to each prompt written and judged."""
    prompts = [group.prompt for group in groups]
    written = sampler.generate(prompts, answers=answers, seed=seed, keys=keys)
    items = [
        Item.of(group, each) for group, row in zip(groups, written, strict=True) for each in row
    ]
    verdicts = iter(judge.judge(items))
    return [[(each, next(verdicts)) for each in row] for row in written]


def _figures(groups: Sequence[Group], judged: Sequence[Sequence[Judged]]) -> dict[str, Estimate]:
    """Return what the answers to each prompt come to, each prompt a cluster."""
    prompts = [group.prompt for group in groups]

    def per_prompt(values: Sequence[int]) -> list[int]:
        return by_cluster(prompts, values)

    tries = per_prompt([len(row) for row in judged])
    right = [sum(verdict.status == "correct" for _, verdict in row) for row in judged]
    cut = [sum(each.finish == "length" for each, _ in row) for row in judged]
    tokens = [sum(len(each.tokens) for each, _ in row) for row in judged]
    return {
        "exact_match": clustered_share(per_prompt(right), tries),
        "length": clustered_mean(per_prompt(tokens), tries),
        "truncated": clustered_share(per_prompt(cut), tries),
    }


def pass_at(groups: Sequence[Group], judged: Sequence[Sequence[Judged]]) -> dict[str, Estimate]:
    """Return ``pass@k`` for k = 2, 4, 8 ... up to n: that one of k answers is right.

    Of n answers of which c are right, 1 - C(n - c, k) / C(n, k) is without bias (Chen et al., 2021,
    arXiv 2107.03374); k = 1 is ``exact_match_sampled``.
    """
    n = min((len(row) for row in judged), default=0)
    prompts = [group.prompt for group in groups]
    figures = {}
    for k in (2**i for i in range(1, n.bit_length()) if 2**i <= n):
        right = [sum(verdict.status == "correct" for _, verdict in row) for row in judged]
        tries = [len(row) for row in judged]
        passed = [1 - comb(m - c, k) / comb(m, k) for m, c in zip(tries, right, strict=True)]
        totals = by_cluster(prompts, passed)
        figures[f"pass@{k}"] = clustered_mean(totals, by_cluster(prompts, [1] * len(passed)))
    return figures


def _count(judged: Sequence[Sequence[Judged]]) -> dict[str, int]:
    """Return how many answers got each verdict."""
    found = Counter(verdict.status for row in judged for _, verdict in row)
    return {status: found[status] for status in STATUSES}


def _told(said: Answer, verdict: Verdict) -> dict[str, Any]:
    """Return what a person wants to read of an answer."""
    return {
        "text": said.text,
        "tokens": len(said.tokens),
        "finish": said.finish,
        "status": verdict.status,
        "detail": verdict.detail,
    }
