from __future__ import annotations

import pytest

from ftkit.core.errors import RunError
from ftkit.train import loop
from tests.end_to_end.conftest import run
from tests.end_to_end.test_resume import same

CODE = """
from pathlib import Path

def reward(answer, truth, **_):
    if Path(__file__).with_name("broken").exists():
        raise RuntimeError("no licence")
    return float(len(answer) % 2)
"""


@pytest.mark.parametrize("step", [2, 4])
def test_a_verifier_that_fails_costs_no_steps(recipe, tmp_path, monkeypatch, step):
    """The steps before are in a checkpoint, and what failed is asked again."""
    (tmp_path / "judge.py").write_text(CODE)
    sections = {
        "method": {"name": "grpo", "drop": True, "refill": 1},
        "train": {"updates": 2, "steps": 6, "prompts": 4},
        "sample": {"max_tokens": 4, "answers": 4},
        "verify": {"name": "python", "function": f"{tmp_path / 'judge.py'}:reward"},
        "checkpoint": {"every": None},
        "eval": {"every": None, "limit": 2},
    }
    assert run(recipe("straight", **sections)) == 0
    path = recipe("resumed", **sections)
    whole = loop.Loop._step

    def breaks(self):
        if self.state.step == step:
            (tmp_path / "broken").touch()
        whole(self)

    monkeypatch.setattr(loop.Loop, "_step", breaks)
    with pytest.raises(RunError, match="no licence"):
        run(path)
    monkeypatch.setattr(loop.Loop, "_step", whole)
    (tmp_path / "broken").unlink()
    saved = tmp_path / "resumed" / "checkpoints"
    assert [one.name for one in saved.iterdir()] == [f"step-{step:06}"]
    assert run(path, resume=True) == 0
    same(tmp_path / "straight", tmp_path / "resumed")
