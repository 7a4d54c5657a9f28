"""Which weights of a run are meant: those of its end, its best, or those of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ftkit.core.errors import RunError, user_error
from ftkit.data.template import resolve_template
from ftkit.model.load import load_policy, load_scorer
from ftkit.model.merge import in_float32
from ftkit.model.tokenizer import load_tokenizer
from ftkit.tasks.target import is_model
from ftkit.train.checkpoint import Checkpoints
from ftkit.train.folder import RunFolder

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.model.config import ModelConfig
    from ftkit.model.reader import Reader
    from ftkit.recipe import Recipe

BEST = "best"
OF_POLICY = "policy."
"""What the names of a policy's weights begin with where a critic shares its body."""


@dataclass(frozen=True)
class Chosen:
    """Weights of a run."""

    recipe: Recipe
    """Of the run."""
    config: ModelConfig
    """What is loaded: a folder that the run wrote, or the model that it began with."""
    source: str
    """``model``, ``best`` or ``checkpoint``."""
    place: str
    """The folder that holds them."""
    step: int | None
    """After which they were so; None where the run did not say."""
    checkpoints: Checkpoints | None = None
    """Where that step's weights are, if not in a model's folder."""

    def load(self) -> Reader:
        """Load them, on the CPU and in float32: values of a narrower type stay as they are.

        Raises:
            UserError: if the base of adapters is not within reach.
            RunError: if a checkpoint lacks weights that the run trained.
        """
        reader = load(self.recipe, self.config, trainable=self.checkpoints is not None)
        in_float32(reader)
        if self.checkpoints is not None:
            assert self.step is not None
            resolve_template(reader.tokenizer, self.recipe.data.template)
            _put(reader, _weights_of(self.checkpoints, self.step))
        return reader


def load(recipe: Recipe, config: ModelConfig, *, trainable: bool = False) -> Reader:
    """Load a policy or a reward model on the CPU.

    Args:
        recipe: says which of the two it is.
        config: its ``model:``.
        trainable: with adapters as the run began with, rather than those of a folder.
    """
    read = load_policy if recipe.method.reads == "logp" else load_scorer
    plain = config.model_copy(update={"attention": "rows", "checkpointing": False})
    reader: Reader = read(
        plain,
        load_tokenizer(config),
        micro_tokens=recipe.train.micro_tokens,
        seed=recipe.seed,
        trainable=trainable,
        device=torch.device("cpu"),
    )
    return reader


def choose(run: Path, recipe: Recipe, checkpoint: str | None) -> Chosen:
    """Find the weights that are meant.

    Args:
        run: the run's folder.
        recipe: the run's.
        checkpoint: a step, ``best``, or None for the run's final model.

    Raises:
        UserError: if the run has none such, saying which it has.
    """
    checkpoints = Checkpoints(run / "checkpoints", recipe.checkpoint.keep)
    summary = RunFolder(run).summary()
    if checkpoint is None:
        if not is_model(run / "model"):
            found = "this run has no model/ yet"
            remedy = f"end it first, or choose a checkpoint: {_steps(checkpoints)}"
            raise user_error(str(run), found, remedy)
        ended = summary.get("step") if summary.get("status") == "finished" else None
        return _written(recipe, run / "model", ended)
    if checkpoint == BEST and is_model(run / BEST):
        step = summary.get("best", {}).get("step")
        return _written(recipe, run / BEST, step)
    step = _step(run, checkpoints, checkpoint)
    place = str(run / "checkpoints" / f"step-{step:06d}")
    return Chosen(recipe, recipe.model, "checkpoint", place, step, checkpoints)


def _step(run: Path, checkpoints: Checkpoints, checkpoint: str) -> int:
    """Return the step of the checkpoint that is named."""
    if checkpoint == BEST:
        newest = checkpoints.load()
        best = newest.state.get("best_step") if newest else None
        if best is None:
            found = "the run keeps no best checkpoint"
            remedy = f"choose another: {_steps(checkpoints)}; checkpoint.best in a recipe keeps one"
            raise user_error(f"--checkpoint {BEST}", found, remedy)
        return int(best)
    if not checkpoint.isdecimal() or int(checkpoint) not in checkpoints.steps():
        found = f"no complete checkpoint of {run} has this name"
        raise user_error(f"--checkpoint {checkpoint}", found, f"choose: {_steps(checkpoints)}")
    return int(checkpoint)


def _steps(checkpoints: Checkpoints) -> str:
    """Name the checkpoints that there are."""
    steps = checkpoints.steps()
    if not steps:
        return "there is none"
    return f"--checkpoint {', '.join(map(str, steps))}"


def _written(recipe: Recipe, folder: Path, step: int | None) -> Chosen:
    """Return what a run wrote into a folder."""
    emptied = ("init", "revision", "tokenizer", "lora", "quantize")
    own = {"path": str(folder), **dict.fromkeys(emptied)}
    config = recipe.model.model_copy(update=own)
    return Chosen(recipe, config, folder.name, str(folder), step)


def _weights_of(checkpoints: Checkpoints, step: int) -> Mapping[str, Tensor]:
    """Return the weights that a checkpoint holds, by the names that the policy gives them."""
    saved = checkpoints.load(step)
    assert saved is not None
    return {name.removeprefix(OF_POLICY): weight for name, weight in saved.weights.items()}


@torch.no_grad()
def _put(reader: Reader, saved: Mapping[str, Tensor]) -> None:
    """Put the weights that a run trained in their places."""
    trained = {n: p for n, p in reader.model.named_parameters() if p.requires_grad}
    if missing := sorted(trained.keys() - saved.keys()):
        raise RunError(f"the checkpoint lacks {len(missing)} weights, among them {missing[0]}")
    for name, weight in trained.items():
        weight.copy_(saved[name])
