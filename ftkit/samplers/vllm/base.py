"""What a running vLLM is, in this process or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.samplers.config import SampleConfig
    from ftkit.samplers.written import Drawn


@dataclass(frozen=True)
class Request:
    """A prompt that is to be answered."""

    prompt: Sequence[int]
    answers: int
    seed: int
    """Of this prompt's answers alone: the n-th is drawn with ``seed`` + n."""
    max_tokens: int


class Engine(Protocol):
    """A running vLLM."""

    version: int | None
    """Of the weights that it has: how many updates the policy had had; None = they are nobody's."""

    @property
    def places(self) -> int:
        """Of how many servers or processes each has weights of its own."""

    @property
    def shared(self) -> bool:
        """Whether ranks answer together, so that each must ask whenever the others do."""

    def heed(self, stopped: Callable[[], bool]) -> None:
        """Give up waiting for anything as soon as this says that the run shall stop."""

    def load(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Take weights, by the names of a checkpoint.

        Raises:
            RunError: if it cannot.
        """

    def ask(
        self, requests: Sequence[Request], config: SampleConfig, stop: Sequence[int]
    ) -> list[list[Drawn]]:
        """Return the answers to each request, in the order given.

        Raises:
            RunError: if it ended, or other weights than the last that were loaded answered.
        """

    def sleep(self) -> None:
        """Give up the memory of the device, where that is possible."""

    def wake(self) -> None:
        """Take it back."""

    def close(self) -> None:
        """End what was started for it."""


def parameters(request: Request, config: SampleConfig, stop: Sequence[int]) -> dict[str, object]:
    """Return a request's constants in the words of vLLM's ``SamplingParams``.

    All that a model's ``generation_config.json`` might change is said, so that nothing else than
    softmax(logits / temperature) is sampled, and an answer ends by its stop tokens alone.
    """
    return {
        "n": request.answers,
        "seed": request.seed,
        "max_tokens": request.max_tokens,
        "temperature": config.temperature,
        "top_k": config.top_k or 0,
        "top_p": config.top_p,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "logprobs": 0,  # of the sampled token alone
        "stop_token_ids": list(stop),
        "ignore_eos": True,
        "detokenize": False,
        "skip_special_tokens": False,
    }
