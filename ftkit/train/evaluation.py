"""Measuring held-out rows: the likelihood of demonstrations, and answers that a verifier judges."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from ftkit.core.batch import collate
from ftkit.core.group import Answer, Group
from ftkit.core.intervals import Estimate, clustered_mean, clustered_share
from ftkit.samplers.config import SampleConfig
from ftkit.verifiers.base import STATUSES, Verdict, Verifier, build_verifier

if TYPE_CHECKING:
    from ftkit.model.policy import Policy
    from ftkit.samplers.base import Sampler
    from ftkit.verifiers.config import Verify

Judged = tuple[Answer, Verdict]

GREEDY = SampleConfig(temperature=0.0)
"""How answers are written where the recipe does not say."""

CHUNK = 256
"""Rows that are collated at once; memory only."""


class Rows(Protocol):
    """Held-out rows."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __getitem__(self, index: int, /) -> Group:
        """Return one, with its demonstration as the first answer."""
        ...


@dataclass(frozen=True)
class Measures:
    """What the held-out rows say of a policy."""

    n: int
    """Rows measured."""
    tokens: int
    """Their trained tokens, over which the loss is a mean."""
    figures: Mapping[str, Estimate]
    """``loss`` (nats a token) and ``perplexity``; with a verifier ``exact_match`` (greedy answers),
    ``length`` (tokens an answer) and ``truncated`` (the share that the length limit cut), and the
    same with ``_sampled`` for sampled answers."""
    verdicts: Mapping[str, Mapping[str, int]]
    """``verdicts``, ``verdicts_sampled``: how many answers got each."""
    rows: Sequence[Mapping[str, Any]]
    """What was found of each row."""
    samples: Sequence[Mapping[str, Any]]
    """The answers, as groups (``Group.to_json``) with ``decoding``: ``greedy`` or ``sampled``."""

    def to_json(self) -> dict[str, Any]:
        """Return ``n``, ``tokens``, each figure's value and interval, and the verdicts."""
        figures = {name: figure.to_json() for name, figure in self.figures.items()}
        return {"n": self.n, "tokens": self.tokens, **figures, **self.verdicts}


def evaluate(
    policy: Policy,
    dataset: Rows,
    *,
    limit: int | None = None,
    sample: SampleConfig | None = None,
    verify: Verify | None = None,
    stop: Sequence[int] = (),
    seed: int = 0,
) -> Measures:
    """Measure the held-out rows: for the same weights always the same rows, draws and result.

    Args:
        policy: whose log-probabilities and answers are measured; nothing of it changes.
        dataset: rows, each with its demonstration; at least one.
        limit: measure at most so many, always the same for a seed; a larger limit adds to them.
        sample: how answers are written; with a temperature above 0 they are sampled besides greedy.
        verify: who judges answers; None = likelihood only.
        stop: ids of tokens that end an answer.
        seed: of the choice of rows and of the draws.
    """
    chosen = choose(len(dataset), limit, seed)
    groups = [dataset[i] for i in chosen]
    totals, counts = _likelihood(policy, groups)
    loss = clustered_mean(totals, counts)
    rows: list[dict[str, Any]] = [
        {"id": group.id, "source": group.source, "tokens": count, "nll": total}
        for group, total, count in zip(groups, totals, counts, strict=True)
    ]
    figures = {"loss": loss, "perplexity": loss.map(_exp)}
    verdicts, samples = {}, []
    if verify is not None:
        groups = _with_truth(groups, policy.tokenizer, stop)
        for row, group in zip(rows, groups, strict=True):
            row |= {"prompt": group.prompt_text, "truth": group.truth}
        for sampler, answers, suffix in _samplers(policy, sample or GREEDY, stop):
            judged = _answer(
                groups, sampler, build_verifier(verify), answers=answers, keys=chosen, seed=seed
            )
            figures |= {name + suffix: figure for name, figure in _figures(judged).items()}
            verdicts["verdicts" + suffix] = _count(judged)
            decoding = "sampled" if suffix else "greedy"
            for row, group, said in zip(rows, groups, judged, strict=True):
                row[decoding] = [_told(*each) for each in said]
                rewarded = [replace(answer, reward=verdict.reward) for answer, verdict in said]
                line = group.with_answers(*rewarded).to_json()
                samples.append({**line, "decoding": decoding})
    return Measures(len(groups), sum(counts), figures, verdicts, rows, samples)


