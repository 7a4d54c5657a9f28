"""The recipe as one frozen tree: what is not here, a run cannot do."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftkit.core.section import Section
from ftkit.data.config import DataConfig
from ftkit.model.config import ModelConfig
from ftkit.objectives import Method
from ftkit.parallel.config import ParallelConfig
from ftkit.samplers.config import SampleConfig
from ftkit.train.config import CheckpointConfig, EvalConfig, TrainConfig
from ftkit.verifiers.config import Verify


class Recipe(Section):
    """A run, whole.

    Paths are relative to the directory in which the command runs; only ``extends`` is relative to
    the file that says it.
    """

    run: str = Field(min_length=1)
    """The folder that the run makes and fills."""
    seed: int = Field(0, ge=0)
    """Fixes every random choice: weights, order, held-out rows, samples."""
    method: Method
    """The equation to minimize, by its name, and its constants."""
    data: DataConfig
    """The rows to learn from and those to be measured on."""
    model: ModelConfig
    """The policy: which weights, in which precision, with which adapters."""
    train: TrainConfig
    """How many prompts a step, how many steps, and how far each one goes."""
    sample: SampleConfig | None = None
    """How answers are sampled: dft, the negatives of the pool; others, answers to held-out prompts
    at each evaluation."""
    verify: Verify | None = None
    """Who judges the answers to held-out prompts at each evaluation."""
    eval: EvalConfig = Field(default_factory=EvalConfig)
    """When the held-out rows are measured during training, and how many."""
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    """When checkpoints are written and how many are kept."""
    parallel: ParallelConfig = Field(default_factory=ParallelConfig)
    """How the run is spread over processes (`ftkit train RECIPE --gpus N`)."""
    log: list[Literal["jsonl", "tensorboard"]] = Field(["jsonl"])
    """Where metrics go: `metrics.jsonl` is always written; `tensorboard` needs the extra of that
    name."""
