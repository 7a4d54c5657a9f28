"""What a part of a batch holds in a transformer's body: counted on a model without memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ftkit.core.errors import user_error
from ftkit.model.reader import bare
from ftkit.model.way import FAILURES
from ftkit.plan.live import NAME, Kernel, Live, attending

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

SHALLOW, DEEP = 4, 6
"""Of a deeper model so many layers are run, and then so many; each of the others is as the last of
these are."""


@dataclass(frozen=True)
class Passing:
    """Tokens that go through a body at once."""

    tokens: int
    learnt: int
    """Those whose hidden states are read."""
    longest: int
    """Tokens of the longest row."""
    keys: int
    """Keys that all segments together see, their prefixes' included."""


@dataclass(frozen=True)
class Held:
    """Bytes that tokens hold on their way through a body."""

    saved: int
    """Kept for the backward pass when the forward one is done, the hidden states included."""
    small: int
    """Of these, in tensors so small that an allocator may leave gaps between them."""
    work: int
    """On top of what is kept, at the busiest moment of the backward pass."""
    forward: int
    """At the busiest moment of a pass without a graph."""
    cached: int
    """Keys and values of all layers."""

    def deeper(self, other: Held, layers: float) -> Held:
        """Return what it is with more layers, where ``other`` is of one pair of them less."""
        saved, small, cached = (
            round(mine + (mine - its) * layers / (DEEP - SHALLOW))
            for mine, its in (
                (self.saved, other.saved),
                (self.small, other.small),
                (self.cached, other.cached),
            )
        )
        return Held(saved, small, self.work, self.forward, cached)


def held(model: PreTrainedModel, passing: Passing, *, fused: bool, segments: bool) -> Held:
    """Return what tokens hold in the body of a model.

    Args:
        model: a skeleton, adapters included; checkpointing switched on if it is to be.
        passing: how many tokens.
        fused: whether attention is the CPU's kernel (``live.Kernel``).
        segments: one stream of tokens; else rows of the longest one's length.

    Raises:
        UserError: if its architecture cannot be run without memory.
    """
    depth = len(_layers(bare(model).base_model)[2])
    run = _Run(model, passing, fused, segments)
    try:
        if depth <= DEEP:
            return run(depth)
        return run(DEEP).deeper(run(SHALLOW), depth - DEEP)
    except FAILURES as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise user_error(
            "model",
            f"what a {model.config.model_type} model holds cannot be counted: {reason}",
            "train it for one step (train.steps=1): RUN/summary.json tells the peak memory",
        ) from error


@dataclass(frozen=True)
class _Run:
    """A pass through some of the layers, forward and back."""

    model: PreTrainedModel
    passing: Passing
    fused: bool
    segments: bool

    def __call__(self, depth: int) -> Held:
        body, passing = bare(self.model).base_model, self.passing
        keys = passing.keys if self.segments else 0  # a row has its own
        kernel = Kernel(self.fused, passing.longest, keys)
        with attending(kernel), _attention_of(bare(self.model)), _shallow(body, depth):
            with torch.no_grad(), self._live() as live:
                self._states(body)
            forward, cached = live.peak, kernel.cached
            with _gradients_dropped(self.model), self._live() as live:
                states = self._states(body)
                states = states.flatten(0, 1).index_select(0, _ids(passing.learnt))
                saved = live.peak = live.now
                small = live.small
                if states.requires_grad:
                    states.backward(torch.empty_like(states))  # type: ignore[no-untyped-call]
                del states
            return Held(saved, small, live.peak - saved, forward, cached)

    def _live(self) -> Live:
        return Live([*self.model.parameters(), *self.model.buffers()])

    def _states(self, body: Any) -> Tensor:
        passing = self.passing
        length = passing.tokens if self.segments else min(passing.longest, passing.tokens)
        tokens = _ids(-(-passing.tokens // length), length)
        seen = torch.ones(1, 1, 1, 1, dtype=torch.bool, device="meta")  # none is built
        usual = {"position_ids": tokens, "attention_mask": seen}
        asked = {"input_ids": tokens, "use_cache": False}
        try:
            out = body(**asked, **usual)
        except FAILURES:
            if self.segments:
                raise
            out = body(**asked)  # an architecture that knows neither
        states: Tensor = out.last_hidden_state
        return states


def _ids(*shape: int) -> Tensor:
    return torch.empty(*shape, dtype=torch.int64, device="meta")


@contextmanager
def _attention_of(model: PreTrainedModel) -> Iterator[None]:
    """In it, attention is the stand-in, where an architecture lets it be exchanged."""
    before = model.config.get_text_config()._attn_implementation
    try:
        model.set_attn_implementation(NAME)
    except FAILURES:
        yield  # it counts its own
        return
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def _gradients_dropped(model: nn.Module) -> Iterator[None]:
    """In it, no gradient of a weight stays, and embeddings have none: both are counted apart."""
    table = bare(model).get_input_embeddings().weight
    trained = table.requires_grad
    table.requires_grad_(requires_grad=False)
    handles = [
        weight.register_post_accumulate_grad_hook(_drop)  # type: ignore[no-untyped-call]
        for weight in model.parameters()
        if weight.requires_grad
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        table.requires_grad_(trained)


def _drop(weight: Tensor) -> None:
    weight.grad = None


@contextmanager
def _shallow(body: nn.Module, depth: int) -> Iterator[None]:
    """In it, a body has its first layers alone."""
    holder, name, layers = _layers(body)
    setattr(holder, name, nn.ModuleList(list(layers)[:depth]))
    try:
        yield
    finally:
        setattr(holder, name, layers)


def _layers(body: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    """Return where a body has its layers, under which name, and the layers.

    They are the outermost list of modules; of several, the longest.

    Raises:
        LookupError: if there is none.
    """
    found = [
        (path.count("."), -len(module), path)
        for path, module in body.named_modules()
        if isinstance(module, nn.ModuleList)
    ]
    path = min(found)[2] if found else ""
    if not path:
        raise LookupError("it has no list of layers")
    holder, _, name = path.rpartition(".")
    layers = body.get_submodule(path)
    assert isinstance(layers, nn.ModuleList)
    return body.get_submodule(holder), name, layers
