"""``ftkit chat``: what the model is fed, and what is printed."""

from __future__ import annotations

import io
import json
import shutil

import pytest

from ftkit.core.errors import UserError
from ftkit.data.template import encode_prompt, stop_tokens
from ftkit.model.config import ModelConfig
from ftkit.model.tokenizer import load_tokenizer
from ftkit.samplers.hf import HFSampler
from ftkit.tasks.chat import Talk, chat

GREEDY = {"temperature": 0.0, "max_tokens": 5}


@pytest.fixture
def conversational(run, tmp_path):
    """The same run, had it learnt conversations."""
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "data.json").write_text(json.dumps({"train": [{"masks": "diff"}]}))
    return folder


@pytest.fixture
def tokenizer(run):
    return load_tokenizer(ModelConfig(path=str(run / "model")))


@pytest.fixture
def fed(monkeypatch):
    """What each answer is sampled from."""
    prompts, stream = [], HFSampler.stream

    def spy(self, prompt, *, seed):
        prompts.append(list(prompt))
        return stream(self, prompt, seed=seed)

    monkeypatch.setattr(HFSampler, "stream", spy)
    return prompts


def turns(*texts):
    return [
        {"role": role, "content": text}
        for text, role in zip(texts, ("user", "assistant") * 3, strict=False)
    ]


class Script:
    """A sampler that says what it is told to."""

    def __init__(self, *answers, stop=()):
        self.answers, self.stop = list(answers), stop

    def stream(self, prompt, *, seed):
        yield from self.answers.pop(0)


def test_a_model_of_completions_is_fed_the_line_as_it_is(run, fed, tokenizer, capsys):
    chat(str(run), once="3+1=", **GREEDY)
    chat(str(run / "model"), once="3+1=", **GREEDY)  # the run beside it says so too
    ids = tokenizer("3+1=", add_special_tokens=False)["input_ids"]
    assert fed == [ids, ids]
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


def test_a_model_of_conversations_is_fed_the_history(conversational, fed, tokenizer, monkeypatch):
    lines = "1\n\n 2 \n/reset\n3\n/quit\n4\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    chat(str(conversational), once=None, **GREEDY)
    assert len(fed) == 3
    assert fed[0] == encode_prompt(tokenizer, turns("1"))
    assert fed[1][: len(fed[0])] == fed[0]
    assert len(fed[1]) > len(fed[0])
    assert fed[2] == encode_prompt(tokenizer, turns("3"))


def test_the_history_holds_what_was_said(tokenizer):
    stop = stop_tokens(tokenizer)
    said = tokenizer("2 + é", add_special_tokens=False)["input_ids"]
    talk = Talk(Script([*said, stop[-1]], said, stop=stop), tokenizer, templated=True)
    assert "".join(talk.answer("1")) == "2 + é"
    assert "".join(talk.answer("5")) == "2 + é"
    assert talk.history == turns("1", "2 + é", "5", "2 + é")
    comma = tokenizer(",", add_special_tokens=False)["input_ids"]  # no special token
    stopped = Talk(Script([*said, *comma], stop=comma), tokenizer, templated=False)
    assert "".join(stopped.answer("1")) == "2 + é"
    plain = Talk(Script(said, stop=stop), tokenizer, templated=False)
    assert "".join(plain.answer("1")) == "2 + é"
    assert plain.history == []


def test_no_piece_is_half_a_character(tokenizer):
    said = tokenizer("a€b", add_special_tokens=False)["input_ids"]
    assert len(said) > 3
    pieces = list(Talk(Script(said), tokenizer, templated=False).answer("1"))
    assert "".join(pieces) == "a€b"
    assert [piece for piece in pieces if piece] == ["a", "€", "b"]
    cut = list(Talk(Script(said[:2]), tokenizer, templated=False).answer("1"))
    assert "".join(cut) == "a\N{REPLACEMENT CHARACTER}"  # never finished: shown at the end


@pytest.mark.parametrize("templated", [True, False])
def test_a_prompt_without_room_does_not_end_the_conversation(
    templated, run, conversational, monkeypatch, capsys
):
    target = str(conversational if templated else run)
    monkeypatch.setattr("sys.stdin", io.StringIO("3+1=\n" + "1" * 70 + "\n/reset\n3+1=\n"))
    chat(target, once=None, **GREEDY)
    captured = capsys.readouterr()
    assert "tokens fills all 64 positions" in captured.err
    assert ("/reset" in captured.err) == templated
    first, second = captured.out.split("(forgotten)\n")
    assert first == second


def test_a_folder_that_is_not_there_is_no_name_of_the_hub():
    with pytest.raises(UserError, match="nowhere: there is no such folder"):
        chat("nowhere", once="hi", temperature=0.0, max_tokens=3)
