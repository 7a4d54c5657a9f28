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
    ) -> None:
        """Replace all weights.

        Args:
            folder: where they lie as safetensors, under the names that checkpoints have; or
            tensors: the weights themselves with these names, where this is the trainer's process.
        """
        for module in self.model_runner.get_model().modules():
            # On CPUs linear layers multiply by a packed copy that a reload does not renew; the
            # plain product reads the weights themselves.
            if hasattr(module, "cpu_linear"):
                module.cpu_linear = torch.nn.functional.linear
        weights = tensors if folder is None else _read(Path(folder))
        self.model_runner.reload_weights(weights_iterator=weights)


def _read(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping, it has only keys())
                yield name, file.get_tensor(name)
