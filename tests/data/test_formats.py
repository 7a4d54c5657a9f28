"""What rows say: formats found by columns, columns mapped, and rows that say nothing refused."""

from __future__ import annotations

import csv
import json

import pytest

from ftkit.core.errors import UserError
from ftkit.data.config import SourceConfig
from ftkit.data.example import Chat, Completion, Document
from ftkit.data.formats import examples
from tests.data.cases import assistant, user

SYSTEM = {"role": "system", "content": "Be kind."}


def read(tmp_path, rows, kind="demonstrations", **source):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    layouts = []
    config = SourceConfig(path=str(path), **source)
    found = list(examples(config, kind, 0, layouts.append))
    return found, layouts[0]


CHAT = (SYSTEM, user("Hi"), assistant("Hello"))
SAME_CHAT = {
    "messages": {"messages": [*CHAT]},
    "sharegpt": {
        "conversations": [
            {"from": "system", "value": "Be kind."},
            {"from": "human", "value": "Hi"},
            {"from": "gpt", "value": "Hello"},
        ]
    },
    "alpaca": {"system": "Be kind.", "instruction": "Hi", "input": "", "output": "Hello"},
    "prompt_completion": {"prompt": [SYSTEM, user("Hi")], "completion": [assistant("Hello")]},
}


@pytest.mark.parametrize("name", SAME_CHAT)
def test_formats_of_conversations_say_the_same(tmp_path, name):
    (found,), layout = read(tmp_path, [SAME_CHAT[name]])
    assert layout.name == name
    assert isinstance(found, Chat)
    assert (found.messages, found.learnt) == (CHAT, (2,))


def test_prompt_and_completion_and_text(tmp_path):
    (found,), _ = read(tmp_path, [{"prompt": "1+1=", "completion": "2", "truth": 2}])
    assert found == Completion("1+1=", "2", found.place, "2")
    (found,), _ = read(tmp_path, [{"text": "words"}], kind="documents")
    assert found == Document("words", found.place)


def test_the_order_in_which_formats_are_tried(tmp_path):
    every = {"text": "words", "prompt": "a", "completion": "b"}
    for row in SAME_CHAT.values():
        every = {**row, **every}
    assert read(tmp_path, [every])[1].name == "messages"
    assert read(tmp_path, [every])[1].also == ("sharegpt", "prompt_completion", "alpaca", "text")
    assert read(tmp_path, [every], kind="documents")[1].name == "text"
    assert read(tmp_path, [every], format="alpaca")[1].name == "alpaca"
    mapped = {"prompt": "input", "completion": "output"}
    assert read(tmp_path, [every], columns=mapped)[1].name == "prompt_completion"


def test_columns_are_mapped(tmp_path):
    rows = [{"question": "a", "answer": "b", "gold": 3}]
    columns = {"prompt": "question", "completion": "answer", "truth": "gold"}
    (found,), _ = read(tmp_path, rows, columns=columns)
    assert found == Completion("a", "b", found.place, "3")
    with pytest.raises(UserError, match=r"no column 'anwser'.*did you mean 'answer'"):
        read(tmp_path, rows, columns={**columns, "completion": "anwser"})
    with pytest.raises(UserError, match=r"prompt: question, completion: answer"):
        read(tmp_path, rows)


def test_texts_are_for_pretraining(tmp_path):
    with pytest.raises(UserError, match="ftkit pretrain"):
        read(tmp_path, [{"text": "words"}])


def test_content_may_come_in_parts(tmp_path):
    parts = [{"type": "text", "text": "He"}, {"type": "text", "text": "llo"}]
    (found,), _ = read(tmp_path, [{"messages": [user("Hi"), assistant(parts)]}])
    assert found.messages[1]["content"] == "Hello"
    with pytest.raises(UserError, match="part of type image"):
        read(tmp_path, [{"messages": [user([{"type": "image"}]), assistant("a")]}])


def test_turns_after_the_last_answer_are_left_out_and_counted(tmp_path):
    (found,), _ = read(tmp_path, [{"messages": [user("a"), assistant("b"), user("c")]}])
    assert (found.messages, found.trailing) == ((user("a"), assistant("b")), 1)


def test_only_the_completion_is_learnt_and_no_turn_of_weight_0(tmp_path):
    context = [user("a"), assistant("b"), user("c")]
    (found,), _ = read(tmp_path, [{"prompt": context, "completion": [assistant("d")]}])
    assert found.learnt == (3,)
    weighted = [user("a"), {**assistant("b"), "weight": 0}, user("c"), assistant("d")]
    (found,), _ = read(tmp_path, [{"messages": weighted}])
    assert found.learnt == (3,)
    assert found.messages[1] == assistant("b")


def test_what_else_a_message_has_is_kept_for_the_template(tmp_path):
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "add"}]}
    tools = [{"name": "add"}]
    (found,), _ = read(tmp_path, [{"messages": [user("a"), call], "tools": tools}])
    assert found.messages[1] == {**call, "content": ""}
    assert found.tools == tuple(tools)


def test_a_cell_may_hold_messages_as_json(tmp_path):
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["messages"], [json.dumps([user("a"), assistant("b")])]])
    (found,) = examples(SourceConfig(path=str(path)), "demonstrations", 0, lambda _: None)
    assert found.messages == (user("a"), assistant("b"))


def test_a_prompt_that_looks_like_json_stays_a_text(tmp_path):
    (found,), _ = read(tmp_path, [{"prompt": '[{"a": 1}]', "completion": "[1, 2]"}])
    assert (found.prompt, found.completion) == ('[{"a": 1}]', "[1, 2]")


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"messages": [{"role": "usr", "content": "a"}]}, "turn 1 of messages has role 'usr'"),
        ({"messages": [user("a")]}, "no turn of the assistant"),
        ({"messages": []}, "the conversation is empty"),
        ({"messages": "words"}, "messages is no list"),
        ({"messages": [user("a"), assistant(" ")]}, "turn 2, the assistant's, is empty"),
        ({"messages": [assistant("a")]}, "the assistant begins"),
        ({"messages": [user("a"), {"role": "assistant"}]}, "turn 2 of messages is missing"),
        ({"messages": [user("a"), {**assistant("b"), "weight": 2}]}, "neither 0 nor 1"),
        ({"prompt": "a", "completion": ""}, "the completion is empty"),
        ({"prompt": "a", "completion": 4}, "prompt and completion are str and int"),
        ({"prompt": "a", "completion": "b", "truth": [1]}, "truth is list"),
        ({"instruction": "a", "output": "b", "history": [["a"]]}, "no pair"),
    ],
)
def test_a_row_that_says_nothing_is_an_error_with_its_place(tmp_path, row, match):
    with pytest.raises(UserError, match=match) as caught:
        read(tmp_path, [row])
    assert str(caught.value).startswith(f"{tmp_path / 'rows.jsonl'}:1: ")
    assert all(fault.remedy for fault in caught.value.faults)


def test_faults_of_later_rows_come_together(tmp_path):
    good = {"prompt": "a", "completion": "b"}
    with pytest.raises(UserError) as caught:
        read(tmp_path, [good, {"prompt": "a"}, good, {"prompt": "a", "completion": " "}])
    assert [fault.place[-2:] for fault in caught.value.faults] == [":2", ":4"]
