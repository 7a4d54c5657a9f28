"""The files that a recipe names, looked for before anything is loaded."""

from __future__ import annotations

import pytest

from ftkit.core.errors import UserError
from ftkit.recipe import load_recipe, missing_files, require_files, require_method


def missing(write, text):
    return [str(fault) for fault in missing_files(load_recipe(write(text)))]


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_what_is_there_is_no_fault(write, valid, folder):
    touch(
        folder, "rows.jsonl", "held-out.jsonl", "m/model/config.json", "t/tokenizer.json", "t.jinja"
    )
    text = valid.replace("org/model", "m/model\n  tokenizer: ./t")
    assert missing(write, text.replace("train: rows", "template: t.jinja\n  train: rows")) == []


def test_every_missing_file_is_named_with_its_place(write, valid, folder):
    touch(folder, "row.jsonl", "m/weights")
    text = valid.replace("org/model", "m/nothing\n  tokenizer: ./m")
    found = missing(write, text.replace("train: rows", "template: chat\n  train: rows"))
    here = f"in {folder}"
    assert found == [
        f"r.yaml:5:10 data.train: there is no 'rows.jsonl' {here}; did you mean 'row.jsonl'?",
        f"r.yaml:6:9 data.eval: there is no 'held-out.jsonl' {here}; "
        "write a file, a folder of files, or hf:NAME",
        f"r.yaml:4:13 data.template: there is no 'chat' {here}; "
        "write chatml, plain or a .jinja file",
        f"r.yaml:8:9 model.path: there is no folder 'm/nothing' {here}; "
        "write the folder, or a name of the hub",
        "r.yaml:9:14 model.tokenizer: './m' has no tokenizer.json or tokenizer_config.json or "
        "tokenizer.model or vocab.json; write a folder that holds one",
    ]


def test_sets_of_rows_are_looked_for_one_by_one(write, valid, folder):
    touch(folder, "a.jsonl")
    text = valid.replace("rows.jsonl", "[{path: a.jsonl}, {path: 'hf:x/y'}, {path: b}]")
    text = text.replace("held-out.jsonl", "{path: c}")
    places = [fault.split(":", 3)[2:] for fault in missing(write, text)]
    assert [place[0].split()[1] for place in places] == ["data.train.2.path", "data.eval.path"]


def test_names_of_the_hub_are_not_looked_up(write, valid):
    text = valid.replace("rows.jsonl", "hf:openai/gsm8k").replace(
        "held-out.jsonl", "{fraction: 0.1}"
    )
    assert missing(write, text) == []


def test_the_folder_of_a_run_is_answered_with_its_model(write, valid, folder):
    touch(folder, "rows.jsonl", "held-out.jsonl", "runs/a/model/config.json")
    assert missing(write, valid.replace("org/model", "runs/a")) == [
        "r.yaml:7:9 model.path: 'runs/a' has no config.json or adapter_config.json; "
        "did you mean 'runs/a/model'?"
    ]


def test_requirements_are_errors(write, valid):
    loaded = load_recipe(write(valid))
    with pytest.raises(UserError, match="there is no"):
        require_files(loaded)
    require_method(loaded, "sft")
    with pytest.raises(UserError) as caught:
        require_method(loaded, "pretrain")
    assert str(caught.value) == (
        "r.yaml:2:16 method.name: 'sft', and the command is `ftkit pretrain`; "
        "run `ftkit sft`, or `ftkit train`"
    )
