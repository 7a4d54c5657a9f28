"""What a sampler is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from ftkit.core.group import Answer


class Sampler(Protocol):
    """Writes answers to prompts with the policy's weights, as they were at the last ``sync``."""

    def sync(self) -> None:
        """Take the policy's present weights; nothing to do where it samples from the policy itself.

        All ranks call it together.

        Raises:
            RunError: if log-probabilities show that the weights are not the policy's.
        """
        return

    def wake(self) -> None:
        """Take back the memory that sampling needs, if it was given up."""
        return

    def sleep(self) -> None:
        """Give up memory until it is needed again, if it has any of its own."""
        return

    def placed(self) -> AbstractContextManager[None]:
        """In it, the weights are where it needs them as it writes; all ranks go in together."""
        return nullcontext()

    @abstractmethod
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        answers: int,
        seed: int,
        keys: Sequence[int] | None = None,
    ) -> list[list[Answer]]:
        """Sample answers to each prompt.

        An answer's ``tokens`` are those sampled: with the stop token if one was drawn (``finish``
        is ``stop``), without one where the length limit came first (``length``; LAWS T9).  Its
        ``text`` has neither the stop token nor special tokens.  Its ``logp`` are log-probabilities
        in nats under the distribution that was sampled.

        Args:
            prompts: token ids of each prompt, at least one.
            answers: how many to each prompt.
            seed: with ``keys``, all that an answer depends on besides its prompt and the weights.
            keys: a number for each prompt, so that what is drawn for it depends neither on the
                other prompts nor on their order; None = its place in ``prompts``.

        Returns:
            For each prompt, in the order given, ``answers`` answers.
        """
        ...


@contextmanager
def awake(sampler: Sampler) -> Iterator[Sampler]:
    """In it, a sampler can write with the policy's present weights; behind it, it sleeps."""
    with sampler.placed():
        sampler.wake()
        sampler.sync()
        yield sampler
        sampler.sleep()  # not after an error: a dead engine would hide it behind another
