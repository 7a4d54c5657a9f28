"""DeepSpeed's ZeRO: optimizer's state, gradients and weights in shares among the ranks.

One engine holds all modules whose weights are trained together.  It is given sums, not means: what
is differentiated is this rank's part of the global batch's mean, times the number of ranks, by
which DeepSpeed divides.  ``step`` is the only boundary (``managed_gradient_accumulation: false``),
so that a batch may go through in any number of parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import torch
from torch import nn

from ftkit.core.phase import beat
from ftkit.parallel.pieces import WEIGHT, Piece, Stored
from ftkit.parallel.placement import Placement
from ftkit.parallel.zero_config import SHARED_WEIGHTS, quiet

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.parallel.world import World

P = ParamSpec("P")
T = TypeVar("T")


class Whole(nn.Module):
    """Modules side by side, run by whatever function is handed in."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        """Take the modules, by name."""
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, read: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return ``read(...)``."""
        return read(*args, **kwargs)


def share(module: nn.Module, config: Mapping[str, Any]) -> None:
    """Cut a module's weights into shares, one weight after the other, those of rank 0 for all.

    What is on the host comes to the device as a share of it: the whole of a model never does.
    """
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    dtype = torch.bfloat16 if "bf16" in config else torch.float32
    for weight in module.parameters():
        if weight.is_floating_point() and weight.dtype != dtype:
            weight.data = weight.data.to(dtype)
    deepspeed.zero.Init(module=module, config_dict_or_path=dict(config), dtype=dtype)
    for buffer in module.buffers():
        buffer.data = buffer.data.to(get_accelerator().current_device_name())


