"""The update of the weights: clip, then AdamW or SGD, on float32 masters where the model is 16-bit.

Weights in bfloat16 have 8 bits: an update below 1/256 of a weight is rounded away, and with lr
1e-6 nearly all are.  So the optimizer keeps float32 masters, gradients are summed in float32, and
the model gets rounded copies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

from ftkit.parallel.pieces import WEIGHT, Piece, Stored
from ftkit.parallel.world import OneProcess

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ftkit.parallel.world import World
    from ftkit.train.config import TrainConfig

BUCKET = 2**24
"""Elements of gradients that are summed over the ranks at once: 64 MiB."""


class Update(Protocol):
    """What changes weights once their gradients are there."""

    def zero_grad(self) -> None:
        """Forget all gradients."""

    def step(self, lr: float) -> dict[str, float]:
        """Scale the gradient down to what is allowed, and update the weights.

        Returns:
            What there is to say: ``grad_norm``, the gradient's 2-norm before it was scaled.  Where
            that is no number, nothing was updated.
        """

    def pieces(self) -> dict[str, Piece]:
        """Return this rank's part of weights and state, by parameter: what a checkpoint holds.

        The parts of all ranks are everything.
        """

    def load(self, stored: Stored) -> None:
        """Take weights and state back from a checkpoint, of whatever number of ranks."""


class Optimizer:
    """Updates the trainable parameters of a model that every rank has whole.

    With several ranks gradients are summed over them: each adds its part of the global batch's
    mean, and all make the same update.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, world: World | None = None) -> None:
        """Take the parameters that require gradients.

        Args:
            model: whose parameters.
            config: which optimizer, its constants, the clipping.
            world: the ranks that have copies of the model; None = there are no others.
        """
        self._world = world or OneProcess()
        self._live = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.weights: dict[str, Tensor] = {n: _master(p) for n, p in self._live.items()}
        """The parameters that the optimizer changes, by name: float32."""
        self._norm = config.max_grad_norm or float("inf")
        for name, live in self._live.items():
            if self.weights[name] is not live:
                live.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                    _adder(self.weights[name])
                )
        self._torch = build_optimizer(list(self.weights.values()), config)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for weight in (*self.weights.values(), *self._live.values()):
            weight.grad = None

    def step(self, lr: float) -> dict[str, float]:
        """Clip and update; return ``grad_norm`` and the learning rate (``Update.step``)."""
        if self._world.size > 1:
            sum_gradients(list(self.weights.values()), self._world)
        norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), self._norm).item()
        if math.isfinite(norm):
            for group in self._torch.param_groups:
                group["lr"] = lr
            self._torch.step()
            self._copy_down()
        return {"grad_norm": norm, "lr": lr}

    def pieces(self) -> dict[str, Piece]:
        """Return this rank's share of the parameters, each of them whole."""
        found = {}
        for name in self._world.mine(sorted(self.weights)):
            weight = self.weights[name]
            state = self._torch.state.get(weight, {})
            held = {key: value for key, value in state.items() if value is not None}
            steps = float(held.pop("step", 0.0))
            values = {WEIGHT: weight, **held}
            flat = {key: value.detach().flatten() for key, value in values.items()}
            found[name] = Piece(tuple(weight.shape), 0, flat, steps)
        return found

    @torch.no_grad()
    def load(self, stored: Stored) -> None:
        """Take weights and state back from a checkpoint."""
        self._torch.state.clear()
        for name, weight in self.weights.items():
            weight.copy_(stored.whole(name))
            keys = stored.keys(name)
            if not keys:  # it was never updated
                continue
            state = {key: stored.whole(name, key).to(weight.device) for key in keys}
            if stored.steps(name):
                state["step"] = torch.tensor(stored.steps(name), device=weight.device)
            self._torch.state[weight] = state
        self._copy_down()

    @torch.no_grad()
    def _copy_down(self) -> None:
        for name, live in self._live.items():
            if self.weights[name] is not live:
                live.copy_(self.weights[name])


@torch.no_grad()
def sum_gradients(weights: Sequence[Tensor], world: World) -> None:
    """Replace each gradient by its sum over all ranks, on each.

    They are sent joined, up to ``BUCKET`` elements at a time.  One that is missing on some ranks
    counts as 0 there; one that is missing on all stays so.
    """
    had = world.gather([[weight.grad is not None for weight in weights]])
    bucket: list[Tensor] = []
    for weight, anywhere in zip(weights, map(any, zip(*had, strict=True)), strict=True):
        if not anywhere:
            continue
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        if bucket and sum(each.numel() for each in bucket) + weight.numel() > BUCKET:
            _sum_bucket(bucket, world)
            bucket = []
        bucket.append(weight.grad)
    if bucket:
        _sum_bucket(bucket, world)


def _sum_bucket(gradients: Sequence[Tensor], world: World) -> None:
    total = world.sum(torch.cat([gradient.flatten() for gradient in gradients]))
    pieces = torch.split(total, [gradient.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))


def _master(parameter: Tensor) -> Tensor:
    """The parameter itself if it is float32, else a float32 copy."""
    if parameter.dtype == torch.float32:
        return parameter
    return parameter.detach().float().requires_grad_()


def _adder(master: Tensor) -> Any:
    """Return a hook that moves a 16-bit gradient into the master's float32 one."""

    def add(live: Tensor) -> None:
        assert live.grad is not None
        if master.grad is None:
            master.grad = live.grad.float()
        else:
            master.grad += live.grad
        live.grad = None

    return add


def build_optimizer(weights: list[Tensor], config: TrainConfig) -> torch.optim.Optimizer:
    """Return torch's optimizer: matrices decay, vectors (norms, biases) do not."""
    groups = [
        {"params": [w for w in weights if w.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [w for w in weights if w.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
