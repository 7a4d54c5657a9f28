"""By what answers are ranked, and the one pass through the model that finds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ftkit.core.batch import collate
from ftkit.core.reduce import answer_mean, answer_sum
from ftkit.objectives import Objective
from ftkit.parallel.world import OneProcess
from ftkit.train.reference import CHUNK

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.core.batch import Batch
    from ftkit.core.group import Group
    from ftkit.model.reader import Reader
    from ftkit.parallel.world import World
    from ftkit.train.config import EvalConfig, ScoreName

REFERENCE = "logp_reference"
"""The column of the method's own reference."""

OTHER_REFERENCE = "logp_eval_reference"
"""The column of the reference of ``eval.reference``, where it is not the method's."""


class Ranker(Protocol):
    """Whoever says which answer is better: a method, or a ``Score``."""

    @property
    def columns(self) -> frozenset[str]:
        """Columns that it reads; of a method, also those that only its loss reads."""
        ...

    def scores(self, logp: Tensor, batch: Batch, /) -> Tensor:
        """Return a value of each answer, the higher the better: [B, K] of [B, K, T]."""
        ...


@dataclass(frozen=True)
class Score:
    """What ``eval.score`` names."""

    name: ScoreName
    beta: float = 1.0
    """What a log ratio is multiplied by."""
    column: str = REFERENCE
    """Where a log ratio finds the reference's log-probabilities."""

    @property
    def columns(self) -> frozenset[str]:
        """The reference's log-probabilities, for a log ratio."""
        return frozenset({self.column} if self.name == "log_ratio" else ())

    def scores(self, logp: Tensor, batch: Batch, /) -> Tensor:
        """Return the value of each answer, the higher the better: [B, K].

        Args:
            logp: [B, K, T], the log-probability of each answer token in nats.
            batch: the same B prompts and K answers.
        """
        if self.name == "mean_log_likelihood":
            return answer_mean(logp, batch.mask)
        total = answer_sum(logp, batch.mask)
        return self.beta * (total - batch[self.column]) if self.name == "log_ratio" else total


def ranker_of(config: EvalConfig, method: Objective) -> Ranker:
    """Return what ranks a recipe's held-out answers: what ``eval.score`` says, or the method.

    Args:
        config: the recipe's ``eval:``.
        method: the recipe's ``method:``.
    """
    if config.score is None:
        return method
    other = REFERENCE in method.columns and reference_of(config, method) != _own(method)
    return Score(config.score, config.beta, OTHER_REFERENCE if other else REFERENCE)


def reference_of(config: EvalConfig, method: Objective) -> str:
    """Return the reference of ``eval.score: log_ratio``: ``initial``, a folder or a hub name.

    It is what ``eval.reference`` says, else the method's own, else the model before training.
    """
    if config.reference is not None:
        return config.reference
    return _own(method) if REFERENCE in method.columns else "initial"


def references_of(config: EvalConfig, method: Objective) -> dict[str, str]:
    """Return what measuring rows with several answers reads: for each column, which reference.

    That is the method's own loss, and what ranks answers.

    >>> from ftkit.objectives import SFT
    >>> from ftkit.train.config import EvalConfig
    >>> references_of(EvalConfig(score="log_ratio"), SFT(name="sft"))
    {'logp_reference': 'initial'}
    """
    found = {REFERENCE: _own(method)} if REFERENCE in method.columns else {}
    ranker = ranker_of(config, method)
    if isinstance(ranker, Score):
        found |= dict.fromkeys(ranker.columns, reference_of(config, method))
    return found


def _own(method: Objective) -> str:
    return str(getattr(method, "reference", ""))


def columns_of(ranker: Ranker) -> frozenset[str]:
    """Return the columns of references that scores read."""
    return ranker.columns & {REFERENCE, OTHER_REFERENCE}


def told(ranker: Ranker) -> dict[str, Any]:
    """Return what ranks answers, for people and machines: ``score``, and ``beta`` where it counts.

    >>> told(Score("log_ratio", 0.5))
    {'score': 'log_ratio', 'beta': 0.5}
    """
    if isinstance(ranker, Objective) and ranker.reads == "score":
        return {"score": "reward"}
    if isinstance(ranker, Score):
        scaled = ranker.name == "log_ratio"
        return {"score": ranker.name, **({"beta": ranker.beta} if scaled else {})}
    name = str(getattr(ranker, "score", "log_likelihood"))
    if REFERENCE in ranker.columns:
        name = {"log_likelihood": "log_ratio", "mean_log_likelihood": "mean_log_ratio"}[name]
    beta = getattr(ranker, "beta", None)
    return {"score": name, **({} if beta is None else {"beta": beta})}


@dataclass(frozen=True, slots=True)
class Scored:
    """What the model says of a row."""

    tokens: int
    """Learnt tokens of the first answer."""
    nll: float | None
    """Its negative log-likelihood, in nats; None of a reward model, which has none."""
    scores: tuple[float, ...]
    """Of every answer; none where no row has a second one."""
    loss: float | None
    """The method's own term, where the row has a pair and the method learns from pairs."""


def score_rows(
    model: Reader,
    groups: Sequence[Group],
    ranker: Ranker,
    objective: Objective | None = None,
    world: World | None = None,
) -> list[Scored]:
    """Run a model once over all answers, on each rank over its share of the rows.

    Args:
        model: a policy or a scorer.
        groups: rows, each with at least one answer; the same on every rank.
        ranker: says how answers are ranked.
        objective: the method, of which the loss on pairs is found; None = no method's.
        world: the ranks; None = there are no others.
    """
    world = world or OneProcess()
    compares = any(len(group.answers) > 1 for group in groups)
    learns = objective if objective is not None and objective.kind == "preferences" else None
    columns = columns_of(ranker) | (learns.columns if learns else frozenset()) if compares else ()
    likelihoods = objective is None or objective.reads == "logp"
    mine, found = world.mine(groups), list[Scored]()
    for start in range(0, -(-len(groups) // world.size), CHUNK):  # equally often on every rank
        part = mine[start : start + CHUNK]
        batch = collate(part, sorted(columns))
        values = model.without_graph(batch).double().cpu()
        totals = answer_sum(-values, batch.mask)[:, 0].tolist()
        tokens = batch.mask[:, 0].sum(-1).tolist()
        scores = ranker.scores(values, batch).tolist() if compares else [()] * len(part)
        terms = learns.loss(values, batch).terms.tolist() if learns and compares and part else []
        for i, group in enumerate(part):
            k = len(group.answers)
            nll = totals[i] if likelihoods else None
            loss = terms[i] if terms and k > 1 else None
            found.append(Scored(tokens[i], nll, tuple(scores[i][:k]), loss))
    return world.joined(found)
