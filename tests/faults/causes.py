"""What goes wrong in a rank: each function returns what is called in it before it begins."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

from ftkit.core.phase import beat, phase


def before(place, rank, do, number=1):
    """Do something on a rank before the so manieth call of a function.

    ``place`` is ``module:name``, of a function or of a class's.
    """
    return partial(_before, place, rank, do, number)


def _before(place, rank, do, number):
    from importlib import import_module

    module, _, names = place.partition(":")
    *classes, name = names.split(".")
    owner = import_module(module)
    for each in classes:
        owner = getattr(owner, each)
    whole, count = getattr(owner, name), 0

    def faulty(*args, **kwargs):
        nonlocal count
        count += 1
        if os.environ["RANK"] == str(rank) and count == number:
            do()
        return whole(*args, **kwargs)

    setattr(owner, name, faulty)


STEP = "ftkit.train.loop:Loop._step"
LOADING = "ftkit.tasks.train:build_policy"
EVALUATING = "ftkit.train.loop:Loop._evaluate"
UPDATING = "ftkit.parallel.zero:Zero.step"
SYNC = "os:fsync"
"""Waiting for the disk, which only a checkpoint does."""


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def stop():
    os.kill(os.getpid(), signal.SIGSTOP)


def sleep():
    time.sleep(1000)


def pause(here: Path, seconds=0.5):
    """Say by a file that the moment has come, and stay in it."""
    here.write_text("")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)


def work():
    """Take longer than the time-out, and get on."""
    with phase("reading or sampling"):
        for _ in range(30):
            time.sleep(0.1)
            beat()


def fail(error):
    raise error
