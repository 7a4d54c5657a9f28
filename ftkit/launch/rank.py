"""Being a rank: what a process does that was started as one of several."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Collection, Iterable, Mapping
from io import TextIOWrapper
from typing import TextIO

from ftkit.launch.local import HANDED_ON, PARENT
from ftkit.launch.parent import signal_at_its_end

OTHERS = ("TORCHELASTIC_RUN_ID", "CROSS_RANK")
"""Variables of the environment that torchrun sets, and deepspeed."""


def rank_of(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return which rank this process is; None where nobody started ranks.

    >>> rank_of({"RANK": "3", "WORLD_SIZE": "4"}), rank_of({})
    (3, None)
    """
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return None
    return int(environment["RANK"])


def ranks(numbers: Collection[int]) -> str:
    """Name ranks.

    >>> ranks([1]), ranks([2, 3, 5]), ranks(range(8, 16))
    ('rank 1', 'ranks 2, 3, 5', 'ranks 8 to 15')
    """
    few, first = len(numbers), min(numbers)
    if few == 1:
        return f"rank {first}"
    if few == max(numbers) - first + 1:
        return f"ranks {first} to {max(numbers)}"
    return f"ranks {', '.join(map(str, numbers))}"


def begin() -> None:
    """Be a rank: end with the parent, and put the rank before every line, but for the first.

    A signal ends it at once, and silently, until the run is where a checkpoint can be written
    (``train.interrupt``); the launcher says what that was.
    """
    rank = rank_of()
    assert rank is not None
    if any(name in os.environ for name in (PARENT, *OTHERS)):
        signal_at_its_end(signal.SIGKILL)
        parent = os.environ.get(PARENT, str(os.getppid()))
        if os.getppid() != int(parent):  # it ended before that was asked for
            os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDED_ON)
    # when the rank that keeps the store ends, torch would print the frames of it for each message
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # a line is not lost should the rank be killed, nor does another rank's come within it
            stream.reconfigure(line_buffering=True, write_through=False)
    if rank:
        name = f"[rank {rank} {socket.gethostname()}] "
        sys.stdout, sys.stderr = Prefixed(sys.stdout, name), Prefixed(sys.stderr, name)


class Prefixed:
    """A stream with something before every line; a line is written when it is whole."""

    def __init__(self, stream: TextIO, prefix: str) -> None:
        """Take a stream."""
        self._stream, self._prefix, self._line = stream, prefix, ""

    def write(self, text: str) -> int:
        """Write what are whole lines."""
        *lines, self._line = (self._line + text).split("\n")
        self._stream.write("".join(f"{self._prefix}{line}\n" for line in lines))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write lines."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Flush whole lines."""
        self._stream.flush()

    def end(self) -> None:
        """Write what has no end of its line."""
        if self._line:
            self.write("\n")

    def isatty(self) -> bool:
        """Never: a bar of progress is rank 0's alone."""
        return False

    def fileno(self) -> int:
        """Return the stream's."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        """The stream's."""
        return self._stream.encoding
