"""Tokenizers: what is loaded does as its file says, and what is trained comes back the same."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config

from ftkit.core.errors import UserError
from ftkit.core.templates import CHATML
from ftkit.model.config import ModelConfig
from ftkit.model.tokenizer import PROBE, load_tokenizer, tokenizer_fingerprint, train_tokenizer

TEXTS = [
    "Tom has 128 apples and 128 pears.",
    "128 apples cost $4.50 each; 128 pears cost less.",
] * 9


@pytest.fixture(scope="module", params=[True, False], ids=["digits", "numbers"])
def trained(request):
    return train_tokenizer(TEXTS, 280, split_digits=request.param)


@pytest.fixture
def folder(tmp_path, trained):
    trained.save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def load(folder, **config):
    return load_tokenizer(ModelConfig(path=str(folder), **config))


def same(one, other):
    return (
        one(PROBE)["input_ids"] == other(PROBE)["input_ids"]
        and tokenizer_fingerprint(one) == tokenizer_fingerprint(other)
        and one.chat_template == other.chat_template
    )


def test_a_trained_tokenizer_is_what_it_says(trained):
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    assert trained.convert_tokens_to_ids(special) == [0, 1, 2, 3]
    assert (trained.eos_token, trained.pad_token, trained.bos_token) == (
        special[0],
        special[3],
        None,
    )
    assert trained.chat_template == CHATML
    assert len(trained) == 280


def test_digits_are_tokens_where_asked():
    words = [
        train_tokenizer(TEXTS, 280, split_digits=split).tokenize("128") for split in (True, False)
    ]
    assert words == [["1", "2", "8"], ["128"]]


@settings(max_examples=50, deadline=None)
@given(text=st.text("abé\u4e2d \n\t1<|", max_size=20))
def test_any_text_comes_back(trained, text):
    assert trained.decode(trained(text)["input_ids"]) == text


def test_training_twice_gives_the_same(trained):
    one, other = (train_tokenizer(TEXTS, 280) for _ in range(2))
    assert tokenizer_fingerprint(one) == tokenizer_fingerprint(other)


def test_what_is_saved_is_loaded_alike(trained, folder):
    assert same(AutoTokenizer.from_pretrained(folder), trained)
    assert same(load(folder), trained)


def test_beside_a_model_of_type_qwen2_the_file_still_holds(trained, folder):
    """SPEED: transformers takes its own rules for such folders; with split digits they are ours."""
    Qwen2Config(vocab_size=280).save_pretrained(folder)
    loaded = load(folder)
    assert loaded(PROBE)["input_ids"] == trained(PROBE)["input_ids"]
    assert loaded.decode(loaded(PROBE)["input_ids"]) == PROBE
    assert (loaded.eos_token_id, loaded.pad_token_id) == (
        trained.eos_token_id,
        trained.pad_token_id,
    )
    assert loaded.chat_template == CHATML


def test_a_folder_that_auto_tokenizer_reads_with_split_digits_needs_no_help(tmp_path):
    trained = train_tokenizer(TEXTS, 280)
    trained.save_pretrained(tmp_path)
    Qwen2Config(vocab_size=280).save_pretrained(tmp_path)
    assert same(AutoTokenizer.from_pretrained(tmp_path), trained)


def test_the_tokenizer_of_the_recipe_goes_before_the_models(tmp_path, folder):
    tokenizer = load_tokenizer(ModelConfig(path=str(tmp_path), tokenizer=str(folder)))
    assert len(tokenizer) == 280


def test_a_fingerprint_names_what_a_tokenizer_does(trained):
    other = train_tokenizer(TEXTS[:1], 270)
    assert tokenizer_fingerprint(other) != tokenizer_fingerprint(trained)
    before = tokenizer_fingerprint(other)
    other(["a", "bb"], padding=True, truncation=True, max_length=1)
    assert tokenizer_fingerprint(other) == before
    other.eos_token = "<|im_end|>"
    assert tokenizer_fingerprint(other) != before


def without_eos(folder):
    train_tokenizer(TEXTS, 280).save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    config = {**json.loads(file.read_text()), "tokenizer_class": "PreTrainedTokenizerFast"}
    del config["eos_token"]
    file.write_text(json.dumps(config))


def adapters(folder):
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")


def broken(folder):
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda folder: folder.mkdir(), "holds no tokenizer"),
        (lambda _: None, "there is no folder"),
        (adapters, "adapters without a tokenizer"),
        (broken, "no tokenizer can be loaded"),
        (without_eos, "no EOS token"),
    ],
)
def test_what_is_no_tokenizer_is_an_error(tmp_path, make, match):
    make(tmp_path / "model")
    with pytest.raises(UserError, match=match) as caught:
        load(tmp_path / "model")
    assert caught.value.faults[0].place == "model.path"
    assert caught.value.faults[0].remedy


def test_random_weights_need_a_tokenizer():
    with pytest.raises(UserError, match=r"model\.tokenizer: a model from random weights"):
        load_tokenizer(ModelConfig(init={"architecture": "qwen2"}))


def test_too_few_tokens_are_an_error():
    with pytest.raises(UserError, match="take 260 or more"):
        train_tokenizer(TEXTS, 259)


def test_tokens_that_only_the_class_adds_are_left_out(tmp_path):
    """A qwen2 folder whose files know no <|endoftext|>: the model has no row for it."""
    words = {"<s>": 0, "</s>": 1, "<unk>": 2, **{w: i for i, w in enumerate(PROBE.split(), 3)}}
    filed = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    filed.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=filed, **special).save_pretrained(tmp_path)
    Qwen2Config(vocab_size=len(words)).save_pretrained(tmp_path)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) > len(words), "the trap is gone"
    loaded = load(tmp_path)
    assert len(loaded) == len(words)
    assert (loaded.eos_token, loaded.pad_token) == ("</s>", None)
