"""The method that CONTRIBUTING.md adds really is a method."""

from __future__ import annotations

import importlib.util
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import torch
from pydantic import Field, TypeAdapter, ValidationError

from ftkit.core.batch import collate
from ftkit.core.group import Answer, Group
from ftkit.objectives import SFT, Pretrain

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def code() -> str:
    (block,) = re.findall(r"`ftkit/objectives/focal\.py`:\n\n```python\n(.*?)```", PAGE, re.DOTALL)
    return block


@pytest.fixture(scope="module")
def focal(code, tmp_path_factory):
    path = tmp_path_factory.mktemp("objectives") / "focal.py"
    path.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("focal", path)
    module = sys.modules["focal"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module.Focal
    del sys.modules["focal"]


@pytest.fixture(scope="module")
def batch():
    return collate(
        [
            Group(id="a", prompt=(1,), answers=(Answer((2, 3)),)),
            Group(id="b", prompt=(1, 1), answers=(Answer((2,)),)),
        ]
    )


def test_a_recipe_can_name_it_and_wrong_constants_are_refused(focal):
    method = TypeAdapter(Annotated[Pretrain | SFT | focal, Field(discriminator="name")])
    assert method.validate_python({"name": "focal"}) == focal(name="focal", gamma=2.0)
    for wrong in ({"gamma": 0.5}, {"gama": 2.0}, {"gamma": "2"}):
        with pytest.raises(ValidationError):
            method.validate_python({"name": "focal", **wrong})


def test_its_loss_is_the_equation_and_padding_is_not_learnt(focal, batch):
    logp = torch.log(torch.tensor([[[0.5, 0.25]], [[0.5, 1.0]]]))
    logp.requires_grad_()
    loss = focal(name="focal", gamma=2.0).loss(logp, batch)
    half, quarter = 0.25 * math.log(2), 0.5625 * math.log(4)
    expected = torch.tensor([[[half, quarter]], [[half, 0.0]]])
    torch.testing.assert_close(loss.terms, expected)
    loss.terms.sum().backward()
    assert logp.grad[1, 0, 1] == 0
    assert torch.isfinite(logp.grad).all()


def test_it_is_at_most_the_negative_log_likelihood(focal, batch):
    logp = torch.log(torch.tensor([[[0.5, 0.25]], [[0.5, 1.0]]]))
    sft = SFT(name="sft").loss(logp, batch).terms
    assert (focal(name="focal", gamma=1.0).loss(logp, batch).terms <= sft).all()


def test_it_keeps_the_rules_of_the_house(code):
    ruff = shutil.which("ruff", path=Path(sys.executable).parent) or shutil.which("ruff")
    assert ruff is not None, "`make setup` installs it"
    name = str(ROOT / "ftkit" / "objectives" / "focal.py")
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [ruff, *command, "--stdin-filename", name, "-"],
            input=code,
            text=True,
            capture_output=True,
            check=False,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stdout + done.stderr
