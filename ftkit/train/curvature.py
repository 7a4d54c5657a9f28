"""The curvature of the KL from π_old: products with it, and what is solved by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.autograd.forward_ad as forward
from torch import nn
from torch.func import functional_call

from ftkit.model.attention import in_plain_products
from ftkit.model.layout import lay_out
from ftkit.model.reader import bare

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.core.batch import Batch
    from ftkit.core.part import Part
    from ftkit.model.policy import Policy
    from ftkit.parallel.world import World


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], b: Tensor, steps: int, tolerance: float
) -> tuple[Tensor, float]:
    """Solve A x = b for a positive definite A: x [n], and the norm of b - A x in parts of b's.

    Args:
        product: v [n] -> A v [n].
        b: float64 [n], not 0.
        steps: products at most.
        tolerance: the residual, in parts of b's norm, at which it is solved.

    >>> a = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    >>> x, residual = conjugate_gradient(a.mv, torch.tensor([3.0, 4.0]).double(), 2, 0.0)
    >>> x.round(decimals=9), residual < 1e-12
    (tensor([1., 1.], dtype=torch.float64), True)
    """
    x, r = torch.zeros_like(b), b.clone()
    p, rr = r.clone(), r.dot(r)
    enough = tolerance**2 * rr
    for _ in range(steps):
        if rr <= enough or rr == 0:
            break
        ap = product(p)
        alpha = rr / p.dot(ap)
        x, r = x + alpha * p, r - alpha * ap
        before, rr = rr, r.dot(r)
        p = r + (rr / before) * p
    return x, (rr.sqrt() / b.norm()).item()


class Measured(NamedTuple):
    """What the present weights are on a batch."""

    kl: float
    """Mean KL(π_old, π) of the next token's distribution, in nats a token."""
    logp: Tensor
    """float32 [B, K, T], on the CPU."""


@dataclass
class Curvature:
    """A batch under π_old, whose distributions are kept, and the KL from it.

    What is kept is the number of learnt tokens times the vocabulary, in float32.
    """

    policy: Policy
    batch: Batch
    world: World
    live: Mapping[str, Tensor]
    """The trainable parameters."""
    _old: list[Tensor] = field(default_factory=list)
    _count: float = 1.0

    def __post_init__(self) -> None:
        """Take the present weights for π_old."""
        self._module = _Logits(self.policy)
        with torch.no_grad():
            self._old = [self._logits(part).log_softmax(-1) for _, part in self._parts()]
        n = torch.tensor(float(self.batch.count("token")), dtype=torch.float64)
        self._count = max(self.world.sum(n).item(), 1.0)

    def product(self, v: Tensor) -> Tensor:
        """Return F v, float64 [n]: the Hessian of the mean KL at π_old times v.

        F = mean over tokens of J^T (diag p - p p^T) J, J the Jacobian of the logits z: forward, J v
        comes along with z as its derivative in the direction v; backward, J^T is applied.

        Args:
            v: [n], one number for each trainable weight, in the order of ``live``.
        """
        total: Tensor = torch.zeros_like(v, dtype=torch.float64)
        along = self._split(v)
        for (_, part), old in zip(self._parts(), self._old, strict=True):
            if not len(old):
                continue
            p, jv = old.exp(), self._tangent(part, along)
            u = p * (jv - (p * jv).sum(-1, keepdim=True)) / self._count
            found = torch.autograd.grad(
                self._logits(part), list(self.live.values()), u, allow_unused=True
            )
            total += joined(found, self.live)
        return self.world.sum(total)

    @torch.no_grad()
    def measure(self) -> Measured:
        """Return how far the present weights are from π_old, and the log-probabilities."""
        logp, kl = torch.zeros(self.batch.size), torch.zeros((), dtype=torch.float64)
        for (cut_of, part), old in zip(self._parts(), self._old, strict=True):
            now, layout = self._logits(part).log_softmax(-1), lay_out(part)
            far = (now - old).double()  # p (e^d - 1 - d) sums up to -p d, and no rounding can
            kl += (old.double().exp() * (far.expm1() - far)).sum().cpu()  # make it negative
            own = now.gather(1, layout.target.to(now.device)[:, None]).squeeze(1)
            cut_of.put(logp, self.policy.scatter(part, layout, own).cpu())
        return Measured(self.world.sum(kl).item() / self._count, logp)

    def _parts(self) -> Iterator[tuple[Part, Batch]]:
        for part in self.policy.parts(self.batch):
            yield part, part.of(self.batch)

    def _logits(self, part: Batch) -> Tensor:
        """Return logits over the temperature where tokens are learnt: float32 [M, V]."""
        logits: Tensor = self._module(part)
        return logits

    @torch.no_grad()
    def _tangent(self, part: Batch, along: Mapping[str, Tensor]) -> Tensor:
        """Return J v: [M, V]."""
        with forward.dual_level(), in_plain_products():
            dual = {
                f"model.{name}": forward.make_dual(weight.detach(), along[name])  # type: ignore[no-untyped-call]
                for name, weight in self.live.items()
            }
            value, tangent = forward.unpack_dual(  # type: ignore[no-untyped-call]
                functional_call(self._module, dual, (part,))
            )
            return torch.zeros_like(value) if tangent is None else tangent.clone()

    def _split(self, v: Tensor) -> dict[str, Tensor]:
        pieces = torch.split(v, [w.numel() for w in self.live.values()])
        shaped = zip(self.live.items(), pieces, strict=True)
        return {n: piece.view(w.shape).to(w.dtype) for (n, w), piece in shaped}


class _Logits(nn.Module):
    """From a batch to logits, as a module, so that its weights can be exchanged for a call."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.model = policy.model
        self._policy = policy

    def forward(self, batch: Batch) -> Tensor:
        policy, layout = self._policy, lay_out(batch)
        if policy.way == "logits":
            tokens, seen, row, place = policy.rows(batch, layout)
            out = self.model(input_ids=tokens, attention_mask=seen, use_cache=False)
            logits: Tensor = out.logits[row, place]
        else:
            weight = bare(self.model).get_output_embeddings().weight
            logits = policy.hidden(batch, layout) @ weight.T
        return logits / policy.temperature


def joined(pieces: Any, live: Mapping[str, Tensor]) -> Tensor:
    """Join one tensor, or None for zeros, of each weight: float64 [n]."""
    found = zip(pieces, live.values(), strict=True)
    flat = [torch.zeros_like(w) if piece is None else piece for piece, w in found]
    return torch.cat([piece.detach().double().flatten() for piece in flat])
