"""Where a model's weights lie, and how it is run there."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from ftkit.core.phase import beat

if TYPE_CHECKING:
    from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


class Placement(Protocol):
    """How forward and backward passes are made, whoever holds the weights."""

    @abstractmethod
    def through(self, read: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return ``read(...)``, a forward pass that returns a tensor."""

    @abstractmethod
    def backward(self, value: Tensor) -> None:
        """Add the gradient of a scalar that a forward pass led to.

        Gradients are sums over all ranks once the update is made, not means.
        """

    @abstractmethod
    def passes(self, needed: int) -> int:
        """Return how many passes this rank has to make, of which it needs so many itself.

        Where weights are gathered from all ranks for each pass, all make equally many.
        """

    @abstractmethod
    def whole(self) -> AbstractContextManager[None]:
        """In it, the model is whole on every rank, and its passes ask nothing of the others."""


class InPlace(Placement):
    """The weights are whole on every rank."""

    def through(self, read: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it."""
        beat()
        return read(*args, **kwargs)

    def backward(self, value: Tensor) -> None:
        """Add the gradient to ``grad`` of the parameters."""
        value.backward()  # type: ignore[no-untyped-call]

    def passes(self, needed: int) -> int:
        """Return ``needed``."""
        return needed

    def whole(self) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()


IN_PLACE = InPlace()
