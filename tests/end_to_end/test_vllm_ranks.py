"""The real vLLM on two ranks: one each, or one that both share (``make test-vllm``)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.end_to_end.conftest import lines
from tests.end_to_end.test_vllm_real import SIZES

pytestmark = pytest.mark.vllm

NEAR = 1e-4
"""Nats a token between sampler and trainer."""


@pytest.mark.parametrize(("shared", "zero"), [(1, 1), (2, 3)])
def test_two_ranks(recipe, files, tmp_path, shared, zero):
    """Weights arrive whole, though each rank holds a share; every rank's prompts are answered."""
    path = recipe(
        method={"name": "grpo"},
        model={"init": SIZES, "tokenizer": str(files / "tokenizer")},
        train={"steps": 4, "updates": 2, "prompts": 3},
        sample={
            "engine": "vllm",
            "max_tokens": 4,
            "answers": 4,
            "vllm": {"tensor_parallel": shared},
        },
        verify={"name": "format", "pattern": r"(?s)[ -~].*"},
        eval={"every": None, "limit": 5},
        parallel={"zero": zero},
    )
    command = [sys.executable, "-m", "ftkit", "train", str(path), "--gpus", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    steps = lines(tmp_path / "run/metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2, 3, 4]
    assert all(step["sampler_gap"] < NEAR for step in steps if "sampler_gap" in step)
    assert any("sampler_gap" in step for step in steps)
