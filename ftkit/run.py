"""The composition root: from a recipe to the parts of a run; alone in knowing every part."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ftkit.core.errors import user_error
from ftkit.data.load import load_datasets
from ftkit.data.order import Order
from ftkit.data.pool import Pool, check_identity, is_pool
from ftkit.data.provenance import pool_to_learn_from, pool_to_measure
from ftkit.model.fingerprint import reference_fingerprint
from ftkit.model.load import check_positions, load_policy, load_scorer
from ftkit.model.quantize import check_installed
from ftkit.model.tokenizer import load_tokenizer
from ftkit.objectives import DFT, DPO, DisCO
from ftkit.parallel.world import OneProcess, World
from ftkit.recipe.rules import RANKED, RANKED_AMONG_SEVERAL
from ftkit.run_data import Data
from ftkit.run_evaluation import build_evaluation, referenced
from ftkit.run_rollouts import build_rollouts, frozen_reference, steps_of
from ftkit.run_updates import build_critic, build_update, shares_weights
from ftkit.sources.given import Given
from ftkit.sources.pool import Pooled
from ftkit.train.checkpoint import Checkpoints
from ftkit.train.evaluation import is_asked_only
from ftkit.train.loop import CARRY, Loop
from ftkit.train.memory import Memory
from ftkit.train.schedule import learning_rate
from ftkit.train.score import REFERENCE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ftkit.core.source import Source
    from ftkit.data.dataset import Dataset, Datasets
    from ftkit.model.reader import Reader
    from ftkit.recipe import Recipe
    from ftkit.samplers.vllm.base import Engine
    from ftkit.sources.asking import Look
    from ftkit.train.critic import Critic
    from ftkit.train.interrupt import Interrupt
    from ftkit.train.monitor import Display, Journal, Silent
    from ftkit.verifiers.judge import WeightedSum


def read_data(recipe: Recipe) -> Data:
    """Read, tokenize and order the data.

    Raises:
        UserError: if rows cannot be read, or nothing is left to train on (PITFALLS 10).
    """
    check_installed(recipe.model)
    tokenizer = load_tokenizer(recipe.model)
    sets, held_out = read_sets(recipe, tokenizer)
    order = Order([len(s) for s, _ in sets.train], [w for _, w in sets.train], recipe.seed)
    train, epochs = recipe.train, recipe.train.epochs or 1.0
    rows = None if train.steps is not None else order.rows(epochs)
    steps = train.steps or order.steps(epochs, train.prompts)
    if recipe.method.kind == "rollouts" and rows is not None:
        steps = steps_of(recipe, rows)
    if train.warmup > steps:
        raise user_error(
            "train.warmup",
            f"{train.warmup:g} steps, and the whole run has {steps}",
            "write fewer, or a share of all steps below 1",
        )
    pool, warnings = None, list(recipe.method.remarks())
    if isinstance(method := recipe.method, DFT):
        pool, said = pool_to_learn_from(
            str(recipe.data.pool),
            tokenizer,
            (group.id for one, _ in sets.train for group in one),
            needs="" if method.denominator == "none" else method.denominator,
            negatives=method.negatives,
        )
        warnings += said
    once = train.updates * train.rollout_epochs == 1
    if isinstance(method, DisCO) and method.trust == "constraint" and once:
        warnings.append(
            "with one update a rollout the policy is the one that sampled, the KL is 0, and the "
            "constraint never acts: write train.updates: 2 or more, or method.trust: none"
        )
    _check_measures(recipe, sets.eval, held_out)
    return Data(tokenizer, sets, order, rows, steps, pool, held_out, warnings)


def _check_measures(recipe: Recipe, held_out: Dataset | None, pool: Pool | None) -> None:
    """Refuse measures that the held-out rows will not have, before anything is trained."""
    several = pool is not None and int(pool.sizes.max(initial=0)) > 1
    compares = pool is not None or recipe.method.kind == "preferences"
    asked = held_out is not None and len(held_out) and is_asked_only(held_out[0])
    for name in {*recipe.train.until, str(recipe.checkpoint.best)}:
        if asked and name in {"eval.loss", "eval.perplexity"}:
            raise user_error(
                name,
                "the held-out rows are prompts without answers, which have no likelihood",
                "write another measure, such as eval.exact_match",
            )
        ranks, spreads = name in RANKED, name in RANKED_AMONG_SEVERAL
        if (ranks and not compares) or (spreads and not several):
            what = "several negatives of a prompt" if spreads else "pairs of answers"
            raise user_error(
                name,
                f"the held-out rows have no {what} to be ranked",
                "write data.eval: POOL (ftkit gen-negatives RECIPE --held-out POOL)",
            )


def read_sets(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> tuple[Datasets, Pool | None]:
    """Read the rows, and the held-out ones where they are a pool.

    Raises:
        UserError: if they cannot be read, or the pool is of another tokenizer or template.
    """
    config, pool = recipe.data, None
    if isinstance(config.eval, str) and is_pool(config.eval):
        pool = config.eval
        config = config.model_copy(update={"eval": None})
    sets = load_datasets(config, recipe.method.kind, tokenizer, recipe.seed)
    return sets, None if pool is None else pool_to_measure(pool, tokenizer)


def set_up_torch(recipe: Recipe) -> None:
    """Apply the recipe's process-wide settings."""
    if recipe.train.threads is not None:
        torch.set_num_threads(recipe.train.threads)
    torch.set_float32_matmul_precision(recipe.train.matmul)


