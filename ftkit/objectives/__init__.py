"""One equation a file.  ``Method`` is the registry: what it lists, a recipe can name."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from ftkit.objectives.base import Kind, Loss, Objective, Unit
from ftkit.objectives.dft import DFT
from ftkit.objectives.disco import DisCO
from ftkit.objectives.dpo import DPO
from ftkit.objectives.grpo import GRPO
from ftkit.objectives.ppo import PPO
from ftkit.objectives.pretrain import Pretrain
from ftkit.objectives.reward import Reward
from ftkit.objectives.sft import SFT
from ftkit.objectives.trpo import TRPO

Method = Annotated[
    Pretrain | SFT | Reward | DPO | DFT | GRPO | PPO | TRPO | DisCO, Field(discriminator="name")
]

METHODS: dict[str, type[Objective]] = {
    get_args(method.model_fields["name"].annotation)[0]: method
    for method in get_args(get_args(Method)[0])
}
"""Every method by the name that recipes use."""

__all__ = [
    "DFT",
    "DPO",
    "GRPO",
    "METHODS",
    "PPO",
    "SFT",
    "TRPO",
    "DisCO",
    "Kind",
    "Loss",
    "Method",
    "Objective",
    "Pretrain",
    "Reward",
    "Unit",
]
