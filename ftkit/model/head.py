"""Log-probabilities of tokens from hidden states, in tiles: never all logits at once.

Two ways to the same gradient.  ``log_probs`` is for losses that couple tokens: it keeps the last
tile, and computes the others again in the backward pass.  ``reduce_locally`` is for losses whose
terms depend on one token each: the derivative is known as soon as the tile's log-probabilities are,
so both gradients are computed while the tile is there (three matrix products instead of four).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

Terms = Callable[["Tensor", slice], "Tensor"]
"""(log-probabilities [m] of a tile, which of the M tokens they are) -> scalar to be minimized."""

TILE_ELEMENTS = {"cpu": 2**23, "cuda": 2**29}
"""Logits in one tile, by device: 32 MiB of float32 stay in a CPU's cache, 2 GiB keep a GPU busy."""


def log_probs(hidden: Tensor, weight: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    """Return log softmax(hidden @ weight.T / temperature)[target], float32 [M].

    Args:
        hidden: [M, d].
        weight: [V, d], the same dtype.
        target: int64 [M].
        temperature: of the policy (LAWS T8).
    """
    out: Tensor = _LogProbs.apply(hidden, weight, target, temperature)  # type: ignore[no-untyped-call]
    return out


def reduce_locally(
    hidden: Tensor, weight: Tensor, target: Tensor, terms: Terms, temperature: float = 1.0
) -> Tensor:
    """Return the sum of ``terms`` over all tiles: a scalar whose gradient is already known.

    ``terms`` is called once for each tile, with log-probabilities that require a gradient.
    """
    out: Tensor = _Local.apply(hidden, weight, target, terms, temperature)  # type: ignore[no-untyped-call]
    return out


class Tail(nn.Module):
    """The head of a language model: from hidden states to log-probabilities of tokens.

    It shares its weight with the model; as a module of its own it is what engines that shard
    weights gather and release by.
    """

    def __init__(self, weight: nn.Parameter) -> None:
        """Take the weight: [V, d]."""
        super().__init__()
        self.weight = weight

    def forward(
        self, hidden: Tensor, target: Tensor, temperature: float, terms: Terms | None = None
    ) -> Tensor:
        """Return ``log_probs`` or, of terms that depend on one token each, ``reduce_locally``."""
        if terms is None:
            return log_probs(hidden, self.weight, target, temperature)
        return reduce_locally(hidden, self.weight, target, terms, temperature)


def _tiles(tokens: int, vocabulary: int, device: torch.device) -> list[slice]:
    """Return tiles of about one size, as few as there can be."""
    elements = TILE_ELEMENTS["cuda" if device.type == "cuda" else "cpu"]
    count = math.ceil(tokens / max(16, elements // vocabulary))
    edges = [i * tokens // max(count, 1) for i in range(count + 1)]
    return [slice(*edge) for edge in pairwise(edges)]


def _logits(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """float32 [m, V]; products of 16-bit numbers are summed and kept in float32."""
    if hidden.dtype == torch.float32:
        logits = hidden @ weight.T
    elif hidden.is_cuda:
        logits = torch.mm(hidden, weight.T, out_dtype=torch.float32)
    else:
        logits = hidden.float() @ weight.float().T
    return logits if temperature == 1.0 else logits.div_(temperature)


def _softmax(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities [m] and the normalizers [m, 1] of what the logits become.

    In place: exp(logits - their maximum).
    """
    logits.sub_(logits.amax(-1, keepdim=True))
    picked = logits.gather(1, target[:, None])
    total = logits.exp_().sum(-1, keepdim=True)
    return (picked - total.log()).squeeze(1), total


def _logit_gradient(shares: Tensor, total: Tensor, target: Tensor, d_logp: Tensor) -> Tensor:
    """Return d/d logits of d_logp @ logp, d_logp (onehot - softmax), in place of the shares."""
    gradient = shares.mul_(-d_logp[:, None] / total)
    return gradient.scatter_add_(1, target[:, None], d_logp[:, None])


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, temperature: float
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, target)
        ctx.temperature = temperature
        ctx.last = None
        out = torch.empty(len(target), dtype=torch.float32, device=hidden.device)
        for tile in _tiles(len(target), len(weight), hidden.device):
            ctx.last = None  # before the next one takes its place
            logits = _logits(hidden[tile], weight, temperature)
            out[tile], total = _softmax(logits, target[tile])
            ctx.last = logits, total
            del logits
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden, weight, target = ctx.saved_tensors
        sums = _Gradients(hidden, weight, ctx.needs_input_grad)
        for tile in reversed(_tiles(len(target), len(weight), hidden.device)):
            kept, ctx.last = ctx.last, None  # it is overwritten: a second backward finds none
            if kept is None:
                logits = _logits(hidden[tile], weight, ctx.temperature)
                _, total = _softmax(logits, target[tile])
            else:
                logits, total = kept
            d_logp = grads[0][tile] / ctx.temperature
            sums.add(tile, _logit_gradient(logits, total, target[tile], d_logp))
            del logits, kept  # before the next tile takes its place
        return sums.hidden, sums.weight, None, None


class _Local(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 (autograd calls it so)
        ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, terms: Terms, temperature: float
    ) -> Tensor:
        sums = _Gradients(hidden, weight, ctx.needs_input_grad)
        loss = torch.zeros((), dtype=torch.float64, device=hidden.device)
        for tile in _tiles(len(target), len(weight), hidden.device):
            logits = _logits(hidden[tile], weight, temperature)
            logp, total = _softmax(logits, target[tile])
            with torch.enable_grad():
                logp.requires_grad_()
                part = terms(logp, tile)
                (d_logp,) = torch.autograd.grad(part, logp)
            loss += part.detach()
            if sums.wanted:
                sums.add(tile, _logit_gradient(logits, total, target[tile], d_logp / temperature))
            del logits  # before the next tile takes its place
        ctx.gradients = (sums.hidden, sums.weight)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden, weight = (None if g is None else g.mul_(grads[0]) for g in ctx.gradients)
        return hidden, weight, None, None, None


class _Gradients:
    """The gradients of hidden states and weight, tile by tile; the weight's in float32."""

    def __init__(self, hidden: Tensor, weight: Tensor, wanted: tuple[bool, ...]) -> None:
        self._hidden, self._weight = hidden, weight
        self.hidden = torch.empty_like(hidden) if wanted[0] else None
        self._sum = torch.zeros_like(weight, dtype=torch.float32) if wanted[1] else None
        self.wanted = wanted[0] or wanted[1]

    def add(self, tile: slice, d_logits: Tensor) -> None:
        d_logits = d_logits.to(self._hidden.dtype)
        if self.hidden is not None:
            torch.mm(d_logits, self._weight, out=self.hidden[tile])
        if self._sum is None:
            return
        if self._hidden.dtype == torch.float32:
            self._sum.addmm_(d_logits.T, self._hidden[tile])
        else:
            self._sum += d_logits.T @ self._hidden[tile]

    @property
    def weight(self) -> Tensor | None:
        return None if self._sum is None else self._sum.to(self._weight.dtype)
