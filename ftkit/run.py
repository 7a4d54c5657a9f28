"""The composition root: from a recipe to the parts of a run; alone in knowing every part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ftkit.core.errors import user_error
from ftkit.data.load import load_datasets
from ftkit.data.order import Order
from ftkit.data.template import stop_tokens
from ftkit.model.load import check_positions, load_policy
from ftkit.model.tokenizer import load_tokenizer
from ftkit.parallel.world import OneProcess, World
from ftkit.sources.given import Given
from ftkit.train.checkpoint import Checkpoints
from ftkit.train.evaluation import Measures, evaluate
from ftkit.train.learner import Learner
from ftkit.train.loop import Loop
from ftkit.train.optimizer import Optimizer
from ftkit.train.schedule import learning_rate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ftkit.data.dataset import Datasets
    from ftkit.model.policy import Policy
    from ftkit.recipe import Recipe
    from ftkit.train.interrupt import Interrupt
    from ftkit.train.monitor import Display, Journal


@dataclass(frozen=True)
class Data:
    """What a run reads, ready before any model is loaded."""

    tokenizer: PreTrainedTokenizerBase
    sets: Datasets
    order: Order
    rows: int | None
    """Rows that the run sees; None where it counts steps."""
    steps: int

    @property
    def stop(self) -> list[int]:
        """Token ids at which an answer ends."""
        return stop_tokens(self.tokenizer)


def read_data(recipe: Recipe) -> Data:
    """Read, tokenize and order the data.

    Raises:
        UserError: if rows cannot be read, or nothing is left to train on (PITFALLS 10).
    """
    tokenizer = load_tokenizer(recipe.model)
    sets = load_datasets(recipe.data, recipe.method.kind, tokenizer, recipe.seed)
    order = Order([len(s) for s, _ in sets.train], [w for _, w in sets.train], recipe.seed)
    train, epochs = recipe.train, recipe.train.epochs or 1.0
    if train.steps is not None:
        return Data(tokenizer, sets, order, None, train.steps)
    steps = order.steps(epochs, train.prompts)
    if train.warmup > steps:
        raise user_error(
            "train.warmup",
            f"{train.warmup:g} steps, and the whole run has {steps}",
            "write fewer, or a share of all steps below 1",
        )
    return Data(tokenizer, sets, order, order.rows(epochs), steps)


def set_up_torch(recipe: Recipe) -> None:
    """Apply the recipe's process-wide settings."""
    if recipe.train.threads is not None:
        torch.set_num_threads(recipe.train.threads)
    torch.set_float32_matmul_precision(recipe.train.matmul)


def build_policy(recipe: Recipe, data: Data) -> Policy:
    """Load the policy.

    Raises:
        UserError: if there is no such model, or rows are longer than it can read.
    """
    policy = load_policy(
        recipe.model, data.tokenizer, micro_tokens=recipe.train.micro_tokens, seed=recipe.seed
    )
    sets = [one for one, _ in data.sets.train] + ([data.sets.eval] if data.sets.eval else [])
    longest = max(int(one.lengths.max()) for one in sets)
    check_positions(policy.model, longest)
    return policy


def build_evaluation(recipe: Recipe, data: Data, policy: Policy) -> partial[Measures] | None:
    """Return what measures the held-out rows; None if there are none."""
    if data.sets.eval is None:
        return None
    return partial(
        evaluate,
        policy,
        data.sets.eval,
        limit=recipe.eval.limit,
        sample=recipe.sample,
        verify=recipe.verify,
        stop=data.stop,
        seed=recipe.seed,
    )


def build_loop(
    recipe: Recipe,
    data: Data,
    policy: Policy,
    *,
    journal: Journal,
    display: Display,
    interrupt: Interrupt,
) -> Loop:
    """Tie the parts as the recipe says."""
    world: World = OneProcess()
    config = recipe.train
    sets = [s for s, _ in data.sets.train]
    source = Given(sets, data.order, config.prompts, world, data.rows)
    return Loop(
        groups=source.groups,
        learner=Learner(policy, recipe.method, world),
        optimizer=Optimizer(policy.model, config),
        rate=partial(
            learning_rate,
            steps=data.steps,
            lr=config.lr,
            shape=config.schedule,
            warmup=config.warmup,
            min_lr=config.min_lr,
        ),
        steps=data.steps,
        evaluate=build_evaluation(recipe, data, policy),
        checkpoints=Checkpoints(Path(recipe.run) / "checkpoints", recipe.checkpoint.keep),
        journal=journal,
        display=display,
        interrupt=interrupt,
        train=config,
        eval=recipe.eval,
        checkpoint=recipe.checkpoint,
        belongs={"data": data.sets.fingerprint},
    )
