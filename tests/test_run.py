"""The composition root: settings of the whole process."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ftkit.run import set_up_torch
from ftkit.train.config import TrainConfig


@pytest.fixture
def restored():
    threads, matmul = torch.get_num_threads(), torch.get_float32_matmul_precision()
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(matmul)


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize(("matmul", "threads"), [("medium", 1), ("high", 2), ("highest", 1)])
def test_precision_and_threads(matmul, threads):
    train = TrainConfig(lr=1.0, matmul=matmul, threads=threads)
    set_up_torch(SimpleNamespace(train=train))
    assert torch.get_float32_matmul_precision() == matmul
    assert torch.get_num_threads() == threads
