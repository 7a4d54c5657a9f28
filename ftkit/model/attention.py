"""Attention over segments of a flat stream, registered with transformers as ``ftkit_segments``.

Models stay Hugging Face's own: only the function between their projections is exchanged.  Called
without segments (padded rows, decoding with a cache) it is transformers' own ``sdpa``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ftkit.model import cpu_attention
from ftkit.model.layout import stack

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ftkit.model.layout import Layout

NAME = "ftkit_segments"

_plain = False


class UnsupportedAttentionError(Exception):
    """A layer asks for what segments do not know: a sliding window, sinks, a soft cap."""


@contextmanager
def in_plain_products() -> Iterator[None]:
    """In it, attention is made of products and sums, which have derivatives of any kind.

    Fused kernels have those of first order, backward, alone.
    """
    global _plain  # noqa: PLW0603 (transformers calls the function, and hands nothing through)
    before, _plain = _plain, True
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        _plain = before


def register() -> None:
    """Make the function known to transformers; harmless when repeated."""
    AttentionInterface.register(NAME, segment_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def segment_attention(  # noqa: PLR0917 (transformers calls it so)
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return the attention of each token to its own segment and that segment's prefix, causally.

    Args:
        module: the attention layer.
        query: [1, H, N, D].
        key: [1, H_kv, N, D], as ``value``.
        value: see ``key``.
        attention_mask: ignored where there is a layout.
        scaling: what scores are multiplied by; None = D ** -0.5.
        layout: the segments; None = transformers' own sdpa.
        **kwargs: what the layer says of itself.

    Returns:
        [1, N, H, D], and None for the weights.

    Raises:
        UnsupportedAttentionError: if the layer asks for what segments do not know.
    """
    if layout is None:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    for feature in ("sliding_window", "softcap", "s_aux", "position_bias"):
        if kwargs.get(feature) is not None:
            raise UnsupportedAttentionError(feature)
    if not getattr(module, "is_causal", True):
        raise UnsupportedAttentionError("attention in both directions")
    if not _plain and cpu_attention.serves(query, key, value):
        return cpu_attention.attend(query, key, value, scaling, layout), None
    repeats = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, repeats), repeat_kv(value, repeats)
    kernel = query.is_cuda and query.dtype != torch.float32 and has_varlen() and not _plain
    attend = varlen if kernel else by_blocks
    return attend(query, key, value, scaling, layout), None


@cache
def has_varlen() -> bool:
    """Whether this torch has the variable-length kernel in the form used here."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return {"scale", "window_size"} <= set(signature(varlen_attn).parameters)


def by_blocks(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, layout: Layout
) -> Tensor:
    """Blocks of equal segments, each through ``scaled_dot_product_attention``: [1, N, H, D].

    On any device and in any precision; K and V have as many heads as Q.
    """
    # split, not slices: the gradient of n slices is n streams of zeros, that of a split is one
    sizes = [count * segment.length for count, segment in layout.blocks]
    parts = [torch.split(x, sizes, dim=2) for x in (query, key, value)]
    outputs = []
    for i, (count, segment) in enumerate(layout.blocks):
        q, k, v = (stack(part[i], count) for part in parts)
        mask = None
        if segment.prefix:
            span = slice(segment.prefix_start, segment.prefix_stop)
            shared = (x[:, :, span].expand(count, -1, -1, -1) for x in (key, value))
            k, v = (torch.cat(pair, dim=2) for pair in zip(shared, (k, v), strict=True))
            mask = q.new_ones(segment.length, k.shape[2], dtype=torch.bool).tril(segment.prefix)
        out = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling
        )
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)[None]


def varlen(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, layout: Layout
) -> Tensor:
    """All segments in one call of the variable-length kernel (CUDA, 16-bit): [1, N, H, D].

    Where a segment has more keys than queries, the kernel's causal mask is aligned to the last of
    both, so that the prefix is seen whole.
    """
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    spans = layout.spans
    if spans.gather is not None:
        k, v = k[spans.gather], v[spans.gather]
    out = varlen_attn(
        q.contiguous(),
        k.contiguous(),
        v.contiguous(),
        spans.queries,
        spans.keys,
        spans.longest_query,
        spans.longest_key,
        scale=scaling,
        window_size=(-1, 0),
    )
    assert isinstance(out, torch.Tensor)
    return out[None]
