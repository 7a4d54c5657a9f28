"""Which stages of ZeRO serve which run: refused at once, naming the remedy."""

from __future__ import annotations

import pytest

from ftkit.core.errors import UserError
from ftkit.recipe import load_recipe

SFT = "recipes/tiny/sft.yaml"
TRPO = "recipes/tiny/trpo.yaml"


def faults(recipe, *overrides):
    with pytest.raises(UserError) as caught:
        load_recipe(recipe, overrides)
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_trpo_runs_with_whole_weights_only(stage):
    (found,) = faults(TRPO, f"parallel.zero={stage}")
    assert "parallel.zero" in found and found.endswith("; write 0, or leave it out")


def test_trpo_has_no_state_to_be_kept_elsewhere():
    (found,) = faults(TRPO, "parallel.offload=optimizer")
    assert "parallel.offload" in found and "trpo" in found


@pytest.mark.parametrize("zero", ["null", "0", "1", "2"])
def test_weights_are_kept_elsewhere_by_stage_3_only(zero):
    (found,) = faults(SFT, f"parallel.zero={zero}", "parallel.offload=all")
    assert found.endswith("write zero: 3, or offload: optimizer")


def test_without_an_engine_nothing_is_kept_elsewhere():
    (found,) = faults(SFT, "parallel.zero=0", "parallel.offload=optimizer")
    assert found.endswith("write zero: 1, 2 or 3, or offload: none")


@pytest.mark.parametrize(
    "overrides",
    [
        ("parallel.zero=0",),
        ("parallel.zero=3", "parallel.offload=all"),
        ("parallel.zero=2", "parallel.offload=optimizer"),
        ("parallel.offload=optimizer",),
    ],
)
def test_what_goes_together_is_taken(overrides):
    assert load_recipe(SFT, overrides).recipe.parallel


def test_no_other_stage():
    (found,) = faults(SFT, "parallel.zero=4")
    assert "write one of 0, 1, 2, 3" in found
