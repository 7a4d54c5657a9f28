"""A folder to compare runs in."""

from __future__ import annotations

import json

import pytest

from ftkit.tasks.compare import compare
from tests.tasks.compare.online import OPTIONS


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def measure(here, capsys):
    def call(*runs, **options):
        compare([str(run) for run in runs], **{**OPTIONS, "as_json": True, **options})
        return json.loads(capsys.readouterr().out)

    return call
