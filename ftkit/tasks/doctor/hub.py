"""The Hugging Face hub: whether it is asked, and what of it is here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ftkit.recipe.files import is_path
from ftkit.tasks.doctor.finding import Finding

if TYPE_CHECKING:
    from ftkit.recipe import Recipe

CONFIG = "config.json"
"""The file of a model that is always fetched."""


def hub() -> Iterator[Finding]:
    """Tell the cache, and whether files that it lacks are fetched."""
    from huggingface_hub import constants

    yield Finding("ok", "cache", str(constants.HF_HUB_CACHE))
    endpoint = os.environ.get("HF_ENDPOINT")
    if endpoint:
        yield Finding("ok", "HF_ENDPOINT", endpoint)
    found = "set: nothing is fetched" if constants.HF_HUB_OFFLINE else "not set: files are fetched"
    yield Finding("ok", "HF_HUB_OFFLINE", found)


def models(recipe: Recipe) -> Iterator[Finding]:
    """Tell which of the models that a recipe names on the hub are here already.

    Args:
        recipe: that names them; folders are looked at elsewhere.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    named = {
        "model.path": recipe.model.path,
        "model.tokenizer": recipe.model.tokenizer,
        "method.reference": getattr(recipe.method, "reference", None),
        "method.critic_path": getattr(recipe.method, "critic_path", None),
        "eval.reference": recipe.eval.reference,
    }
    for key, name in named.items():
        if name is None or name in {"initial", "none"} or is_path(name):
            continue
        revision = recipe.model.revision if key == "model.path" else None
        file = "tokenizer_config.json" if key == "model.tokenizer" else CONFIG
        if isinstance(try_to_load_from_cache(name, file, revision=revision), str):
            yield Finding("ok", key, f"{name} is in the cache")
        elif constants.HF_HUB_OFFLINE:
            found = f"{name} is not in the cache, and HF_HUB_OFFLINE is set"
            remedy = f"fetch it where there is a network: hf download {name}"
            yield Finding("problem", key, found, remedy)
        else:
            found = f"{name} is not in the cache: the run fetches it"
            yield Finding("note", key, found, f"hf download {name}, if nodes have no network")
    yield from _rows(recipe, offline=constants.HF_HUB_OFFLINE)


def _rows(recipe: Recipe, *, offline: bool) -> Iterator[Finding]:
    """Name rows of the hub where it is not asked."""
    train = recipe.data.train
    paths = [train] if isinstance(train, str) else [source.path for source in train]
    for path in paths:
        if path.startswith("hf:") and offline:
            remedy = "run ftkit data once where there is a network"
            yield Finding("note", "data.train", f"{path} must be in the cache already", remedy)
