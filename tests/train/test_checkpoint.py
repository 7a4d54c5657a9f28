"""Checkpoints: none is half there (PITFALLS 41), a full disk loses nothing."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import replace
from threading import Event

import pytest
import torch

from ftkit.core.errors import RunError, UserError
from ftkit.parallel import pieces
from ftkit.parallel.pieces import Piece
from ftkit.train import checkpoint, writing
from ftkit.train.checkpoint import Checkpoints
from ftkit.train.writing import Contents


def saved(step):
    values = {"weight": torch.full((3,), float(step)), "exp_avg": torch.full((3,), step + 0.5)}
    return Contents(step, {"w": Piece((3,), 0, values, steps=step)}, {"tokens": step})


def test_newest_comes_back(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(saved(step))
    assert checkpoints.steps() == [2, 3]
    found = checkpoints.load()
    assert (found.step, found.state, found.stored.steps("w")) == (3, {"tokens": 3}, 3)
    assert torch.equal(found.weights["w"], torch.full((3,), 3.0))
    assert torch.equal(found.stored.whole("w", "exp_avg"), torch.full((3,), 3.5))


def test_the_best_stays(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step in (1, 2, 3):
        checkpoints.save(replace(saved(step), keep_too=1))
    assert checkpoints.steps() == [1, 3]


def test_nothing_there(tmp_path):
    assert Checkpoints(tmp_path / "none", keep=1).load() is None


@pytest.mark.parametrize("calls", range(7))
def test_killed_while_saving(tmp_path, monkeypatch, calls):
    """Stop at each system call in turn: the newest complete checkpoint is whole."""

    class Killed(BaseException):
        pass

    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(saved(1))
    left = calls
    sync = writing.sync

    def count(path):
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        sync(path)

    monkeypatch.setattr(checkpoint, "sync", count)
    monkeypatch.setattr(writing, "sync", count)
    with suppress(Killed):
        checkpoints.save(saved(2))
    monkeypatch.undo()
    checkpoints = Checkpoints(tmp_path, keep=1)  # of the process that comes after
    found = checkpoints.load()
    assert torch.equal(found.weights["w"], torch.full((3,), float(found.step)))
    checkpoints.save(saved(3))
    assert checkpoints.steps() == [3]


def test_full_disk(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(saved(1))

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pieces, "save_file", full)
    with pytest.raises(UserError, match=r"disk is full.*--resume"):
        checkpoints.save(saved(2))
    assert checkpoints.steps() == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001"]


def test_damage_is_told(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    path = checkpoints.save(saved(1))
    (path / "shard-00000.safetensors").write_bytes(b"xx")
    with pytest.raises(RunError, match="damaged"):
        checkpoints.load()


def test_in_the_background_what_was_begun_is_written(tmp_path, monkeypatch):
    """The weights of the moment, though they change before anything is on the disk."""
    may_write = Event()
    slowly = writing.save_pieces

    def wait(*args):
        assert may_write.wait(10)
        slowly(*args)

    monkeypatch.setattr(writing, "save_pieces", wait)
    checkpoints = Checkpoints(tmp_path, keep=2)
    contents = saved(1)
    checkpoints.begin(contents, background=True)
    contents.pieces["w"].values["weight"].fill_(-5.0)
    assert checkpoints.pending and not checkpoints.settle(wait=False)
    assert checkpoints.load() is None
    may_write.set()
    assert checkpoints.settle() and not checkpoints.pending
    assert torch.equal(checkpoints.load().weights["w"], torch.full((3,), 1.0))


def test_in_the_background_a_full_disk_is_told_when_it_is_settled(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(saved(1))

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pieces, "save_file", full)
    checkpoints.begin(saved(2), background=True)
    with pytest.raises(UserError, match="disk is full"):
        checkpoints.settle()
    assert checkpoints.steps() == [1] and not checkpoints.pending
