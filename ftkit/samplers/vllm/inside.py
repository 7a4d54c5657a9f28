"""vLLM in this process, on the device that the policy is on."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ftkit.core.errors import ServiceError, user_error
from ftkit.model.skeleton import described
from ftkit.parallel.world import OneProcess
from ftkit.samplers.vllm.base import parameters
from ftkit.samplers.vllm.worker import NAME
from ftkit.samplers.written import Drawn

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.model.policy import Policy
    from ftkit.parallel.world import World
    from ftkit.samplers.config import SampleConfig, VLLMConfig
    from ftkit.samplers.vllm.base import Request

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # so that weights are handed over as they lie
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # threads are the trainer's too
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
}
"""What vLLM reads from the environment, unless the user has said otherwise."""


@dataclass
class Inside:
    """A vLLM in this process."""

    llm: Any
    """vLLM's ``LLM``."""
    sleeps: bool
    """Whether it can give its memory up."""
    world: World = field(default_factory=OneProcess)
    """The trainer's ranks."""
    group: int = 1
    """How many neighbours among them share it."""
    version: int | None = None
    places: int = 1
    _asleep: bool = False

    @classmethod
    def start(
        cls, policy: Policy, config: VLLMConfig, longest: int, world: World | None = None
    ) -> Inside:
        """Start one for a policy, with no weights yet; on all ranks together.

        Each rank has one of its own, or a part of one that so many neighbours share; none of them
        starts further processes.

        Args:
            policy: whose architecture, precision and device it takes.
            config: how.
            longest: tokens of the longest prompt and answer together.
            world: the trainer's ranks; None = there are no others.

        Raises:
            UserError: if vLLM is not installed, does not know the architecture, or the ranks cannot
                be grouped as wished.
        """
        world, group = world or OneProcess(), config.tensor_parallel
        if world.size % group:
            some = "1 process" if world.size == 1 else f"{world.size} processes"
            raise user_error(
                "sample.vllm.tensor_parallel",
                f"{group}, and there are {some}",
                f"write a number that divides it, or start more: --gpus {group}",
            )
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        on_gpu = policy.device.type == "cuda"
        with tempfile.TemporaryDirectory() as folder, _left_alone():
            LLM = _import()  # noqa: N806 (a class)
            described(policy.model, Path(folder))
            try:
                llm = LLM(
                    folder,
                    skip_tokenizer_init=True,
                    load_format="dummy",
                    dtype=str(policy.model.dtype).removeprefix("torch."),
                    max_model_len=longest,
                    logprobs_mode="processed_logprobs",
                    generation_config="vllm",
                    enforce_eager=config.eager or not on_gpu,
                    gpu_memory_utilization=config.memory,
                    enable_sleep_mode=config.sleep and on_gpu,
                    worker_extension_cls=NAME,
                    **_among(world, group),
                )
            except Exception as error:  # whatever vLLM raises
                remedy = "mend sample.vllm, or write sample.engine: hf and vllm: null"
                raise user_error(
                    "sample.engine", f"vllm does not start: {error}", remedy
                ) from error
        engine = cls(llm, config.sleep and on_gpu, world, group)
        engine.sleep()
        return engine

    def load(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Take weights (``Engine.load``)."""
        with _told():
            self.llm.collective_rpc("take_weights", kwargs={"tensors": weights.items()})
            self.llm.reset_prefix_cache()
        self.version = version

    def ask(
        self, requests: Sequence[Request], config: SampleConfig, stop: Sequence[int]
    ) -> list[list[Drawn]]:
        """Return answers (``Engine.ask``)."""
        from vllm import SamplingParams

        asked, start = list(requests), 0
        if self.shared:  # what any of them is asked, all answer together
            shares = self.world.gather([asked])
            first = self.world.rank // self.group * self.group
            start = sum(map(len, shares[first : self.world.rank]))
            asked = [each for share in shares[first : first + self.group] for each in share]
        if not asked:
            return []
        with _told():
            found = self.llm.generate(
                [{"prompt_token_ids": list(each.prompt)} for each in asked],
                [SamplingParams(**parameters(each, config, stop)) for each in asked],
                use_tqdm=False,
            )
        mine = found[start : start + len(requests)]
        return [[_drawn(one) for one in each.outputs] for each in mine]

    @property
    def shared(self) -> bool:
        """Whether neighbours answer together."""
        return self.group > 1

    def heed(self, stopped: Callable[[], bool]) -> None:
        """Do nothing: it waits for nobody."""

    def sleep(self) -> None:
        """Leave the device to the trainer: weights go to the host, the cache is given up."""
        if self.sleeps and not self._asleep:
            self.llm.sleep(level=1)
            self._asleep = True

    def wake(self) -> None:
        """Take the device's memory back."""
        if self._asleep:
            self.llm.wake_up()
            self._asleep = False

    def close(self) -> None:
        """End it."""
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self.llm.llm_engine.engine_core.shutdown()
        if self.world.size == 1:  # else it would part the trainer's ranks, too
            cleanup_dist_env_and_memory()


def _among(world: World, group: int) -> dict[str, Any]:
    """Return what vLLM is told of ranks that somebody else has started, and that have joined."""
    if world.size == 1:
        return {}
    return {
        "distributed_executor_backend": "external_launcher",
        "tensor_parallel_size": group,
        "seed": world.rank // group,
    }


@contextmanager
def _told() -> Iterator[None]:
    """Turn whatever vLLM raises into an error of the run."""
    try:
        yield
    except Exception as error:
        raise ServiceError(f"vLLM failed: {type(error).__name__}: {error}") from error


def _drawn(output: Any) -> Drawn:
    tokens = list(output.token_ids)
    told = zip(output.logprobs, tokens, strict=True)
    return Drawn(tokens, [of_place[token].logprob for of_place, token in told])


def _import() -> Any:
    try:
        from vllm import LLM
    except ImportError as error:
        raise user_error(
            "sample.engine",
            f"vllm, and it cannot be imported ({error})",
            "install it: pip install vllm, or without a GPU make setup-vllm; or write engine: hf "
            "and vllm: null",
        ) from error
    return LLM


@contextmanager
def _left_alone() -> Iterator[None]:
    """Undo what vLLM changes for the whole process: random streams, threads, precision."""
    matmul = torch.get_float32_matmul_precision()
    setter, states = torch.set_num_threads, (random.getstate(), np.random.get_state())
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_float32_matmul_precision(matmul)
    torch.set_num_threads = setter
    torch.set_num_threads(threads)
