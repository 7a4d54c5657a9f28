"""Rows without answers, for methods that sample theirs."""

from __future__ import annotations

import pytest

from ftkit.core.errors import UserError
from ftkit.data.config import SourceConfig
from tests.data.cases import byte_level, user
from tests.data.test_preferences import read, write

ROWS = [{"prompt": "2+2=", "truth": 4}, {"prompt": "3+3=", "truth": "6"}]


def groups(path, tokenizer=None, **source):
    sets = read([SourceConfig(path=path, **source)], tokenizer, kind="rollouts")
    return list(sets.train[0][0])


def test_a_text_is_fed_as_it_is(tmp_path):
    tokenizer = byte_level()
    first, second = groups(write(tmp_path / "rows.jsonl", ROWS), tokenizer)
    assert tokenizer.decode(first.prompt) == "2+2="
    assert (first.truth, second.truth) == ("4", "6")
    assert len(first.answers[0].tokens) == 1  # what ends an answer, and nothing before it


@pytest.mark.parametrize("messages", [True, False])
def test_messages_and_asked_texts_go_through_the_template(tmp_path, messages):
    asked = [user("2+2= Think.")]
    rows = [{"prompt": asked, "truth": 4}] if messages else ROWS[:1]
    told = {} if messages else {"ask": "{prompt} Think."}
    sets = read(
        [SourceConfig(path=write(tmp_path / "rows.jsonl", rows), **told)],
        kind="rollouts",
        template="chatml",
    )
    (group,) = sets.train[0][0]
    text = byte_level().decode(group.prompt)
    assert "2+2= Think." in text
    assert text.endswith("<|im_start|>assistant\n")


def test_demonstrations_serve_as_well(tmp_path):
    rows = [{"prompt": "2+2=", "completion": "4"}]
    (group,) = groups(write(tmp_path / "rows.jsonl", rows))
    assert group.answers[0].text == "4"


@pytest.mark.parametrize(
    ("rows", "ask", "words"),
    [
        (ROWS, "Think.", "has no {prompt} in it"),
        ([{"prompt": "a", "completion": "b"}], "{prompt}!", "are of format prompt_completion"),
    ],
)
def test_an_ask_that_cannot_be_meant_is_refused(tmp_path, rows, ask, words):
    with pytest.raises(UserError, match=words):
        groups(write(tmp_path / "rows.jsonl", rows), ask=ask)


def test_prompts_alone_are_no_demonstrations(tmp_path):
    path = write(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(UserError, match="without answers"):
        read([SourceConfig(path=path, format="prompts")], kind="demonstrations")


def test_another_ask_is_another_data_set(tmp_path):
    path = write(tmp_path / "rows.jsonl", ROWS)
    one, other = (
        read([SourceConfig(path=path, ask=ask)], kind="rollouts", template="chatml").fingerprint
        for ask in ("{prompt} A", "{prompt} B")
    )
    assert one != other
