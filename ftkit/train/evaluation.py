"""Measuring held-out rows: likelihood, which answers are above which, and judged answers."""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ftkit.core.errors import RunError
from ftkit.core.intervals import Estimate, by_cluster, clustered_mean
from ftkit.model.policy import Policy
from ftkit.parallel.world import OneProcess
from ftkit.train.answers import answer
from ftkit.train.ranking import Compared, outcome, ranking_figures, ranking_report
from ftkit.train.score import Ranker, Score, Scored, score_rows, told

if TYPE_CHECKING:
    from ftkit.core.group import Group
    from ftkit.model.reader import Reader
    from ftkit.objectives import Objective
    from ftkit.parallel.world import World
    from ftkit.samplers.config import SampleConfig
    from ftkit.samplers.vllm.base import Engine
    from ftkit.verifiers.base import Judge


NAMED = 5
"""So many rows are named where something is wrong with several."""


class Rows(Protocol):
    """Held-out rows."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __getitem__(self, index: int, /) -> Group:
        """Return one, with its demonstration, or the chosen answer, as the first answer."""
        ...


@dataclass(frozen=True)
class Measures:
    """What the held-out rows say of a policy or of a reward model."""

    n: int
    """Rows measured."""
    tokens: int
    """Trained tokens of their first answers, over which likelihoods are means."""
    figures: Mapping[str, Estimate]
    """Of a policy ``loss`` (nats a token of the first answer) and ``perplexity``; of a method that
    learns from pairs ``loss`` is its own, a pair, and the nats a token are ``nll``; a reward model
    has no likelihood.  Where rows have several answers, ``ranking_figures``.  With a verifier
    ``exact_match`` (greedy answers), ``length`` (tokens an answer) and ``truncated`` (the share
    that the length limit cut), and the same with ``_sampled`` for sampled answers."""
    verdicts: Mapping[str, Mapping[str, int]]
    """``verdicts``, ``verdicts_sampled``: how many answers got each."""
    rows: Sequence[Mapping[str, Any]]
    """What was found of each row, and of each pair in it."""
    samples: Sequence[Mapping[str, Any]]
    """The answers, as groups (``Group.to_json``) with ``decoding``: ``greedy`` or ``sampled``."""
    ranking: Mapping[str, Any] | None = None
    """What answers were ranked by, and ``ranking_report``; None where no row has two answers."""

    def to_json(self) -> dict[str, Any]:
        """Return ``n``, ``tokens``, each figure's value and interval, ``ranking``, the verdicts."""
        figures = {name: figure.to_json() for name, figure in self.figures.items()}
        ranking = {} if self.ranking is None else {"ranking": self.ranking}
        return {"n": self.n, "tokens": self.tokens, **figures, **ranking, **self.verdicts}


def evaluate(
    policy: Reader,
    dataset: Rows,
    *,
    objective: Objective | None = None,
    ranker: Ranker | None = None,
    limit: int | None = None,
    sample: SampleConfig | None = None,
    judge: Judge | None = None,
    stop: Sequence[int] = (),
    seed: int = 0,
    engine: Engine | None = None,
    world: World | None = None,
) -> Measures:
    """Measure the held-out rows: for the same weights always the same rows, draws and result.

    Args:
        policy: a policy or a reward model; nothing of it changes.
        dataset: rows, each with its demonstration or chosen answer first; at least one.
        objective: the method; one that learns from pairs is measured by its own loss.
        ranker: says how answers are ranked; None = the method, or the log-likelihood.
        limit: measure at most so many, always the same for a seed; a larger limit adds to them.
        sample: how answers are written; with a temperature above 0 they are sampled besides greedy.
        judge: who judges answers; None = none are written.
        stop: ids of tokens that end an answer.
        seed: of the choice of rows and of the draws.
        engine: the vLLM that writes answers; None = the embedded sampler.
        world: the ranks, each of which measures its share; None = there are no others.

    Raises:
        RunError: if scores of answers that are compared are not finite, naming rows (LAWS L6).
    """
    chosen = choose(len(dataset), limit, seed)
    groups = [dataset[i] for i in chosen]
    ranker = ranker or objective or Score("log_likelihood")
    world = world or OneProcess()
    scored = _scored(policy, groups, ranker, objective, world)
    rows = [_row(*each) for each in zip(groups, scored, strict=True)]
    require_numbers(rows, [all(map(math.isfinite, one.scores)) for one in scored], "scores")
    ranked, ranking = _ranking(_compared(groups, scored), ranker)
    figures = _figures(groups, scored, objective) | ranked
    answered = None
    if judge is not None:
        assert isinstance(policy, Policy)  # no recipe has both a verifier and a reward model
        who = partial(answer, policy, judge=judge, sample=sample, stop=stop, engine=engine)
        answered = who(groups, keys=chosen, seed=seed, world=world)
        figures |= answered.figures
        rows = [row | more for row, more in zip(rows, answered.rows, strict=True)]
    return Measures(
        len(groups),
        sum(one.tokens for one in scored),
        figures,
        answered.verdicts if answered else {},
        rows,
        answered.samples if answered else [],
        ranking,
    )