def build_policy(recipe: Recipe, data: Data, world: World | None = None) -> Reader:
    """Load the policy, or the reward model.

    Args:
        recipe: of the run.
        data: what it reads.
        world: the ranks, where weights may be shared: they stay on the host until then; None =
            there are no others.

    Raises:
        UserError: if there is no such model, rows are longer than it can read, or the pool is of
            another model.
    """
    load = load_policy if recipe.method.reads == "logp" else load_scorer
    policy: Reader = load(
        recipe.model,
        data.tokenizer,
        micro_tokens=recipe.train.micro_tokens,
        seed=recipe.seed,
        device=torch.device("cpu") if shares_weights(recipe, world or OneProcess()) else None,
    )
    rows = (data.sets.eval, data.pool, data.held_out_pool, *(one for one, _ in data.sets.train))
    longest = max(int(each.lengths.max()) for each in rows if each is not None)
    check_positions(policy.model, longest)
    if data.pool is not None:
        mine = {"model": model_identity(recipe, policy)}
        check_identity(str(data.pool.folder), data.pool.about, mine)
    return policy


def model_identity(recipe: Recipe, policy: Reader) -> dict[str, Any]:
    """Return what a pool says of the model that wrote it; before training."""
    config = recipe.model
    return {
        "path": config.path,
        "revision": config.revision,
        "dtype": config.dtype,
        "quantize": config.quantize,
        "fingerprint": reference_fingerprint(policy),
    }


def build_source(
    recipe: Recipe,
    data: Data,
    policy: Reader,
    *,
    world: World,
    judge: WeightedSum | None,
    frozen: Look | None,
    critic: Critic | None,
    engine: Engine | None,
) -> Source:
    """Return where the groups of each step come from."""
    sets, prompts = [s for s, _ in data.sets.train], recipe.train.prompts
    if recipe.method.kind == "rollouts":
        assert judge is not None
        return build_rollouts(
            recipe,
            data,
            policy,
            world=world,
            judge=judge,
            frozen=frozen,
            critic=critic,
            engine=engine,
        )
    if data.pool is not None:
        assert isinstance(recipe.method, DFT)
        negatives = recipe.method.negatives
        return Pooled(sets, data.pool, data.order, prompts, negatives, world, data.rows)
    method = recipe.method
    wanted = {REFERENCE: method.reference} if isinstance(method, DPO) else {}
    wanted = {column: name for column, name in wanted.items() if column in method.columns}
    known = referenced(recipe, sets, policy, wanted, world)
    return Given(known, data.order, prompts, world, data.rows)


def temperature_of(recipe: Recipe) -> float:
    """Return the temperature of the policy that is learnt: that of its samples (LAWS T8)."""
    online = recipe.method.kind == "rollouts" and recipe.sample is not None
    return recipe.sample.temperature if online and recipe.sample else 1.0


def build_loop(
    recipe: Recipe,
    data: Data,
    policy: Reader,
    *,
    judge: WeightedSum | None,
    engine: Engine | None,
    journal: Journal | Silent,
    display: Display,
    interrupt: Interrupt,
    world: World | None = None,
) -> Loop:
    """Tie the parts as the recipe says."""
    world, config = world or OneProcess(), recipe.train
    belongs = {"data": data.sets.fingerprint}
    if data.pool is not None:
        belongs["pool"] = data.pool.fingerprint
    critic, frozen = build_critic(recipe, policy), frozen_reference(recipe, policy, world)
    learner, update = build_update(recipe, policy, critic, world, temperature_of(recipe))
    return Loop(
        source=build_source(
            recipe,
            data,
            policy,
            world=world,
            judge=judge,
            frozen=frozen,
            critic=critic,
            engine=engine,
        ),
        learner=learner,
        optimizer=update,
        rate=partial(
            learning_rate,
            steps=data.steps,
            lr=config.lr,
            shape=config.schedule,
            warmup=config.warmup,
            min_lr=config.min_lr,
        ),
        steps=data.steps,
        evaluate=build_evaluation(recipe, data, policy, judge=judge, engine=engine, world=world),
        checkpoints=Checkpoints(Path(recipe.run) / "checkpoints", recipe.checkpoint.keep, world),
        journal=journal,
        display=display,
        interrupt=interrupt,
        world=world,
        train=config,
        eval=recipe.eval,
        checkpoint=recipe.checkpoint,
        memory=Memory(world) if CARRY in recipe.method.columns else None,
        belongs=belongs,
    )
