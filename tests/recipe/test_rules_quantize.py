"""Weights in 4 bits go with adapters, whole weights and the embedded sampler: else refused."""

from __future__ import annotations

import pytest

from ftkit.recipe import load_recipe
from tests.recipe.test_rules_parallel import faults

SFT = "recipes/tiny/sft.yaml"
GRPO = "recipes/tiny/grpo.yaml"
QLORA = ("model.quantize=nf4", "model.lora={r: 4}")


def test_only_adapters_are_trained():
    (found,) = faults(SFT, "model.quantize=nf4")
    assert "model.quantize: nf4, and weights in 4 bits cannot be trained" in found
    assert found.endswith("; write model.lora: {r: 16}, or remove it")


def test_random_weights_are_not_frozen():
    (found,) = faults("recipes/tiny/pretrain.yaml", "model.quantize=nf4")
    assert "model.quantize" in found and found.endswith(
        "; give weights as model.path, or remove it"
    )


def test_weights_in_4_bits_are_not_cut_up():
    (found,) = faults(SFT, *QLORA, "parallel.zero=3")
    assert "parallel.zero: 3, and weights in 4 bits (model.quantize)" in found
    assert "; write 2 or less" in found


@pytest.mark.parametrize("zero", ["null", "2"])
def test_weights_in_4_bits_stay_where_they_compute(zero):
    (found,) = faults(SFT, *QLORA, "parallel.offload=all", f"parallel.zero={zero}")
    assert "parallel.offload: all, and" in found and found.endswith("; write optimizer or none")


def test_all_that_is_wrong_is_said_at_once():
    found = faults(SFT, "model.quantize=nf4", "parallel.offload=all", "parallel.zero=3")
    assert len(found) == 3


def test_vllm_takes_no_weights_in_4_bits():
    (found,) = faults(GRPO, *QLORA, "sample.engine=vllm")
    assert "sample.engine: vllm, which cannot take over weights in 4 bits" in found
    assert found.endswith("; write hf, or model.quantize: null")


def test_no_other_form():
    (found,) = faults(SFT, "model.quantize=int8", "model.lora={r: 4}")
    assert "model.quantize" in found and "nf4" in found


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        (SFT, ()),
        (SFT, ("parallel.zero=2", "parallel.offload=optimizer")),
        (GRPO, ("parallel.zero=0",)),
        ("recipes/tiny/dpo.yaml", ("model.lora={}",)),
        ("recipes/tiny/ppo.yaml", ()),
        ("recipes/tiny/reward.yaml", ()),
        ("recipes/tiny/trpo.yaml", ()),
    ],
)
def test_what_goes_together_is_taken(recipe, overrides):
    assert load_recipe(recipe, (*QLORA, *overrides)).recipe.model.quantize == "nf4"


def test_null_is_as_nothing():
    assert load_recipe(SFT, ("model.quantize=null", "parallel.zero=3")).recipe.parallel.zero == 3
