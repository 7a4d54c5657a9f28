"""The ranks among which a batch is dealt."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from ftkit.core.errors import RunError, ServiceError, UserError, disk_is_full

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


def deal(costs: Sequence[int], size: int) -> list[list[int]]:
    """Return which items each of some ranks has, so that all have about as much to do.

    The costliest first, each to the rank that has least.

    >>> deal([5, 1, 2, 2], 2)
    [[0], [1, 2, 3]]
    """
    loads, shares = [0] * size, [list[int]() for _ in range(size)]
    for item in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        rank = min(range(size), key=lambda each: (loads[each], each))
        loads[rank] += costs[item]
        shares[rank].append(item)
    return [sorted(share) for share in shares]


class World(Protocol):
    """What a part may ask of all ranks.  Every rank asks, or none does."""

    rank: int
    """Which of them this one is, from 0."""
    size: int
    """How many there are."""

    @abstractmethod
    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of ``x`` over all ranks, the same on each."""

    @abstractmethod
    def gather(self, items: Sequence[T]) -> list[T]:
        """Return what all ranks give, in the order of the ranks, the same on each."""

    @abstractmethod
    def first(self, work: Callable[[], T]) -> T:
        """Have one rank of each machine do something that leaves its result in a cache.

        The others wait, however long it takes, and then do the same.
        """

    @property
    def leads(self) -> bool:
        """Whether this rank is the one that writes what is written once."""
        return self.rank == 0

    def mine(self, items: Sequence[T]) -> Sequence[T]:
        """Return this rank's share: every ``size``-th item."""
        return items[self.rank :: self.size]

    def dealt(self, costs: Sequence[int]) -> list[int]:
        """Return which items are this rank's, so that all have about as much to do.

        The same on every rank (``deal``).

        Args:
            costs: of each item, such as its tokens.
        """
        return deal(costs, self.size)[self.rank]

    def joined(self, items: Sequence[T]) -> list[T]:
        """Return the items of which each rank has its share, in their order."""
        shares = self.gather([list(items)])
        longest = max(map(len, shares))
        return [share[i] for i in range(longest) for share in shares if i < len(share)]

    def most(self, n: int) -> int:
        """Return the largest of all ranks' numbers."""
        return max(self.gather([n]))

    def totals(self, found: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        """Return (sum, count) of each measure over all ranks; a rank may lack some of them."""
        out: dict[str, tuple[float, float]] = {}
        for share in self.gather([dict(found)]):
            for name, (total, count) in share.items():
                before = out.get(name, (0.0, 0.0))
                out[name] = before[0] + total, before[1] + count
        return out

    def means(self, found: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """Return the mean of each measure over all ranks, of which each gives (sum, count)."""
        return {name: total / max(n, 1.0) for name, (total, n) in self.totals(found).items()}

    def together(self, work: Callable[[], T]) -> T:
        """Do something on every rank, so that it has failed on all if it has on one.

        ``work`` must not ask anything of the other ranks.

        Raises:
            UserError: if it did on some rank; with the faults of the first of them.
            RunError: likewise, naming the rank.
        """
        if self.size == 1:
            return work()  # an error that is kept in a variable here would keep all it refers to
        result: T | None = None
        failure: Exception | None = None
        try:
            result = work()
        except Exception as error:
            failure = error
        told = self.gather([_told(failure)])
        for rank, found in enumerate(told):
            if found is not None:
                own = failure if failure is not None and rank == self.rank else None
                raise shared(own or _again(found, rank))
        return result  # type: ignore[return-value]  # None only where ``work`` returned it


class OneProcess(World):
    """The world of a run that has one process."""

    rank: int = 0
    size: int = 1

    def sum(self, x: Tensor) -> Tensor:
        """Return ``x``: there is nobody else."""
        return x

    def gather(self, items: Sequence[T]) -> list[T]:
        """Return the items themselves."""
        return list(items)

    def first(self, work: Callable[[], T]) -> T:
        """Do it."""
        return work()


def shared(error: Exception) -> Exception:
    """Mark an error as one of all ranks, so that one of them tells of it."""
    error.shared = True  # type: ignore[attr-defined]
    return error


def _told(failure: Exception | None) -> tuple[str, object] | None:
    """Return what other ranks need to know of a failure."""
    if failure is None:
        return None
    if isinstance(failure, UserError):
        return "user", failure.faults
    text = str(failure) or type(failure).__name__
    if isinstance(failure, ServiceError):
        return "service", text
    if isinstance(failure, RunError):
        return "run", text
    return ("full" if disk_is_full(failure) else "error"), f"{type(failure).__name__}: {text}"


def _again(found: tuple[str, object], rank: int) -> Exception:
    """Return another rank's failure, as an error of this one."""
    kind, told = found
    if kind == "user":
        return UserError(told)  # type: ignore[arg-type]  # its faults
    if kind == "full":
        return OSError(28, f"on rank {rank}: {told}")
    text = f"{told}" if kind in {"run", "service"} else f"rank {rank}: {told}"
    return ServiceError(text) if kind == "service" else RunError(text)
