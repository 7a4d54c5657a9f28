"""Functions that judge in every way that a function should not; imported by path."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def same(answer, truth):
    return answer == truth


def slow(answer, truth):
    time.sleep(0.5)
    return answer == truth


def terminates(answer, truth):
    child = subprocess.Popen(["sleep", "60"])
    child.terminate()
    return child.wait() == -15


def value(answer, truth):
    return float(answer)


def odd(answer, truth):
    return ODD[answer]()


def hang():
    time.sleep(600)


def spin():
    while True:
        pass


def hog():
    return len(bytearray(1 << 30))


def leave():
    os._exit(3)


def crash():
    os.abort()


VERDICT = b'{"number": "00", "last": false, "status": "correct", "reward": 1, "detail": ""}\n'


def forge():
    """Write what would be a verdict, but for its number, wherever it can be written."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 (names)
        try:
            os.write(descriptor, VERDICT)
        except OSError:
            continue
    return False


def say():
    sys.stdout.write(VERDICT.decode())
    sys.stdout.flush()
    sys.stderr.write("an error of the function\n")
    os.write(1, b"straight to the console\n")
    return False


def start_another():
    Path(os.environ["FTKIT_TEST_CHILD"]).write_text(
        str(subprocess.Popen(["sleep", "600"]).pid), encoding="utf-8"
    )
    time.sleep(600)


def scratch():
    Path(os.environ["FTKIT_TEST_SCRATCH"]).write_text(tempfile.mkdtemp(), encoding="utf-8")
    return True


ODD = {
    "hang": hang,
    "spin": spin,
    "hog": hog,
    "leave": leave,
    "crash": crash,
    "forge": forge,
    "say": say,
    "start another": start_another,
    "scratch": scratch,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "text": lambda: "1",
    "nothing": lambda: None,
    "complex": lambda: 1j,
    "raise": lambda: 1 / 0,
    "exit": lambda: sys.exit(0),
    "right": lambda: True,
}
