"""What is mixed into vLLM's workers, so that they take weights from a trainer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

NAME = f"{__name__}.TakesWeights"
"""What vLLM is told as ``worker_extension_cls``."""


class TakesWeights:
    """A worker's further method, called on each of them by ``collective_rpc``."""

    model_runner: Any
    """vLLM's."""

    def take_weights(
        self,
        folder: str | None = None,
        tensors: Iterable[tuple[str, torch.Tensor]] | None = None,
    ) -> dict[str, int]:
        """Replace all weights.

        Args:
            folder: where they lie as safetensors, under the names that checkpoints have; or
            tensors: the weights themselves with these names, where this is the trainer's process.

        Returns:
            How many were ``taken``.
        """
        for module in self.model_runner.get_model().modules():
            # On CPUs linear layers multiply by a packed copy that a reload does not renew; the
            # plain product reads the weights themselves.
            if hasattr(module, "cpu_linear"):
                module.cpu_linear = torch.nn.functional.linear
        weights = list(tensors or ()) if folder is None else _read(Path(folder))
        counted = _Counted(weights)
        self.model_runner.reload_weights(weights_iterator=iter(counted))
        return {"taken": counted.count}


class _Counted:
    """Weights, and how many of them were taken."""

    def __init__(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        self._weights, self.count = weights, 0

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        for each in self._weights:
            self.count += 1
            yield each


def _read(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping, it has only keys())
                yield name, file.get_tensor(name)