def choose(n: int, limit: int | None, seed: int) -> list[int]:
    """Return which of n rows are measured, in the order of the data.

    They are the first of a seeded permutation.

    >>> choose(3, None, 0), set(choose(100, 5, 0)) < set(choose(100, 9, 0))
    ([0, 1, 2], True)
    """
    order = list(range(n))
    random.Random(seed).shuffle(order)
    return sorted(order[:limit])


def _likelihood(policy: Policy, groups: Sequence[Group]) -> tuple[list[float], list[int]]:
    """Return each demonstration's negative log-likelihood and number of trained tokens."""
    totals: list[float] = []
    counts: list[int] = []
    for start in range(0, len(groups), CHUNK):
        part = groups[start : start + CHUNK]
        batch = collate([group.with_answers(group.answers[0]) for group in part])
        logp = policy.log_probs(batch).double().cpu()
        totals += (-logp).where(batch.mask, 0.0).sum((1, 2)).tolist()
        counts += batch.mask.sum((1, 2)).tolist()
    return totals, counts


def _exp(x: float) -> float:
    """Return e to the x; infinite where a float cannot hold it.

    >>> _exp(1000.0)
    inf
    """
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def _with_truth(groups: Sequence[Group], tokenizer: Any, stop: Sequence[int]) -> list[Group]:
    """Return the groups, each with a truth: its own, or the text of its demonstration."""
    told = []
    for group in groups:
        truth = group.truth
        if truth is None:
            tokens = _first_turn(group.answers[0])
            spoken = tokens[:-1] if tokens and tokens[-1] in stop else tokens
            truth = tokenizer.decode(
                spoken, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        told.append(replace(group, truth=truth))
    return told


def _first_turn(demonstration: Answer) -> tuple[int, ...]:
    """Return what answers the prompt: the first learnt stretch; later turns answer other ones."""
    start, end = (demonstration.learn or ((0, len(demonstration.tokens)),))[0]
    return demonstration.tokens[start:end]


def _samplers(
    policy: Policy, sample: SampleConfig, stop: Sequence[int]
) -> Iterator[tuple[Sampler, int, str]]:
    """Yield who writes answers, how many to a prompt, and what follows their figures' names."""
    from ftkit.samplers.hf import HFSampler

    greedy = sample.model_copy(update={"temperature": 0.0})
    yield HFSampler(policy.model, policy.tokenizer, greedy, stop), 1, ""
    if sample.temperature > 0:
        sampler = HFSampler(policy.model, policy.tokenizer, sample, stop)
        yield sampler, sample.answers, "_sampled"


def _answer(
    groups: Sequence[Group],
    sampler: Sampler,
    verifier: Verifier,
    *,
    answers: int,
    keys: Sequence[int],
    seed: int,
) -> list[list[Judged]]:
    """Have answers to each prompt written and judged."""
    prompts = [group.prompt for group in groups]
    written = sampler.generate(prompts, answers=answers, seed=seed, keys=keys)
    return [
        [(answer, verifier(answer.text, group.truth or "")) for answer in row]
        for group, row in zip(groups, written, strict=True)
    ]


def _figures(judged: Sequence[Sequence[Judged]]) -> dict[str, Estimate]:
    """Return what the answers to each prompt come to, each prompt a cluster."""
    tries = [len(row) for row in judged]
    right = [sum(verdict.status == "correct" for _, verdict in row) for row in judged]
    cut = [sum(answer.finish == "length" for answer, _ in row) for row in judged]
    tokens = [sum(len(answer.tokens) for answer, _ in row) for row in judged]
    return {
        "exact_match": clustered_share(right, tries),
        "length": clustered_mean(tokens, tries),
        "truncated": clustered_share(cut, tries),
    }


def _count(judged: Sequence[Sequence[Judged]]) -> dict[str, int]:
    """Return how many answers got each verdict."""
    found = Counter(verdict.status for row in judged for _, verdict in row)
    return {status: found[status] for status in STATUSES}


def _told(answer: Answer, verdict: Verdict) -> dict[str, Any]:
    """Return what a person wants to read of an answer."""
    return {
        "text": answer.text,
        "tokens": len(answer.tokens),
        "finish": answer.finish,
        "status": verdict.status,
        "detail": verdict.detail,
    }
