"""The models of a run, without their weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

from ftkit.core.errors import Fault, UserError
from ftkit.model.config import ModelConfig
from ftkit.model.skeleton import skeleton
from ftkit.model.weights import SCALAR, TOKENS, Kind
from ftkit.objectives import PPO
from ftkit.plan.body import Held, Passing, held
from ftkit.plan.facts import Facts, facts_of
from ftkit.verifiers.check import listed
from ftkit.verifiers.config import ModelJudgeConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ftkit.recipe import Recipe


@dataclass
class Model:
    """A skeleton, its sizes, and what tokens hold in it."""

    skeleton: PreTrainedModel
    attention: str
    """The recipe's ``model.attention``."""
    _known: dict[tuple[Passing, str], Held] = field(default_factory=dict)

    @cached_property
    def facts(self) -> Facts:
        """Its sizes."""
        return facts_of(self.skeleton, self.attention)

    def held(self, passing: Passing, device: str) -> Held:
        """Return what tokens hold in its body on a device, ``cpu`` or ``cuda``.

        Raises:
            UserError: if its architecture cannot be run without memory.
        """
        key = passing, device
        if key not in self._known:
            segments = self.facts.streams
            fused = segments and device == "cpu"
            self._known[key] = held(self.skeleton, passing, fused=fused, segments=segments)
        return self._known[key]


@dataclass
class Shelf:
    """Models that were made, so that plans of similar recipes share them."""

    tokenizer: PreTrainedTokenizerBase
    _made: dict[str, Model] = field(default_factory=dict)

    def take(self, config: ModelConfig, kind: Kind, *, trains: bool) -> Model:
        """Return a model, made if it is not there yet.

        Args:
            config: which.
            kind: whether it says tokens or a number.
            trains: whether it is trained, with the adapters and the checkpointing of ``config``.

        Raises:
            UserError: if there is no such model.
        """
        key = f"{config.model_dump_json()} {kind.task} {trains}"
        if key not in self._made:
            model = skeleton(config, self.tokenizer, kind, adapters=trains).train(trains)
            if config.checkpointing and trains:
                how = {"use_reentrant": False}
                model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)
            self._made[key] = Model(model, config.attention)
        return self._made[key]


@dataclass(frozen=True)
class Models:
    """Those of a recipe."""

    policy: Model
    """Or the reward model that is trained."""
    critic: Model | None
    """Of its own; None = there is none, or it is a head on the policy."""
    reference: Model | None
    """Held beside the policy while it learns."""
    beforehand: tuple[Model, ...]
    """References that are asked before it learns, one after the other, and dropped."""
    judges: tuple[Model, ...]
    """Reward models of ``verify``."""


def models_of(recipe: Recipe, shelf: Shelf) -> Models:
    """Return the models of a recipe.

    Args:
        recipe: of the run.
        shelf: of its tokenizer.

    Raises:
        UserError: if there is no such model, with the key that names it.
    """
    config, method = recipe.model, recipe.method
    kind = TOKENS if method.reads == "logp" else SCALAR
    policy = shelf.take(config, kind, trains=True)
    critic = None
    if isinstance(method, PPO) and method.critic == "own":
        path = method.critic_path
        own = config if path is None else _other(config, path)
        critic = _at("method.critic_path", path, partial(shelf.take, own, SCALAR, trains=True))
    before = _beforehand(recipe, shelf)
    return Models(policy, critic, _frozen(recipe, policy), before, _judges(recipe, shelf))


def _beforehand(recipe: Recipe, shelf: Shelf) -> tuple[Model, ...]:
    """Return the references that are other models, of dpo's loss and of the evaluation."""
    named = {
        "method.reference": getattr(recipe.method, "reference", None),
        "eval.reference": recipe.eval.reference,
    }
    found = []
    for key, path in named.items():
        if path not in {None, "none", "initial"}:
            config = _other(recipe.model, str(path))
            take = partial(shelf.take, config, TOKENS, trains=False)
            found.append(_at(key, path, take))
    return tuple(found)


def _frozen(recipe: Recipe, policy: Model) -> Model | None:
    """Return the copy of the policy that a run keeps (``run_rollouts``); None where it needs none.

    A policy with new adapters is its own reference with them off.
    """
    kept = recipe.method.kind == "rollouts" and recipe.method.keeps_reference
    return policy if kept and not _is_new(recipe.model) else None


def _is_new(config: ModelConfig) -> bool:
    """Whether adapters are trained that are new on their base."""
    from pathlib import Path

    folder = Path(str(config.path)).expanduser()
    return config.lora is not None and not (folder / "adapter_config.json").is_file()


def _judges(recipe: Recipe, shelf: Shelf) -> tuple[Model, ...]:
    found = []
    for each in listed(recipe.verify) if recipe.verify is not None else ():
        if isinstance(each, ModelJudgeConfig):
            config = ModelConfig(path=each.path, dtype=each.dtype)
            take = partial(shelf.take, config, SCALAR, trains=False)
            found.append(_at("verify", each.path, take))
    return tuple(found)


def _other(config: ModelConfig, path: str) -> ModelConfig:
    """Return the ``model:`` of another folder that is loaded in the same way."""
    own = {"path": path, "init": None, "revision": None, "tokenizer": None}
    return config.model_copy(update=own)


def _at(key: str, path: str | None, take: Callable[[], Model]) -> Model:
    """Return a model; what is wrong with it is said of the key that names it."""
    try:
        return take()
    except UserError as error:
        if path is None:
            raise
        moved = [Fault(key, each.found, each.remedy) for each in error.faults]
        raise UserError(moved) from None
