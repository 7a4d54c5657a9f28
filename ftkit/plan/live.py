"""How much memory tensors hold at a time, counted as they come and go.

Tensors on the device ``meta`` have sizes and no memory: what a model would hold is counted by
running it on them.  Attention, whose kernels differ between devices, has a stand-in that makes the
tensors that they make.
"""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor, nn

NAME = "ftkit_counted"
"""What transformers knows the stand-in by."""

OWN_PAGES = 2**25
"""Bytes from which on glibc gives every tensor pages of its own, and takes them back at once."""


class Live(TorchDispatchMode):
    """In it, the bytes of all tensors are counted from when they are made until they are gone."""

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        """Begin with none.

        Args:
            known: tensors that are not counted, such as weights.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        """Bytes of the tensors that are there."""
        self.small = 0
        """Bytes of those of them that have less than ``OWN_PAGES``."""
        self.peak = 0
        """The most that ``now`` was."""
        self._held = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call an operator, and count what it makes."""
        del types
        out = func(*args, **(kwargs or {}))
        for each in tree_iter(out):
            if isinstance(each, torch.Tensor):
                self._count(each.untyped_storage())
        self.peak = max(self.peak, self.now)
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._held:
            return
        size = self._held[key] = storage.nbytes()
        self._add(size)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self._add(-self._held.pop(key))

    def _add(self, size: int) -> None:
        self.now += size
        self.small += size if abs(size) < OWN_PAGES else 0


@dataclass
class Kernel:
    """How attention goes on a device, and what it was asked for."""

    fused: bool
    """Whether it is the CPU's kernel, which shares keys among heads and looks at prefixes where
    they lie (``cpu_attention``); others get copies."""
    block: int
    """Tokens that it works on at once: the longest row, or all."""
    keys: int
    """Keys that all segments together see, their prefixes' included; where these are more than
    tokens, other kernels get copies of prefixes, too."""
    cached: int = 0
    """Bytes of keys and values that all calls had."""
    _index: Tensor | None = None

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return what attention does, without its values: [1, N, H, D]."""
        self.cached += sum(x.numel() * x.element_size() for x in (key, value))
        if not self.fused:
            key, value = (self._copied(x, query) for x in (key, value))
        out: Tensor = _Attend.apply(query, key, value, self.block)  # type: ignore[no-untyped-call]
        return out

    def _copied(self, x: Tensor, query: Tensor) -> Tensor:
        """Return keys or values as kernels of GPUs take them: one for each head and segment."""
        heads, tokens = query.shape[1:3]
        if x.shape[1] != heads:  # flatten copies
            x = x[:, :, None].expand(-1, -1, heads // x.shape[1], -1, -1).flatten(1, 2)
        if self.keys <= tokens:
            return x
        if self._index is None:
            self._index = torch.empty(self.keys, dtype=torch.int64, device=x.device)
        return x.index_select(2, self._index)


class _Attend(torch.autograd.Function):
    """Makes and keeps the tensors that kernels of attention do."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, block: int) -> Tensor:
        rows, heads, tokens, _ = query.shape
        out = query.new_empty(rows, tokens, heads, value.shape[-1])
        log_z = query.new_empty(rows, tokens, heads, dtype=torch.float32)
        _in_blocks(query, key, value, block)
        ctx.save_for_backward(query, key, value, out, log_z)
        ctx.block = block
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        del grads
        query, key, value, _, _ = ctx.saved_tensors
        sums = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        found = _in_blocks(query, key, value, ctx.block), query[:, :, : ctx.block].clone()
        del found
        return (*sums, None)


def _in_blocks(query: Tensor, key: Tensor, value: Tensor, block: int) -> list[Tensor]:
    """Make what a kernel needs beside its result: keys and values of each head, for one block."""
    shape = (query.shape[0], query.shape[1], min(block, query.shape[2]))
    return [query.new_empty(*shape, x.shape[-1]) for x in (key, value, value)]


_kernel: ContextVar[Kernel] = ContextVar("kernel")


@contextmanager
def attending(kernel: Kernel) -> Iterator[None]:
    """In it, models whose attention is ``NAME`` attend in the way of this kernel."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    token = _kernel.set(kernel)
    try:
        yield
    finally:
        _kernel.reset(token)


def _attention(  # noqa: PLR0917 (transformers calls it so)
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return [rows, N, H, D], and no weights."""
    del module, attention_mask, scaling, kwargs
    return _kernel.get()(query, key, value), None
