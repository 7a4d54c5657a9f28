"""The frozen reference: a model of its own, or the policy with its adapters off.

A run whose reference is the initial model needs neither: before the first step the policy is that
model, adapters that are new or trained further included, and what is found then is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ftkit.core.errors import user_error
from ftkit.model.load import load_policy
from ftkit.model.tokenizer import TOKENIZER_FILES, load_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from ftkit.model.config import ModelConfig
    from ftkit.model.policy import Policy


def load_reference(
    path: str,
    like: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    micro_tokens: int,
    device: torch.device | None = None,
) -> Policy:
    """Load a frozen policy beside another one.

    Args:
        path: a folder, adapters included, or a name of the hub.
        like: the other one's ``model:``; its dtype, attention and trust are taken.
        tokenizer: the other one's; the reference must have been trained with the same tokens.
        micro_tokens: tokens that go through at once.
        device: where to; None = the GPU if there is one.

    Raises:
        UserError: if there is no such model, or its tokens are not the tokenizer's.
    """
    own = {"init": None, "revision": None, "tokenizer": None, "lora": None, "checkpointing": False}
    config = like.model_copy(update={"path": path, **own})
    folder = Path(path).expanduser()
    if not folder.is_dir() or any((folder / file).exists() for file in TOKENIZER_FILES):
        _check_tokens(path, load_tokenizer(config), tokenizer)
    policy = load_policy(
        config, tokenizer, micro_tokens=micro_tokens, trainable=False, device=device
    )
    policy.model.requires_grad_(requires_grad=False)
    return policy


def _check_tokens(path: str, its: PreTrainedTokenizerBase, mine: PreTrainedTokenizerBase) -> None:
    theirs = {i: token for token, i in its.get_vocab().items()}
    other = [i for token, i in mine.get_vocab().items() if theirs.get(i, token) != token]
    if other:
        first = min(other)
        raise user_error(
            f"the reference {path}",
            f"{len(other)} of its tokens are others than the policy's; {first} is "
            f"{theirs[first]!r} and {mine.convert_ids_to_tokens(first)!r}",
            "take a reference with the policy's tokenizer",
        )


def is_base_of(config: ModelConfig, policy: Policy) -> bool:
    """Whether a policy is the model of a section with adapters that were new on it.

    Then the initial model of its run is the policy with ``adapters_off``.

    Args:
        config: the ``model:`` that the run began with.
        policy: what the run made of it.
    """
    adapters = getattr(policy.model, "peft_config", None)
    if adapters is None or config.path is None:
        return False
    own = adapters["default"]
    same = Path(str(own.base_model_name_or_path)) == Path(config.path).expanduser()
    return same and own.revision == config.revision


@contextmanager
def adapters_off(policy: Policy) -> Iterator[None]:
    """In it, a policy with adapters is its base.

    Raises:
        ValueError: if it has none.
    """
    model = policy.model
    if not hasattr(model, "disable_adapter"):
        raise ValueError("the policy has no adapters to be switched off")
    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    with model.disable_adapter():
        yield
    for name, p in model.named_parameters():  # peft makes all adapters trainable again
        p.requires_grad_(trained[name])
