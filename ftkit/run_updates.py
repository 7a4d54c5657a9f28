"""The parts of a run that change weights: a learner, an update, and of some methods a critic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from ftkit.core.errors import Fault, UserError, user_error
from ftkit.model.load import load_scorer
from ftkit.model.reader import bare
from ftkit.model.scalar import head_of
from ftkit.model.tokenizer import TOKENIZER_FILES, load_tokenizer
from ftkit.objectives import PPO, TRPO
from ftkit.objectives.value import Value
from ftkit.parallel.zero import Zero
from ftkit.parallel.zero_config import SHARED_WEIGHTS, stage_of, zero_config
from ftkit.recipe.files import is_path
from ftkit.train.actor_critic import ActorCritic, BothOptimizers
from ftkit.train.critic import Critic
from ftkit.train.learner import Learner
from ftkit.train.optimizer import Optimizer, Update, build_optimizer
from ftkit.train.trust_region import TrustRegion

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.model.config import ModelConfig
    from ftkit.model.reader import Reader
    from ftkit.parallel.config import Stage
    from ftkit.parallel.world import World
    from ftkit.recipe import Recipe
    from ftkit.train.config import TrainConfig


def build_critic(recipe: Recipe, policy: Reader) -> Critic | None:
    """Return the critic, before anything is learnt; None where the method has none.

    Raises:
        UserError: if it cannot be loaded, or reads other tokens than the policy.
    """
    method = recipe.method
    if not isinstance(method, PPO):
        return None
    if method.critic == "shared":
        width = bare(policy.model).get_input_embeddings().weight.shape[1]
        width = getattr(policy.model.config.get_text_config(), "hidden_size", width)
        head = _cleared(nn.Linear(width, 1, bias=False).to(policy.device))
        return Critic(policy.model, policy.tokenizer, policy.micro_tokens, policy.way, head)
    try:
        scorer = load_scorer(
            _critics_model(recipe.model, method, policy),
            policy.tokenizer,
            micro_tokens=recipe.train.micro_tokens,
            seed=recipe.seed,
            device=policy.device,
        )
    except UserError as error:
        if method.critic_path is None:
            raise
        moved = [Fault("method.critic_path", each.found, each.remedy) for each in error.faults]
        raise UserError(moved) from None
    head = head_of(bare(scorer.model))
    if method.critic_path is None:
        _cleared(head)
    return Critic(scorer.model, scorer.tokenizer, scorer.micro_tokens, scorer.way, head)


def build_update(
    recipe: Recipe, policy: Reader, critic: Critic | None, world: World, temperature: float
) -> tuple[Learner, Update]:
    """Return what finds gradients, and what changes weights by them.

    Args:
        recipe: of the run.
        policy: what learns, or a reward model.
        critic: what ``build_critic`` returned.
        world: the ranks among which batches are dealt.
        temperature: of the policy that is learnt.
    """
    method, config = recipe.method, recipe.train
    if isinstance(method, TRPO):
        learner = TrustRegion(policy, method, world, temperature)
        return learner, learner
    if critic is None:
        update = _update(recipe, [policy], policy.model, world, config)
        return Learner(policy, method, world, temperature), update
    assert isinstance(method, PPO)
    shared = method.critic == "shared"
    value = Value(clip=method.clip_value, coef=method.value_coef if shared else 1.0)
    values = Learner(critic, value, world)
    both = ActorCritic(policy, method, world, temperature, critic=values)
    if shared:
        assert critic.head is not None
        whole = nn.ModuleDict({"policy": policy.model, "critic": critic.head})
        return both, _update(recipe, [policy, critic], whole, world, config)
    rate = method.critic_lr or config.lr
    own = config.model_copy(update={"lr": rate})
    updates = BothOptimizers(
        _update(recipe, [policy], policy.model, world, config),
        _update(recipe, [critic], critic.model, world, own),
        rate / config.lr,
    )
    return both, updates


def _update(
    recipe: Recipe,
    readers: Sequence[Reader],
    trained: nn.Module,
    world: World,
    config: TrainConfig,
) -> Update:
    """Return what updates weights that readers share, by an engine where the recipe needs one.

    Args:
        recipe: of the run.
        readers: who read with these weights; an engine becomes their placement.
        trained: holds what is trained, under the names of checkpoints.
        world: the ranks.
        config: which optimizer, and its constants.
    """
    stage = stage_of(recipe.parallel, world.size)
    if stage == 0:
        return Optimizer(trained, config, world)
    weights = {n: p for n, p in trained.named_parameters() if p.requires_grad}
    optimizer = partial(build_optimizer, config=config)
    return _engine(recipe, readers, world, stage, weights=weights, optimizer=optimizer)


def shares_weights(recipe: Recipe, world: World) -> bool:
    """Whether each rank holds a share of the weights alone: they stay on the host until then."""
    trpo = isinstance(recipe.method, TRPO)
    return stage_of(recipe.parallel, world.size, trpo=trpo) == SHARED_WEIGHTS


def freeze(recipe: Recipe, reader: Reader, world: World) -> Reader:
    """Share the weights of a frozen model among the ranks, where those of the policy are."""
    if shares_weights(recipe, world):
        _engine(recipe, [reader], world, SHARED_WEIGHTS)
    return reader


def _engine(
    recipe: Recipe,
    readers: Sequence[Reader],
    world: World,
    stage: Stage,
    *,
    weights: Mapping[str, nn.Parameter] | None = None,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer] | None = None,
) -> Zero:
    modules = {
        f"{name}{i or ''}": module
        for i, reader in enumerate(readers)
        for name, module in reader.modules().items()
        if not (i and name == "model")  # it is the first one's
    }
    settings = zero_config(
        recipe.parallel,
        stage,
        bfloat16=recipe.model.dtype == "bfloat16",
        clip=recipe.train.max_grad_norm,
        gpu=torch.cuda.is_available(),
    )
    zero = Zero(modules, weights or {}, optimizer, settings, world)
    for reader in readers:
        reader.placement = zero
    return zero


def _critics_model(model: ModelConfig, method: PPO, policy: Reader) -> ModelConfig:
    """Return the ``model:`` of the critic: the policy's, or that of another folder."""
    path = method.critic_path
    if path is None:
        return model
    own = {"path": path, "init": None, "revision": None, "tokenizer": None}
    config = model.model_copy(update=own)
    if not is_path(path) or _has_tokenizer(path):
        theirs = load_tokenizer(config).get_vocab()
        mine = policy.tokenizer.get_vocab()
        pad = policy.tokenizer.pad_token  # nobody writes it: saving a reward model may add it
        if any(theirs.get(token) != at for token, at in mine.items() if token != pad):
            raise user_error(
                "method.critic_path",
                f"the tokenizer of {path} is not the policy's",
                "take a critic from the same base",
            )
    return config


def _has_tokenizer(path: str) -> bool:
    from pathlib import Path

    folder = Path(path).expanduser()
    return any((folder / file).exists() for file in TOKENIZER_FILES)


@torch.no_grad()
def _cleared(head: nn.Linear) -> nn.Linear:
    """Set a new head to 0, so that the first values are."""
    for weight in head.parameters():
        weight.zero_()
    return head
