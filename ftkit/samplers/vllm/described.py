"""A model's configuration without its weights, for a vLLM that will be given them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from ftkit.model.reader import bare

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def described(model: PreTrainedModel, folder: Path) -> None:
    """Write ``config.json`` of a model into a folder."""
    plain = bare(model)
    config = copy.deepcopy(plain.config)
    config.architectures = [type(plain).__name__]
    config.save_pretrained(folder)
