"""The update of the weights: clip, then AdamW or SGD, on float32 masters where the model is 16-bit.

Weights in bfloat16 have 8 bits: an update below 1/256 of a weight is rounded away, and with lr
1e-6 nearly all are.  So the optimizer keeps float32 masters, gradients are summed in float32, and
the model gets rounded copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ftkit.train.config import TrainConfig


class Update(Protocol):
    """What changes weights once their gradients are there."""

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The weights that it changes, by name: float32."""

    def zero_grad(self) -> None:
        """Forget all gradients."""

    def clip(self) -> float:
        """Scale the gradient down to what is allowed; return its 2-norm before that."""

    def step(self, lr: float) -> Mapping[str, float]:
        """Update the weights; return what there is to say of it."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs besides the weights."""

    def load(self, weights: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        """Take weights and state back from a checkpoint."""


class Optimizer:
    """What changes the trainable parameters of a model once their gradients are there."""

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        """Take the parameters that require gradients.

        Args:
            model: whose parameters.
            config: which optimizer, its constants, the clipping.
        """
        self._live = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.weights: dict[str, Tensor] = {n: _master(p) for n, p in self._live.items()}
        """The parameters that the optimizer changes, by name: float32."""
        self._norm = config.max_grad_norm or float("inf")
        for name, live in self._live.items():
            if self.weights[name] is not live:
                live.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                    _adder(self.weights[name])
                )
        self._torch = _build(list(self.weights.values()), config)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for weight in (*self.weights.values(), *self._live.values()):
            weight.grad = None

    def clip(self) -> float:
        """Scale the gradient down to the greatest norm allowed; return its 2-norm before that."""
        norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), self._norm)
        return norm.item()

    def step(self, lr: float) -> dict[str, float]:
        """Update the weights; return the learning rate."""
        for group in self._torch.param_groups:
            group["lr"] = lr
        self._torch.step()
        self._copy_down()
        return {"lr": lr}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs besides the weights."""
        return self._torch.state_dict()

    def load(self, weights: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        """Take weights and state back from a checkpoint."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(weights[name])
        self._torch.load_state_dict(state)
        self._copy_down()

    @torch.no_grad()
    def _copy_down(self) -> None:
        for name, live in self._live.items():
            if self.weights[name] is not live:
                live.copy_(self.weights[name])


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


def _build(weights: list[Tensor], config: TrainConfig) -> torch.optim.Optimizer:
    """Matrices decay, vectors (norms, biases) do not."""
    groups = [
        {"params": [w for w in weights if w.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [w for w in weights if w.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
