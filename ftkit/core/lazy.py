"""Torch, imported on first use: what only reads constants must not wait for it.

``from ftkit.core.lazy import torch`` costs nothing until an attribute of ``torch`` is read, so that
``ftkit check`` and ``--help``, which read the objectives' constants, never load it.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any


class _Lazy(ModuleType):
    """A module that is imported when the first attribute of it is read."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


if TYPE_CHECKING:
    import torch as torch  # noqa: PLC0414 (exported, so that others may import it from here)
else:
    torch = _Lazy("torch")
