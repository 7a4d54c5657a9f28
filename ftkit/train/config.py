"""The recipe's ``train:``, ``eval:``, ``checkpoint:``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ftkit.core.section import Section

Decay = Annotated[float, Field(ge=0, lt=1)]
"""The share of a moving average that stays at each step."""


ScoreName = Literal["log_likelihood", "mean_log_likelihood", "log_ratio"]
"""By what a policy's answers may be ranked."""


class TrainConfig(Section):
    """How many prompts a step, how many steps, and how far each one goes."""

    prompts: int = Field(32, gt=0)
    """Prompts in a step, over all ranks."""
    updates: int = Field(1, gt=0)
    """grpo and its kin: mini-batches of `prompts` that each rollout is cut into; each is a step."""
    rollout_epochs: int = Field(1, gt=0)
    """grpo and its kin: times that a rollout's mini-batches are learnt from."""
    micro_tokens: int = Field(16384, gt=0)
    """Tokens that go through the model at once: memory and time only, never the result."""
    epochs: float | None = Field(None, gt=0)
    """Times that each row is seen; or `steps`."""
    steps: int | None = Field(None, gt=0)
    """Steps to take; or `epochs`. With neither, one epoch."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """`adamw` (decoupled weight decay) or `sgd`."""
    lr: float = Field(0.0, gt=0)
    """The learning rate at its highest; to be written, but for trpo, which has none."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate falls after the warm-up: not, or to `min_lr` along a line or a half
    cosine."""
    warmup: float = Field(0.0, ge=0)
    """Steps of linear rise: a share of all steps below 1, a number of steps from 1 on."""
    min_lr: float = Field(0.0, ge=0, le=1)
    """The end of `linear` and `cosine`, as a share of `lr`."""
    max_grad_norm: float | None = Field(1.0, gt=0)
    """Clip the global gradient's 2-norm to this; null = never."""
    weight_decay: float = Field(0.0, ge=0)
    """Decay of matrices a step, times lr; vectors (norms, biases) never decay."""
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), strict=False)
    """adamw: decay of the averages of the gradient and of its square."""
    eps: float = Field(1e-8, gt=0)
    """adamw: what is added to the root of the second average."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """sgd: momentum."""
    matmul: Literal["highest", "high", "medium"] = "highest"
    """Internal precision of float32 matrix products (torch's float32_matmul_precision): `medium`
    is faster on CPUs, with products near bfloat16."""
    threads: int | None = Field(None, gt=0)
    """CPU threads; null = torch's choice."""
    until: dict[str, float] = Field({})
    """Stop as soon as an evaluation reaches every one of these, as in `{eval.exact_match: 0.5}`;
    losses are reached from above, everything else from below."""


class EvalConfig(Section):
    """When the held-out rows are measured during training, how many, and how answers are ranked."""

    every: int | None = Field(None, gt=0)
    """Steps between evaluations; null = only at the end."""
    limit: int | None = Field(None, gt=0)
    """At most so many held-out rows during training, always the same ones. `ftkit eval` takes
    all."""
    score: ScoreName | None = None
    """By what answers to one prompt are ranked: `log_likelihood`, the sum over an answer's tokens;
    `mean_log_likelihood`, their mean; `log_ratio`, `beta` times the log-likelihood less that under
    `reference`; null = as the method ranks them (sft: `log_likelihood`)."""
    reference: str | None = Field(None, min_length=1)
    """log_ratio: `initial`, the model before training, or a folder or hub name; null = the
    method's own, else `initial`."""
    beta: float = Field(1.0, gt=0)
    """log_ratio: what it is multiplied by; margins are in its units."""


class CheckpointConfig(Section):
    """When checkpoints are written and how many are kept."""

    every: int | None = Field(200, gt=0)
    """Steps between checkpoints; null = only the last one."""
    keep: int = Field(2, gt=0)
    """How many of the newest stay; the best one stays besides."""
    background: bool = False
    """Write while training goes on, from a copy of weights and optimizer's state that is held in
    the host's memory until then; for large models on slow disks. The last one is waited for."""
    best: str | None = None
    """A measure of the evaluation, such as `eval.loss` or `eval.exact_match`: its best checkpoint
    is kept and exported to RUN/best/."""
