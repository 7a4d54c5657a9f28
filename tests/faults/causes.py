"""What goes wrong in a rank: each function returns what is called in it before it begins."""

from __future__ import annotations

import os
import signal
import time
from functools import partial

from ftkit.core.phase import beat, phase


def mine(rank) -> bool:
    return os.environ["RANK"] == str(rank)


def at_step(rank, step, do):
    """Do something on a rank when so many steps are done, before the next."""
    return partial(_at_step, rank, step, do)


def _at_step(rank, step, do):
    from ftkit.train import loop

    whole = loop.Loop._step

    def faulty(self):
        if mine(rank) and self.state.step == step:
            with phase("reading or sampling"):
                do()
        whole(self)

    loop.Loop._step = faulty


def before_sync(rank, number, do):
    """Do something on a rank before the so manieth time that it waits for a disk."""
    return partial(_before_sync, rank, number, do)


def _before_sync(rank, number, do):
    whole, count = os.fsync, 0

    def faulty(handle):
        nonlocal count
        count += 1
        if mine(rank) and count == number:
            do()
        whole(handle)

    os.fsync = faulty


def loading(rank, do):
    """Do something on a rank where the model is loaded."""
    return partial(_loading, rank, do)


def _loading(rank, do):
    from ftkit.tasks import train

    whole = train.build_policy

    def faulty(*args):
        if mine(rank):
            do()
        return whole(*args)

    train.build_policy = faulty


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def sleep():
    time.sleep(1000)


def stop():
    os.kill(os.getpid(), signal.SIGSTOP)


def work():
    """Take long and get on."""
    for _ in range(40):
        time.sleep(0.1)
        beat()
