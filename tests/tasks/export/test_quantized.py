"""``ftkit export`` of adapters whose base was in 4 bits: what is merged is what was trained."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from ftkit.model.config import ModelConfig
from ftkit.model.load import load_policy
from ftkit.model.merge import in_float32, outputs
from ftkit.model.tokenizer import load_tokenizer
from tests.tasks.export.conftest import logits, made, the_rows

pytest.importorskip("bitsandbytes", reason="the extra `quantize` is not installed")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_merge_says_what_the_trained_model_said(place, adapted, capsys, dtype):
    run = adapted(quantize="nf4", dtype=dtype)
    report = made(run, capsys, dtype="float32")
    assert (report["form"], report["merged_in"]) == ("merged", "float32")
    gaps = report["difference"]
    assert gaps["total"]["largest"] < 1e-3 * report["spread"] < gaps["learnt"]["largest"]
    assert gaps["reading"]["largest"] == 0
    assert "values of 4 bits" in report["notes"][0]
    config = ModelConfig(path=str(run / "model"), dtype=dtype)
    tokenizer = load_tokenizer(config)
    trained = load_policy(config, tokenizer, micro_tokens=64, trainable=False)
    in_float32(trained)
    merged = AutoModelForCausalLM.from_pretrained(run / "export")
    assert "quantization_config" not in json.loads((run / "export" / "config.json").read_text())
    rows = the_rows(place)
    for a, b in zip(logits(merged, rows), outputs(trained, rows), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_adapters_alone_know_the_form_of_their_base(adapted, capsys):
    run = adapted(quantize="nf4")
    report = made(run, capsys, merge=False)
    assert report["difference"]["total"] == {"largest": 0, "mean": 0}
    assert (run / "export" / "quantize.json").is_file()


def test_a_reward_model_is_merged_with_its_head(adapted, capsys):
    run = adapted(method="reward", quantize="nf4")
    pair = {"prompt": "1+1=", "chosen": "2", "rejected": "3"}
    (run.parent / "train.jsonl").write_text(json.dumps(pair))
    report = made(run, capsys)
    assert report["difference"]["total"]["largest"] < 1e-3 * report["spread"]