class Zero(Placement):
    """Modules under an engine, and the update of their weights (``train.optimizer.Update``)."""

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        weights: Mapping[str, nn.Parameter],
        optimizer: Callable[[list[Tensor]], torch.optim.Optimizer] | None,
        config: Mapping[str, Any],
        world: World,
    ) -> None:
        """Hand the modules over to an engine, which cuts up what its stage says.

        Args:
            modules: all that holds weights, as it is called.
            weights: what is trained, by the names of checkpoints.
            optimizer: makes torch's optimizer of these weights; None where nothing is trained.
            config: DeepSpeed's settings (``zero_config``).
            world: the ranks.
        """
        import deepspeed

        self.world, self.weights = world, dict(weights)
        self.stage: int = config["zero_optimization"]["stage"]
        whole = Whole(modules)
        with quiet():
            if self.stage == SHARED_WEIGHTS:
                share(whole, config)
            self._engine: Any = deepspeed.initialize(
                model=whole,
                optimizer=optimizer(list(weights.values())) if optimizer else None,
                config=dict(config),
                dist_init_required=False,
            )[0]
        self._sharded = self.stage == SHARED_WEIGHTS
        self._in_step = self.stage > 1

    # as a placement

    def through(self, read: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return ``read(...)``, with the weights of each module gathered as it is called."""
        beat()
        out: T = self._engine(read, *args, **kwargs)
        return out

    def backward(self, value: Tensor) -> None:
        """Add the gradient of a scalar that a forward pass led to."""
        self._engine.backward(value * self.world.size, scale_wrt_gas=False)

    def passes(self, needed: int) -> int:
        """Return the largest number that any rank needs: each pass is one of all ranks."""
        return self.world.most(needed) if self._in_step and self.world.size > 1 else needed

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Gather all weights once, and take the engine's hooks off while they are there."""
        if not self._sharded:
            yield
            return
        import deepspeed

        offload = getattr(self._engine.optimizer, "parameter_offload", self._engine.optimizer)
        parameters = list(self._engine.module.parameters())
        offload.partition_all_parameters()
        with deepspeed.zero.GatheredParameters(parameters):
            offload._remove_module_hooks()
            offload.forward_hooks, offload.backward_hooks = [], []
            try:
                yield
            finally:
                offload.setup_zero_stage3_hooks()

    # as an update

    def zero_grad(self) -> None:
        """Forget all gradients."""
        zero = self._engine.optimizer
        zero.zero_grad()
        if self._sharded:
            # DeepSpeed 0.19 begins each step by overwriting what the first backward pass reaches,
            # and adds everything else to what the step before has left.
            zero.grad_partitions_flat_buffer.zero_()

    def step(self, lr: float) -> dict[str, float]:
        """Clip and update; where the norm is no number, nothing was updated (``Update.step``)."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        self._engine.step()
        norm = float(self._engine.get_global_grad_norm())
        return {"grad_norm": norm if norm >= 0 else math.nan, "lr": lr}

    def pieces(self) -> dict[str, Piece]:
        """Return this rank's stretches of the weights, and the state that belongs to them."""
        found = {}
        for name, weight in self.weights.items():
            if (stretch := self._stretch(weight)) is not None:
                start, count, flat, at = stretch
                state = {k: v for k, v in self._state(flat).items() if v.shape == flat.shape}
                values = {WEIGHT: flat, **state}
                own = {key: value.detach()[at : at + count] for key, value in values.items()}
                found[name] = Piece(self._shape(weight), start, own, self._steps(flat))
        return found

    @torch.no_grad()
    def load(self, stored: Stored) -> None:
        """Take weights and state back from a checkpoint, of whatever number of ranks."""
        for name, weight in self.weights.items():
            if (stretch := self._stretch(weight)) is None:
                continue
            start, count, flat, at = stretch
            flat.data[at : at + count] = stored.read(name, WEIGHT, start, count)
            state = self._engine.optimizer.optimizer.state[flat]
            for key in stored.keys(name):
                held = state.setdefault(key, torch.zeros_like(flat))
                held[at : at + count] = stored.read(name, key, start, count)
            if stored.steps(name):
                state["step"] = torch.tensor(stored.steps(name), device=flat.device)
        self._to_model()

    def _state(self, flat: Tensor) -> dict[str, Tensor]:
        held = self._engine.optimizer.optimizer.state.get(flat, {})
        return {key: value for key, value in held.items() if torch.is_tensor(value)}

    def _steps(self, flat: Tensor) -> float:
        return float(self._state(flat).get("step", 0.0))

    def _shape(self, weight: nn.Parameter) -> tuple[int, ...]:
        return tuple(getattr(weight, "ds_shape", weight.shape))

    def _stretch(self, weight: nn.Parameter) -> tuple[int, int, Tensor, int] | None:
        """Return which stretch of a parameter this rank updates, and where it is kept.

        Returns:
            Where it begins in the parameter, flattened; how long it is; the tensor of float32
            masters that it is a part of; and where it begins there.
        """
        zero = self._engine.optimizer
        if self._sharded:
            group, at, count = zero.grad_position[zero.get_param_id(weight)]
            start = count * self.world.rank
            count = min(count, prod(self._shape(weight)) - start)
            flat = zero.fp32_partitioned_groups_flat[group]
            return (start, count, flat, at) if count > 0 else None
        mapping = getattr(weight, "_hp_mapping", None)
        if mapping is None:
            return None
        own, kept = mapping.lp_fragment_address, mapping.get_hp_fragment_address()
        return own.start, own.numel, self._masters(mapping.param_group_index), kept.start

    def _masters(self, group: int) -> Tensor:
        zero = self._engine.optimizer
        name = "single_partition_of_fp32_groups"
        held = getattr(zero, name, None) or zero.fp32_groups_flat_partition  # bfloat16 at stage 1
        flat: Tensor = held[group]
        return flat

    def _to_model(self) -> None:
        """Round the masters down to the weights that the model computes with."""
        zero = self._engine.optimizer
        if not self._sharded:
            zero.update_lp_params()
            if hasattr(zero, "_update_model_bit16_weights"):
                for group in range(len(zero.bit16_groups)):
                    zero._update_model_bit16_weights(group)
            return
        zero._partition_all_parameters()
        for group in range(len(zero.fp16_groups)):
            zero._reassign_or_swap_out_partitioned_parameters(group)
        if zero.persistent_parameters:
            zero.persistent_parameters[0].all_gather(zero.persistent_parameters)
