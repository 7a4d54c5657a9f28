"""Saving: what transformers will make of the tokenizer, left to itself."""

from __future__ import annotations

import pytest

from ftkit.model.config import ModelConfig
from ftkit.model.load import load_policy
from ftkit.model.save import save_model
from ftkit.model.tokenizer import load_tokenizer, train_tokenizer
from tests.tiny import SIZES

TEXTS = ["12 + 345 = 357", "Is it so?  Yes: it is.", "another text of 2026"] * 9


@pytest.mark.parametrize("split_digits", [True, False])
def test_a_tokenizer_that_reloads_otherwise_is_told(tmp_path, caplog, split_digits):
    """Qwen2 models get Qwen2's rules from AutoTokenizer, whatever the tokenizer was trained by."""
    train_tokenizer(TEXTS, 320, split_digits=split_digits).save_pretrained(tmp_path / "tokenizer")
    init = {"architecture": "qwen2", **SIZES["qwen2"]}
    config = ModelConfig(init=init, tokenizer=str(tmp_path / "tokenizer"))
    tokenizer = load_tokenizer(config)
    policy = load_policy(config, tokenizer, micro_tokens=1000)
    save_model(policy, tmp_path / "model", [tokenizer.eos_token_id])
    assert ("AutoTokenizer reads" in caplog.text) is not split_digits
    again = load_tokenizer(ModelConfig(path=str(tmp_path / "model")))
    text = "Is 12 + 345 = 357?"
    assert again(text).input_ids == tokenizer(text).input_ids
