"""Which way batches go through a model: found out on the very model, not by its name.

The reference is the model as transformers loads it, on padded rows, with full logits.  A faster
way is taken only where it gives the same log-probabilities.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

import torch

from ftkit.core.batch import Batch, collate
from ftkit.core.errors import user_error
from ftkit.core.group import Answer, Group
from ftkit.model import attention
from ftkit.model.policy import Policy, Way, causal_lm

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("ftkit")

AGREEMENT = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Mean difference of log-probabilities, in nats, up to which two ways through a model are one."""

SHAPED = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""What configurations say of logits that are more than a product: it may not show in a probe."""

FAILURES = (
    attention.UnsupportedAttentionError,
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
    RuntimeError,
)
"""What architectures raise that know nothing of segments."""


def choose_way(policy: Policy, wanted: Literal["auto", "segments", "rows"]) -> None:
    """Set ``policy.way`` to the fastest way that gives the model's own log-probabilities.

    Args:
        policy: a model as transformers loaded it.
        wanted: ``model.attention`` of the recipe.

    Raises:
        UserError: if the model cannot read a batch at all, or segments are wanted and do not serve.
    """
    batch = _probe(policy)
    policy.way = "logits"
    try:
        with torch.no_grad():
            expected = policy.forward(batch)
    except (RuntimeError, ValueError, LookupError) as error:
        raise user_error(
            "model", f"it cannot read a batch: {error}", "mend its configuration"
        ) from error
    if wanted != "rows":
        reason = _try_segments(policy, batch, expected)
        if reason is None:
            return
        if wanted == "segments":
            remedy = "write attention: auto, or rows"
            raise user_error("model.attention", f"segments do not serve: {reason}", remedy)
        log.warning("attention goes by padded rows, which is slower: %s", reason)
    reason = _head(policy) or _gap(policy, "rows", batch, expected)
    if reason is not None:
        log.warning("all logits of a part are held at once, which takes memory: %s", reason)
        policy.way = "logits"


def _try_segments(policy: Policy, batch: Batch, expected: Tensor) -> str | None:
    """Exchange the attention; say why segments do not serve, with the model as it was before."""
    model = causal_lm(policy.model)
    text = model.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ()) - {"full_attention"}
    if kinds:
        return f"it has layers of {', '.join(sorted(kinds))}"
    if reason := _head(policy):
        return reason
    before = text._attn_implementation
    attention.register()
    try:
        model.set_attn_implementation(attention.NAME)
        reason = _gap(policy, "segments", batch, expected)
    except FAILURES as error:
        reason = f"its attention cannot be exchanged ({type(error).__name__}: {error})"
    if reason is not None:
        model.set_attn_implementation(before)
        text._attn_implementation = before  # an architecture may refuse to take back its own
    return reason


def _head(policy: Policy) -> str | None:
    """Say why the head is more than one product with a matrix; None if it is not."""
    head = causal_lm(policy.model).get_output_embeddings()
    if type(head) is not torch.nn.Linear:
        return f"its head is a {type(head).__name__}"
    if getattr(head, "bias", None) is not None:
        return "its head has a bias"
    text = policy.model.config.get_text_config()
    shaped = [name for name in SHAPED if getattr(text, name, None) not in (None, 1, 1.0)]
    return f"its configuration has {', '.join(shaped)}" if shaped else None


@torch.no_grad()
def _gap(policy: Policy, way: Way, batch: Batch, expected: Tensor) -> str | None:
    """Say why a way does not give the model's own log-probabilities; None if it does."""
    policy.way = way
    try:
        found = policy.forward(batch)
    except FAILURES as error:
        return f"{type(error).__name__}: {error}"
    gap = ((found - expected).abs().sum() / batch.mask.sum()).item()
    if gap <= AGREEMENT[policy.model.dtype]:
        return None
    return f"log-probabilities differ by {gap:.2g} nats a token"


def _probe(policy: Policy) -> Batch:
    """Two prompts of random tokens, one with three answers of several lengths."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = causal_lm(policy.model).get_input_embeddings().weight.shape[0]

    def some(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (n,), generator=generator).tolist())

    shared = Group("a", some(3), (Answer(some(4)), Answer(some(2)), Answer(some(5))))
    return collate([shared, Group("b", some(2), (Answer(some(6)),))])
