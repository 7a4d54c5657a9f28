"""``ftkit export``: adapters, merged or alone."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

from ftkit.core.errors import UserError
from tests.tasks.export.conftest import (
    ALPHA,
    R,
    logits,
    made,
    the_rows,
)


def merged_by_hand(place, run):
    """W + alpha / r B A, in float64, by the names of the base."""
    adapters = load_file(run / "model" / "adapter_model.safetensors")
    weights = {n: w.double() for n, w in load_file(place / "base" / "model.safetensors").items()}
    for name, a in adapters.items():
        if ".lora_A." in name:
            b = adapters[name.replace(".lora_A.", ".lora_B.")]
            own = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
            weights[own] = weights[own] + ALPHA / R * b.double() @ a.double()
    return weights


# adapters merged


def test_a_merge_is_base_plus_adapters_and_says_what_they_said(place, adapted, capsys):
    run = adapted()
    report = made(run, capsys)
    assert report["folder"] == str(run / "export")
    expected = merged_by_hand(place, run)
    found = load_file(run / "export" / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        torch.testing.assert_close(weight.double(), expected[name], atol=1e-6, rtol=1e-6)
    rows = the_rows(place)
    base = AutoModelForCausalLM.from_pretrained(place / "base")
    before = logits(PeftModel.from_pretrained(base, run / "model").eval(), rows)
    after = logits(AutoModelForCausalLM.from_pretrained(run / "export"), rows)
    for a, b in zip(after, before, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    total = report["difference"]["total"]
    assert 0 < total["mean"] < total["largest"] < 1e-4
    assert report["difference"]["merging"] == total
    assert report["difference"]["reading"] == {"largest": 0, "mean": 0}
    assert report["probe"] == {
        "of": "the run's training rows",
        "rows": 3,
        "tokens": sum(map(len, rows)),
    }
    assert (report["form"], report["merged_in"], report["dtype"]) == (
        "merged",
        "float32",
        "float32",
    )
    assert report["base"] == {"path": str(place / "base"), "revision": None}
    assert not report["notes"]


def test_a_merge_in_bfloat16_is_made_in_float32_and_rounded_once(place, adapted, capsys):
    """And what is reported is what is measured on the files by transformers and peft alone."""
    run = adapted()
    report = made(run, capsys, dtype="bfloat16")
    folder = run / "export"
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    exact = merged_by_hand(place, run)
    for name, weight in load_file(folder / "model.safetensors").items():
        step = torch.finfo(torch.bfloat16).eps * exact[name].abs()
        assert weight.dtype == torch.bfloat16
        assert ((weight.double() - exact[name]).abs() <= step / 2 + 1e-6).all()
    rows = the_rows(place)
    base = AutoModelForCausalLM.from_pretrained(place / "base")
    before = torch.cat(logits(PeftModel.from_pretrained(base, run / "model").eval(), rows))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).float()
    gap = (torch.cat(logits(model, rows)) - before).abs()
    total = report["difference"]["total"]
    assert total["largest"] == pytest.approx(gap.max().item(), rel=1e-3)
    assert total["mean"] == pytest.approx(gap.mean().item(), rel=1e-3)
    assert report["spread"] == pytest.approx(before.std().item(), rel=1e-3)
    assert report["difference"]["rounding"]["mean"] > 100 * report["difference"]["merging"]["mean"]


def test_the_precision_is_the_recipes(adapted, capsys):
    report = made(adapted(dtype="bfloat16"), capsys)
    assert report["dtype"] == "bfloat16"
    assert report["difference"]["merging"]["largest"] < 1e-3 * report["spread"]


def test_rounding_that_undoes_what_was_learnt_is_told(adapted, capsys):
    """Adapters below half a step of bfloat16 are lost: rounding takes back all that they did."""
    report = made(adapted(dtype="bfloat16", size=1e-7), capsys)
    learnt, rounding = report["difference"]["learnt"], report["difference"]["rounding"]
    assert rounding["mean"] == pytest.approx(learnt["mean"], rel=0.2)
    assert "undoes a good part of what the adapters have learnt" in report["notes"][0]


@pytest.mark.parametrize("targets", [["lm_head"], ["q_proj", "embed_tokens"]])
def test_a_merge_that_changes_the_model_is_refused_and_leaves_nothing(adapted, capsys, targets):
    """Where head and embeddings are one matrix, merging adapters of one changes the other."""
    run = adapted(base="tied", targets=targets)
    before = sorted(run.iterdir())
    with pytest.raises(UserError, match=r"merging its adapters changes .* up to .*--no-merge"):
        made(run)
    assert sorted(run.iterdir()) == before
    if targets != ["lm_head"]:
        return
    assert made(run, capsys, merge=False)["difference"]["total"]["largest"] == 0


def test_a_reward_model_is_merged_with_its_head(place, adapted, capsys):
    run = adapted(method="reward")
    tree = yaml.safe_load((run / "recipe.yaml").read_text())
    pair = {"prompt": "1+1=", "chosen": "2", "rejected": "3"}
    (run.parent / "train.jsonl").write_text(json.dumps(pair))
    (run / "recipe.yaml").write_text(yaml.safe_dump(tree))
    report = made(run, capsys)
    assert report["of"] == "rewards"
    assert report["probe"]["rows"] == 1
    model = AutoModelForSequenceClassification.from_pretrained(run / "export")
    options = {"num_labels": 1, "pad_token_id": model.config.pad_token_id}
    base = AutoModelForSequenceClassification.from_pretrained(place / "base", **options)
    expected = PeftModel.from_pretrained(base, run / "model").eval()
    for a, b in zip(logits(model, the_rows(place)), logits(expected, the_rows(place)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


# adapters alone


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_alone_are_those_of_the_run(place, adapted, capsys, dtype):
    run = adapted(dtype=dtype)
    report = made(run, capsys, merge=False)
    assert (report["form"], report["dtype"]) == ("adapters", "float32")
    assert report["difference"]["total"] == {"largest": 0, "mean": 0}
    theirs = load_file(run / "model" / "adapter_model.safetensors")
    mine = load_file(run / "export" / "adapter_model.safetensors")
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], weight) for name, weight in theirs.items())
    assert not (run / "export" / "model.safetensors").exists()
    AutoPeftModelForCausalLM.from_pretrained(run / "export")


def test_adapters_alone_are_rounded_and_their_base_is_not(place, adapted, capsys):
    run = adapted()
    report = made(run, capsys, merge=False, dtype="bfloat16")
    theirs = load_file(run / "model" / "adapter_model.safetensors")
    mine = load_file(run / "export" / "adapter_model.safetensors")
    assert all(torch.equal(mine[name], weight.bfloat16()) for name, weight in theirs.items())
    rows = the_rows(place)
    said = [
        torch.cat(logits(PeftModel.from_pretrained(base, run / folder).eval(), rows))
        for folder in ("model", "export")
        for base in [AutoModelForCausalLM.from_pretrained(place / "base")]
    ]
    gap = (said[0] - said[1]).abs().max().item()
    assert report["difference"]["rounding"]["largest"] == pytest.approx(gap, rel=1e-3)
    assert gap > 0
