"""What was meant by a key that does not exist."""

from __future__ import annotations

import pytest

from ftkit.core.errors import UserError
from ftkit.recipe import load_recipe
from ftkit.recipe.aliases import ALIASES
from ftkit.recipe.schema import key_paths


@pytest.mark.parametrize("name", ALIASES)
def test_what_stands_here_for_another_tools_key_is_a_key(name):
    target, note = ALIASES[name]
    assert target in key_paths() if target else note


def test_no_key_of_another_tool_hides_one_of_ours():
    assert not {name for name in ALIASES if name in key_paths()}
    assert all(name == name.lower() for name in ALIASES)


@pytest.mark.parametrize("name", [name for name, alias in ALIASES.items() if alias.target])
def test_the_key_that_other_tools_use_at_the_top_is_answered_with_ours(write, valid, name):
    target = ALIASES[name].target
    advice = f"write {target}" if "." in target else f"did you mean '{target}'?"
    assert f" {name}: unknown key; {advice}" in said(write(f"{name}: 1\n{valid}"))


def said(name):
    with pytest.raises(UserError) as caught:
        load_recipe(name)
    return str(caught.value)


@pytest.mark.parametrize(
    ("where", "key", "advice"),
    [
        ("train", "learning_rate", "did you mean 'lr'?"),
        ("train", "learning-rate", "did you mean 'lr'?"),
        ("train", "Learning_Rate", "did you mean 'lr'?"),
        ("train", "learning_rte", "did you mean 'lr'?"),
        ("train", "num_train_epochs", "did you mean 'epochs'?"),
        ("train", "epoch", "did you mean 'epochs'?"),
        ("train", "LR", "write 'lr'"),
        ("train", "max-grad-norm", "write 'max_grad_norm'"),
        ("train", "per_device_train_batch_size", "did you mean 'prompts'? (the prompts of a step"),
        ("train", "warmup_ratio", "did you mean 'warmup'? (a share of all steps below 1"),
        ("train", "dtype", "did you mean 'model.dtype' or 'verify.dtype'?"),
        ("train", "bf16", "write model.dtype (write bfloat16 or float32)"),
        ("train", "lora_dropout", "remove it: adapters have no dropout"),
        ("train", "seed", "did you mean 'seed'?"),
        ("train", "temperatur", "did you mean 'sample.temperature'?"),
        ("train", "zzzzzz", "the keys here are prompts, updates, rollout_epochs, micro_tokens"),
        ("data", "lr", "did you mean 'train.lr'?"),
        ("data", "cutoff_len", "did you mean 'max_length'?"),
        ("model", "lora_r", "write model.lora.r"),
    ],
)
def test_advice(write, valid, where, key, advice):
    text = valid.replace(f"{where}:\n", f"{where}:\n  {key}: 1\n")
    assert f" {where}.{key}: unknown key; {advice}" in said(write(text))
