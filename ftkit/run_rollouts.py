"""The parts of a run whose answers the policy samples: who writes, who judges, what is kept."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from ftkit.core.errors import user_error
from ftkit.data.truth import with_truth
from ftkit.model.policy import Policy
from ftkit.model.reference import adapters_off, is_base_of
from ftkit.objectives import GRPO, PPO, DisCO
from ftkit.parallel.world import OneProcess
from ftkit.run_updates import freeze, shares_weights
from ftkit.samplers.make import open_engine, sampler_of
from ftkit.sources.asking import Asking
from ftkit.sources.rollouts import Rollouts
from ftkit.train.answers import held_out_sampling
from ftkit.train.critic import Advantages
from ftkit.verifiers.judge import build_judge
from ftkit.verifiers.trial import ErrorRate, self_test

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.core.batch import Batch
    from ftkit.core.group import Group
    from ftkit.data.dataset import Dataset
    from ftkit.model.reader import Reader
    from ftkit.parallel.world import World
    from ftkit.recipe import Recipe
    from ftkit.run_data import Data
    from ftkit.samplers.vllm.base import Engine
    from ftkit.sources.asking import Finish, Look
    from ftkit.train.critic import Critic
    from ftkit.verifiers.config import OneVerify
    from ftkit.verifiers.judge import WeightedSum

GOLDS = 64
"""So many truths of each data set the verifier is tried on before a run."""
BAD_GOLDS = 0.05
"""The share of them that it may fail on."""
NEED_TRUTH = frozenset({"exact", "numeric", "math", "proof"})
"""Verifiers that compare answers with a truth; with ``gold``, python and http do so, too."""

log = logging.getLogger("ftkit")


@dataclass(frozen=True)
class Asked:
    """Rows with what a verifier compares answers with, from the demonstration if from nowhere."""

    rows: Dataset
    tokenizer: object
    stop: Sequence[int]

    def __getitem__(self, row: int) -> Group:
        """Return one."""
        return with_truth(self.rows[row], self.tokenizer, self.stop)


def steps_of(recipe: Recipe, rows: int) -> int:
    """Return how many steps learn from rollouts on so many prompts."""
    config = recipe.train
    rollouts = -(-rows // (config.prompts * config.updates))
    return rollouts * config.updates * config.rollout_epochs


class Outside(NamedTuple):
    """What a run asks beside its policy."""

    judge: WeightedSum | None
    """Who judges answers; None = nobody."""
    engine: Engine | None
    """The vLLM that writes them; None = the embedded sampler does."""


@contextmanager
def outside_of(recipe: Recipe, policy: Reader, world: World | None = None) -> Iterator[Outside]:
    """Hold what a recipe asks beside the policy.

    Args:
        recipe: of the run.
        policy: whose answers are judged.
        world: the ranks that ask; None = there are no others.

    Raises:
        UserError: if a verifier or a vLLM is of no use.
    """
    if recipe.verify is None:
        yield Outside(None, None)
        return
    own = policy if isinstance(policy, Policy) else None
    with closing(build_judge(recipe.verify, policy=own)) as judge:
        sample = held_out_sampling(recipe.method, recipe.sample)
        if sample is None or own is None:
            yield Outside(judge, None)
            return
        longest = recipe.data.max_length + sample.max_tokens
        engine = open_engine(
            sample, own, longest=longest, run=recipe.run, world=world or OneProcess()
        )
        with closing(engine) if engine else nullcontext():
            yield Outside(judge, engine)


def build_rollouts(
    recipe: Recipe,
    data: Data,
    policy: Reader,
    *,
    world: World,
    judge: WeightedSum,
    frozen: Look | None = None,
    critic: Critic | None = None,
    engine: Engine | None = None,
) -> Rollouts:
    """Return the source of a method that learns from rollouts.

    Args:
        recipe: of the run.
        data: what it reads.
        policy: who answers.
        world: the ranks among which prompts are dealt.
        judge: who judges answers.
        frozen: log-probabilities under the model before training, where the method reads them.
        critic: who says what states are worth, where the method has one.
        engine: the vLLM that writes answers; None = the embedded sampler.

    Raises:
        UserError: if rows have no truth, or the verifier fails on truths of theirs.
    """
    sample, method, config = recipe.sample, recipe.method, recipe.train
    assert sample is not None and isinstance(policy, Policy)
    sets = [Asked(one, data.tokenizer, data.stop) for one, _ in data.sets.train]
    check_truths(sets, judge)
    looks, finish = _looks(recipe, frozen, critic, world)
    asking = Asking(
        policy=policy,
        world=world,
        sampler=sampler_of(policy, sample, data.stop, engine),
        judge=judge,
        answers=sample.answers,
        temperature=sample.temperature,
        seed=recipe.seed,
        keeps_old=config.updates * config.rollout_epochs > 1
        or (isinstance(method, PPO) and method.rewards_kl),
        binary=isinstance(method, DisCO) and method.threshold is None,
        looks=looks,
        finish=finish,
        watch=ErrorRate().add,
    )
    return Rollouts(
        sets=sets,
        order=data.order,
        prompts=config.prompts,
        world=world,
        asking=asking,
        updates=config.updates,
        epochs=config.rollout_epochs,
        drop=isinstance(method, GRPO) and method.drop,
        refill=method.refill if isinstance(method, GRPO) else 0,
        logged=sample.logged,
    )


def _looks(
    recipe: Recipe, frozen: Look | None, critic: Critic | None, world: World
) -> tuple[dict[str, Look], Finish | None]:
    """Return what to find of each token before it is learnt from, and what is made of that."""
    looks: dict[str, Look] = {} if frozen is None else {"reference": frozen}
    if critic is None:
        return looks, None
    assert isinstance(recipe.method, PPO)
    looks["value"] = critic.without_graph
    return looks, Advantages(critic, recipe.method, world)


def check_truths(sets: Sequence[Asked], judge: WeightedSum) -> None:
    """Refuse rows without truth, and a verifier that does not know right answers (PITFALLS 32).

    Raises:
        UserError: that counts and names them.
    """
    if not any(_needs_truth(part.config) for part in judge.parts):
        return
    rows = [one[i] for one in sets for i in range(min(len(one.rows), GOLDS))]
    lacking = [group for group in rows if group.truth is None]
    if lacking:
        raise user_error(
            "data.train",
            f"{len(lacking)} of the first {len(rows)} rows have no truth to judge answers by, such "
            f"as {lacking[0].prompt_text[:60]!r} ({lacking[0].source})",
            "map it, as in `columns: {prompt: question, truth: answer}`",
        )
    tried = self_test(judge, [str(group.truth) for group in rows])
    if tried.share > BAD_GOLDS:
        raise user_error("verify", str(tried), "take another verifier, or mend the column truth")
    if tried.failures:
        log.warning("verify: %s", tried)


def _needs_truth(config: OneVerify) -> bool:
    return config.name in NEED_TRUTH or getattr(config, "gold", None) is not None


def frozen_reference(recipe: Recipe, policy: Reader, world: World) -> Look | None:
    """Return log-probabilities under the model as it is now, before training.

    To be called before an engine takes the policy's weights.  None where the method reads none.
    """
    if recipe.method.kind != "rollouts" or not recipe.method.keeps_reference:
        return None
    assert isinstance(policy, Policy)
    return _reference(recipe, policy, world)


def _reference(recipe: Recipe, policy: Policy, world: World) -> Look:
    if is_base_of(recipe.model, policy):

        def without_adapters(batch: Batch) -> Tensor:
            with adapters_off(policy):
                return policy.without_graph(batch)

        return without_adapters
    frozen = copy.copy(policy)
    shared = policy.model.parameters() if shares_weights(recipe, world) else ()
    same = {id(weight): nn.Parameter(weight.data, requires_grad=False) for weight in shared}
    frozen.model = copy.deepcopy(policy.model, same).requires_grad_(requires_grad=False)
    freeze(recipe, frozen, world)

    def under_frozen(batch: Batch) -> Tensor:
        with frozen.at(policy.temperature):
            return frozen.without_graph(batch)

    return under_frozen
