"""What a run measures of its held-out rows, and what references say of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ftkit.model.fingerprint import reference_fingerprint
from ftkit.model.policy import Policy
from ftkit.model.reference import load_reference
from ftkit.parallel.world import OneProcess
from ftkit.run_updates import freeze, shares_weights
from ftkit.train.answers import held_out_sampling
from ftkit.train.evaluation import Measures, evaluate
from ftkit.train.reference import with_reference
from ftkit.train.score import ranker_of, references_of

if TYPE_CHECKING:
    from ftkit.model.reader import Reader
    from ftkit.parallel.world import World
    from ftkit.recipe import Recipe
    from ftkit.run_data import Data
    from ftkit.samplers.vllm.base import Engine
    from ftkit.verifiers.judge import WeightedSum


def referenced(
    recipe: Recipe,
    rows: Sequence[Any],
    policy: Reader,
    wanted: Mapping[str, str],
    world: World | None = None,
) -> list[Any]:
    """Return row sets whose answers know their log-probability under references.

    Args:
        recipe: of the run.
        rows: sets of rows.
        policy: before training, when it is the initial model.
        wanted: for each column that is to be known, ``initial`` or the path of another model, which
            is dropped as soon as every row has been seen.
        world: the ranks, each of which sees its share; None = there are no others.
    """
    world, found = world or OneProcess(), list(rows)
    for column, name in wanted.items():
        assert isinstance(policy, Policy)
        reference = policy
        if name != "initial":
            device = torch.device("cpu") if shares_weights(recipe, world) else None
            reference = load_reference(
                name, recipe.model, policy.tokenizer, policy.micro_tokens, device
            )
        with reference.placement.whole():
            weights = reference_fingerprint(reference)
        if reference is not policy:
            freeze(recipe, reference, world)
        known = (with_reference(each, reference, weights, world) for each in found)
        found = [replace(each, known_as=column.removeprefix("logp_")) for each in known]
    return found


def build_evaluation(
    recipe: Recipe,
    data: Data,
    policy: Reader,
    *,
    judge: WeightedSum | None,
    engine: Engine | None = None,
    world: World | None = None,
) -> partial[Measures] | None:
    """Return what measures the held-out rows; None if there are none."""
    held_out = data.held_out_pool or data.sets.eval
    if held_out is None:
        return None
    compares = data.held_out_pool is not None or recipe.method.kind == "preferences"
    wanted = references_of(recipe.eval, recipe.method) if compares else {}
    return partial(
        evaluate,
        policy,
        *referenced(recipe, [held_out], policy, wanted, world),
        objective=recipe.method,
        ranker=ranker_of(recipe.eval, recipe.method),
        limit=recipe.eval.limit,
        sample=held_out_sampling(recipe.method, recipe.sample),
        judge=judge,
        stop=data.stop,
        seed=recipe.seed,
        engine=engine,
        world=world,
    )
