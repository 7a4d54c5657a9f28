"""Errors that a person reads: where, what was found, what to do.

A user's error (``UserError``) ends a command with status 2, a run that failed (``RunError``) with
status 1; neither shows a traceback unless ``FTKIT_DEBUG=1``.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass

USER_ERROR = 2
RUN_FAILED = 1
INTERRUPTED = 130

FULL = ("no space left on device", "disk quota exceeded", "pytorchstreamwriter failed writing")
"""What libraries that keep the error's number to themselves say of a full disk."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        place: ``file:line:column path``, a file, a row, a key: where to look.
        found: what is there, in words.
        remedy: what to do about it.
    """

    place: str
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        """One line.

        >>> str(Fault("r.yaml:3:5 train.lr", "-1 is not above 0", "write a positive number"))
        'r.yaml:3:5 train.lr: -1 is not above 0; write a positive number'
        """
        text = f"{self.place}: {self.found}" if self.place else self.found
        return f"{text}; {self.remedy}" if self.remedy else text


class UserError(Exception):
    """Something that the user wrote or gave is wrong; all faults found, not only the first."""

    status = USER_ERROR

    def __init__(self, faults: Iterable[Fault] | Fault) -> None:
        """Take one fault or several."""
        self.faults: tuple[Fault, ...] = (faults,) if isinstance(faults, Fault) else tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class RunError(Exception):
    """A run that was well described and failed all the same: a non-finite loss, a lost device."""

    status = RUN_FAILED


class StoppedError(RunError):
    """A person wants an end at once, without a checkpoint."""

    status = INTERRUPTED


class ServiceError(RunError):
    """What a run relies on failed, a server or a verifier; its own state is sound."""


def disk_is_full(error: BaseException) -> bool:
    """Whether an error, of Python or of a library that writes files itself, means a full disk.

    >>> disk_is_full(OSError(28, "No space left on device")), disk_is_full(OSError(2, "no file"))
    (True, False)
    """
    numbered = getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}
    return numbered or any(sign in str(error).lower() for sign in FULL)


def cannot_write(error: BaseException) -> bool:
    """Whether an error, of Python or of a library that writes files itself, is a disk's.

    >>> cannot_write(PermissionError(13, "Permission denied")), cannot_write(ValueError("no"))
    (True, False)
    >>> cannot_write(Exception("I/O error: Permission denied (os error 13)"))  # as safetensors says
    True
    """
    return isinstance(error, OSError) or "(os error " in str(error)


def user_error(place: str, found: str, remedy: str = "") -> UserError:
    """Return a ``UserError`` of one fault, to be raised."""
    return UserError(Fault(place, found, remedy))
