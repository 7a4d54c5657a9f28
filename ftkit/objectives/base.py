"""What an objective is: an equation over the answers of a batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from ftkit.core.reduce import Mean, answer_sum
from ftkit.core.section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.core.batch import Batch

Unit = Literal["token", "answer", "prompt", "batch"]
"""What the mean of a loss runs over; the learner divides by their number in the global batch."""

Kind = Literal["documents", "demonstrations", "preferences", "pool", "rollouts"]
"""Where answers come from: whole texts; given; given in pairs; given beside sampled ones; sampled
from the policy itself."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What an objective says of a batch."""

    terms: Tensor
    """Any shape; their sum, divided by the global number of units, is the loss."""
    metrics: Mapping[str, Mean] = field(default_factory=dict)
    carry: Tensor | None = None
    """float64 [B]: what to remember of each prompt until it is seen again, when it comes as the
    column ``carry``; NaN there means that the prompt was not seen before."""


class Objective(Section):
    """An equation and its constants.

    The fields are the constants, as the recipe's ``method:`` sets them; the docstring holds the
    equation and its source; ``loss`` is the equation, a pure function of the log-probabilities and
    the batch in which no process group, micro-batch, normalizer or optimizer is known.
    """

    about: ClassVar[str]
    """One line for ``--help`` and lists."""
    kind: ClassVar[Kind]
    """The kind of source that it learns from."""
    local: ClassVar[bool] = False
    """Whether each token's term depends on that token's log-probability alone, so that the head
    may be differentiated while it is computed."""
    reads: ClassVar[Literal["logp", "score"]] = "logp"
    """What ``loss`` is a function of: log-probabilities, or a scalar head's score at each token."""

    @property
    @abstractmethod
    def unit(self) -> Unit:
        """What the mean runs over (a property, since constants may choose it)."""

    @property
    def columns(self) -> frozenset[str]:
        """Columns that ``loss`` reads beyond those that every batch has."""
        return frozenset()

    @property
    def keeps_reference(self) -> bool:
        """Whether it reads each token's log-probability under the model before training.

        It is the column ``reference``: float32 [B, K, T].
        """
        return False

    def scores(self, logp: Tensor, batch: Batch) -> Tensor:
        """Return the value by which the method ranks the answers to a prompt: [B, K].

        Higher is better; what evaluation calls reward accuracy is about this.  If the method has no
        other, it is the log-likelihood.

        Args:
            logp: as ``loss`` takes it.
            batch: the same B prompts and K answers.
        """
        return answer_sum(logp, batch.mask)

    def remarks(self) -> tuple[str, ...]:
        """Return what a person should know of these constants before training, with the remedy."""
        return ()

    def advice(self, metrics: Mapping[str, float]) -> str | None:
        """Return what a person should be told of these metrics, with the remedy.

        Args:
            metrics: means over some steps of what ``loss`` reported.
        """
        del metrics
        return None

    @abstractmethod
    def loss(self, logp: Tensor, batch: Batch) -> Loss:
        """Return the terms of the loss.

        Args:
            logp: float32 [B, K, T], log-probability of each answer token in nats; 0 where
                ``batch.mask`` is False.
            batch: the same B prompts and K answers.
        """
