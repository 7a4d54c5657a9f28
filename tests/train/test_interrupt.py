"""Signals to a run: noted once, whenever they come, and a person's second one."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace

import pytest

from ftkit.parallel.world import OneProcess
from ftkit.train import interrupt as module
from ftkit.train.interrupt import CAUGHT, Interrupt
from ftkit.train.loop import Loop


@pytest.mark.parametrize("number", CAUGHT)
def test_the_first_is_noted_and_the_others_are_no_harm(number):
    with Interrupt() as interrupt:
        for each in (number, signal.SIGTERM, signal.SIGUSR1, number):
            os.kill(os.getpid(), each)
        assert interrupt.signal == number
        assert interrupt.status == 128 + number


def test_a_ctrl_c_that_comes_by_two_ways_is_one(monkeypatch):
    monkeypatch.setattr(module, "APART", 0.05)
    with Interrupt() as interrupt, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.signal == signal.SIGINT
        time.sleep(0.06)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_first_ctrl_c_after_another_signal_is_no_second_one(monkeypatch):
    monkeypatch.setattr(module, "APART", 0.0)
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.signal == signal.SIGUSR1


def test_nohup_stays_in_force():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupt.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_one_that_comes_while_ranks_speak_of_it_counts_next_time():
    class Late(OneProcess):
        def gather(self, items):
            found = super().gather(items)
            os.kill(os.getpid(), signal.SIGTERM)
            return found

    with Interrupt() as interrupt:
        loop = SimpleNamespace(world=Late(), interrupt=interrupt)
        assert Loop._stopped(loop) is None
        assert Loop._stopped(loop) == signal.SIGTERM