def _ranking(
    compared: Sequence[Compared], ranker: Ranker
) -> tuple[dict[str, Estimate], dict[str, Any] | None]:
    """Return the figures of answers that were compared, and what there is to say of them."""
    if not compared:
        return {}, None
    return ranking_figures(compared), {**told(ranker), **ranking_report(compared)}


def _scored(
    policy: Reader,
    groups: Sequence[Group],
    ranker: Ranker,
    objective: Objective | None,
    world: World,
) -> Sequence[Scored]:
    """Return what the policy makes of given answers; nothing, where there are only prompts."""
    sampled = objective is not None and objective.kind == "rollouts"
    if sampled and any(is_asked_only(group) for group in groups):
        return [Scored(0, None, (), None) for _ in groups]
    return score_rows(policy, groups, ranker, objective, world)


def is_asked_only(group: Group) -> bool:
    """Whether a row is a prompt without an answer, but for the token that ends one."""
    return not group.answers or (not group.answers[0].text and len(group.answers[0].tokens) < 2)  # noqa: PLR2004


def choose(n: int, limit: int | None, seed: int) -> list[int]:
    """Return which of n rows are measured, in the order of the data.

    They are the first of a seeded permutation.

    >>> choose(3, None, 0), set(choose(100, 5, 0)) < set(choose(100, 9, 0))
    ([0, 1, 2], True)
    """
    order = list(range(n))
    random.Random(seed).shuffle(order)
    return sorted(order[:limit])


def require_numbers(rows: Sequence[Mapping[str, Any]], fine: Sequence[bool], what: str) -> None:
    """Stop where something of a row is no number.

    Args:
        rows: the rows, as in ``Measures.rows``.
        fine: whether all is well with each.
        what: what was looked at, for the message.

    Raises:
        RunError: that counts these rows and names the first of them.
    """
    bad = [row for row, ok in zip(rows, fine, strict=True) if not ok]
    if not bad:
        return
    names = "; ".join(f"{r['id']} ({r['source']}) {r['prompt'][:60]!r}" for r in bad[:NAMED])
    more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    raise RunError(
        f"{what} of {len(bad)} of {len(rows)} held-out rows are no numbers: {names}{more}; the "
        "weights have diverged (lower train.lr, or take an older checkpoint), or model.dtype is "
        "too narrow for them"
    )


def _figures(
    groups: Sequence[Group], scored: Sequence[Scored], objective: Objective | None
) -> dict[str, Estimate]:
    """Return the method's loss and the likelihood of first answers, where there are such."""
    whole = objective is not None and objective.kind == "documents"
    keys: list[Hashable] = [i if whole else group.prompt for i, group in enumerate(groups)]
    figures: dict[str, Estimate] = {}
    own = [(key, one.loss) for key, one in zip(keys, scored, strict=True) if one.loss is not None]
    if own:
        mine = [key for key, _ in own]
        totals = by_cluster(mine, [loss for _, loss in own])
        figures["loss"] = clustered_mean(totals, by_cluster(mine, [1] * len(own)))
    known = [one.nll for one in scored if one.nll is not None]
    if known:
        totals = by_cluster(keys, known)
        nll = clustered_mean(totals, by_cluster(keys, [one.tokens for one in scored]))
        figures["nll" if own else "loss"] = nll
        figures["perplexity"] = nll.map(_exp)
    return figures


def _exp(x: float) -> float:
    """Return e to the x; infinite where a float cannot hold it.

    >>> _exp(1000.0)
    inf
    """
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def _compared(groups: Sequence[Group], scored: Sequence[Scored]) -> list[Compared]:
    """Return the rows that have answers to compare."""
    return [
        Compared(group.prompt, group.source, one.scores[0], one.scores[1:])
        for group, one in zip(groups, scored, strict=True)
        if len(one.scores) > 1
    ]


def _row(group: Group, one: Scored) -> dict[str, Any]:
    """Return what a person or a program wants to know of a row."""
    row: dict[str, Any] = {"id": group.id, "source": group.source, "prompt": group.prompt_text}
    row["tokens"] = one.tokens
    if one.nll is not None:
        row["nll"] = one.nll
    if len(one.scores) < 2:  # noqa: PLR2004 (a pair)
        return row
    first, *others = one.scores
    pairs = [
        {
            "text": other.text,
            "score": score,
            "margin": first - score,
            "outcome": outcome(first - score),
        }
        for other, score in zip(group.answers[1:], others, strict=True)
    ]
    return row | {"text": group.answers[0].text, "score": first, "pairs": pairs}
