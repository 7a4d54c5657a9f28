"""Samples: what is learnt of completions and documents, and what becomes of those too long."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.core.errors import UserError
from ftkit.core.group import content_id
from ftkit.data.config import DataConfig
from ftkit.data.encode import Encoder
from ftkit.data.example import Chat, Completion, Document
from ftkit.data.template import encode_prompt
from tests.data.cases import assistant, byte_level, merging, spaced, user, with_bos

TOKENIZERS = {"bytes": byte_level, "bos": with_bos, "spaced": spaced}
TEXTS = st.text("ab 1.\nN", min_size=1, max_size=10).filter(lambda text: text.strip())


def encode(tokenizer, *examples, kind="demonstrations", **config):
    encoder = Encoder(tokenizer, DataConfig(train="rows", **config), kind)
    return [sample for _, samples in encoder.encode(examples) for sample in samples]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=40, deadline=None)
@given(prompt=TEXTS, completion=TEXTS)
def test_a_completion_is_learnt_whole_with_one_eos_after_what_inference_is_fed(
    name, prompt, completion
):
    """PITFALLS 1, 3, 7, 8."""
    tokenizer = TOKENIZERS[name]()
    pair = Completion(prompt, completion, "rows:1")
    (sample,) = encode(tokenizer, pair)
    group = sample.group("rows")
    assert list(group.prompt) == encode_prompt(tokenizer, pair)
    tokens = group.answers[0].tokens
    assert tokens[-1] == tokenizer.eos_token_id
    assert tokens.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(tokens[:-1]).strip() == completion.strip()
    assert group.answers[0].learn is None
    if tokenizer.bos_token_id is not None:
        assert sample.ids.count(tokenizer.bos_token_id) == 1
        assert sample.ids[0] == tokenizer.bos_token_id


@pytest.mark.parametrize("name", ["bytes", "bos"])
def test_a_completion_comes_back_to_the_letter(name):
    """PITFALLS 8."""
    tokenizer = TOKENIZERS[name]()
    for completion in (" 42", "42", "\n\n42", "  x  "):
        (sample,) = encode(tokenizer, Completion("12 + 30 =", completion, "rows:1"))
        assert tokenizer.decode(sample.ids[sample.start : -1]) == completion


def test_no_space_is_put_before_a_completion():
    tokenizer = spaced()
    (sample,) = encode(tokenizer, Completion("1+1=", "2", "rows:1"))
    assert tokenizer.convert_ids_to_tokens(list(sample.ids[-2:])) == ["2", "</s>"]
    assert tokenizer.decode(sample.ids, skip_special_tokens=True).strip() == "1+1=2"


def test_prompt_and_completion_never_share_a_token():
    """PITFALLS 8."""
    tokenizer = merging("")
    (sample,) = encode(tokenizer, Completion("Which?\n", "North", "rows:1"))
    assert tokenizer.decode(sample.ids[sample.start :]) == "North</s>"


def test_special_tokens_that_the_text_has_are_not_doubled():
    """PITFALLS 1, 3."""
    tokenizer = with_bos()
    (sample,) = encode(tokenizer, Completion("<s>a", "b</s>", "rows:1"))
    (other,) = encode(tokenizer, Completion("a", "b", "rows:1"))
    assert sample.ids == other.ids


@pytest.mark.parametrize("kind", ["demonstrations", "documents"])
def test_the_pad_token_changes_nothing(kind):
    """PITFALLS 2: masks go by length, so EOS is learnt though it pads."""
    tokenizer, other = byte_level(), byte_level()
    tokenizer.pad_token = tokenizer.eos_token
    pair = Completion("a", "b", "rows:1")
    (sample,), (same,) = (encode(one, pair, kind=kind) for one in (tokenizer, other))
    assert sample == same
    assert sample.ids[-1] == tokenizer.eos_token_id
    assert sample.learn[-1][1] == len(sample.ids)


def test_answers_to_one_prompt_keep_it_the_same_when_they_are_cut():
    """PITFALLS 11: only ends are cut, so that prompts stay equal; answers may become so."""
    pairs = [Completion("which?", "bbbbbbbb" + end, "rows:1") for end in ("c", "dd", "")]
    long, longer, short = encode(byte_level(), *pairs, max_length=12, overlong="truncate")
    assert long.key == longer.key == short.key
    assert {s.ids[: s.start] for s in (long, longer, short)} == {short.ids[: short.start]}
    assert long.id == longer.id


def test_no_sample_has_tokens_of_two_documents():
    """PITFALLS 16: also where long documents are split."""
    documents = [Document("a" * 30, "rows:1"), Document("b" * 30, "rows:2")]
    samples = encode(byte_level(), *documents, kind="documents", max_length=7, overlong="split")
    texts = [sample.text.replace("<|endoftext|>", "") for sample in samples]
    assert {frozenset(text) for text in texts} <= {frozenset("a"), frozenset("b"), frozenset()}


def test_an_empty_prompt_needs_a_bos_token():
    (sample,) = encode(with_bos(), Completion("", "b", "rows:1"))
    assert sample.start == 1
    with pytest.raises(UserError, match=r"rows:1: the prompt is empty"):
        encode(byte_level(), Completion("", "b", "rows:1"))


def test_a_document_is_learnt_but_for_its_first_token():
    """PITFALLS 3."""
    (sample,) = encode(byte_level(), Document("Hello", "rows:1"), kind="documents")
    assert sample.learn == ((1, len(sample.ids)),)
    assert sample.ids[-1] == byte_level().eos_token_id
    (sample,) = encode(with_bos(), Document("Hello", "rows:1"), kind="documents")
    assert sample.ids[0] == with_bos().bos_token_id


def test_conversations_and_completions_are_documents_too():
    tokenizer = byte_level()
    chat = Chat((user("a"), assistant("b")), "rows:1")
    pair = Completion("a", "b", "rows:2")
    samples = encode(tokenizer, chat, pair, kind="documents")
    assert [sample.trained for sample in samples] == [len(s.ids) - 1 for s in samples]
    turns = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
    assert [tokenizer.decode(s.ids) for s in samples] == [
        f"{turns}<|endoftext|>",
        "ab<|endoftext|>",
    ]


def test_an_empty_document_is_dropped_with_its_reason():
    empty, full = encode(
        byte_level(), Document("", "rows:1"), Document("a", "rows:2"), kind="documents"
    )
    assert (empty.dropped, full.dropped) == ("it has no tokens", None)


@settings(max_examples=60, deadline=None)
@given(text=st.text("ab ", min_size=1, max_size=60), limit=st.integers(2, 9))
def test_windows_predict_every_token_of_a_document_but_its_first_exactly_once(text, limit):
    tokenizer = byte_level()
    (whole,) = encode(tokenizer, Document(text, "rows:1"), kind="documents")
    windows = encode(
        tokenizer, Document(text, "rows:1"), kind="documents", max_length=limit, overlong="split"
    )
    learnt = [ident for window in windows for a, b in window.learn for ident in window.ids[a:b]]
    assert tuple(learnt) == whole.ids[1:]
    assert all(2 <= len(window.ids) <= limit for window in windows)
    assert len({window.key for window in windows}) == 1
    for before, after in pairwise(windows):
        assert after.ids[0] == before.ids[-1]


LONG = Completion("aaaa", "b" * 20, "rows:1")


def test_overlong_rows_are_errors_with_their_places():
    """PITFALLS 9."""
    rows = (LONG, Completion("a", "b", "rows:2"), Completion("c", "d" * 99, "rows:3"))
    with pytest.raises(UserError) as caught:
        encode(byte_level(), *rows, max_length=8)
    assert [fault.place for fault in caught.value.faults] == ["rows:1", "rows:3"]


def test_a_truncated_row_keeps_its_beginning_and_loses_its_eos():
    """PITFALLS 9."""
    tokenizer = byte_level()
    (whole,) = encode(tokenizer, LONG)
    (cut,) = encode(tokenizer, LONG, max_length=8, overlong="truncate")
    assert cut.truncated
    assert cut.ids == whole.ids[:8]
    assert tokenizer.eos_token_id not in cut.ids
    assert tokenizer.decode(cut.ids[cut.start :]) == cut.text


def test_a_row_of_which_nothing_to_learn_is_left_is_dropped():
    """PITFALLS 9, 10."""
    (cut,) = encode(byte_level(), LONG, max_length=2, overlong="truncate")
    assert cut.dropped == "its prompt alone fills max_length"
    (dropped,) = encode(byte_level(), LONG, max_length=8, overlong="drop")
    assert dropped.dropped == "longer than max_length"


def test_what_a_template_writes_after_the_last_turn_makes_no_row_too_long():
    chat = Chat((user("a"), assistant("b")), "rows:1", learnt=(1,))
    (whole,) = encode(byte_level(), chat)
    assert whole.learn[-1][1] == len(whole.ids) - 1
    (fitted,) = encode(byte_level(), chat, max_length=len(whole.ids) - 1)
    assert (fitted.ids, fitted.truncated) == (whole.ids[:-1], False)


def test_split_is_for_documents():
    with pytest.raises(UserError, match="pretrain only"):
        encode(byte_level(), LONG, overlong="split")


def test_a_group_is_named_by_its_content():
    chat = Chat((user("a"), assistant("b"), user("c"), assistant("d")), "rows:1", learnt=(1, 3))
    (sample,) = encode(byte_level(), chat)
    group = sample.group("rows")
    assert group.prompt + group.answers[0].tokens == sample.ids
    mask = [False] * len(group.prompt) + group.answers[0].mask()
    assert [n for n, learnt in enumerate(mask) if learnt] == [
        n for start, stop in sample.learn for n in range(start, stop)
    ]
    assert group.id == content_id(group.prompt, group.answers[0].tokens)
