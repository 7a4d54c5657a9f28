"""Data sets: tokenized once, found again while nothing has changed, split by prompt and seed."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from ftkit.core.errors import UserError
from ftkit.data import load
from ftkit.data.config import DataConfig, EvalSplitConfig, SourceConfig
from ftkit.data.encode import Encoder
from ftkit.data.load import held_out, load_datasets
from tests.data.cases import THINKING, UNMARKED, assistant, byte_level, user, with_bos

ROWS = [{"prompt": f"{n} + 1 =", "completion": f" {n + 1}", "truth": str(n + 1)} for n in range(40)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "rows.jsonl", ROWS)


def read(train, tokenizer=None, kind="demonstrations", seed=0, **config):
    config = DataConfig(train=train, **config)
    return load_datasets(config, kind, tokenizer or byte_level(), seed)


def groups(dataset):
    return list(dataset)


def test_a_data_set_holds_what_the_encoder_made(file):
    data = read(file)
    ((one, weight),) = data.train
    tokenizer = byte_level()
    assert (len(one), weight, data.eval) == (40, 1.0, None)
    for row, group in zip(ROWS, one, strict=True):
        assert (group.prompt_text, group.answers[0].text) == (row["prompt"], row["completion"])
        assert (group.truth, group.source) == (row["truth"], file)
        assert tokenizer.decode(group.answers[0].tokens) == row["completion"] + "<|endoftext|>"
    sizes = [len(group.prompt) + len(group.answers[0].tokens) for group in one]
    assert one.lengths.tolist() == sizes
    assert one.lengths.dtype == np.int32
    assert one.trained.tolist() == [len(group.answers[0].tokens) for group in one]
    with pytest.raises(IndexError):
        one[40]


def test_no_truth_is_none_and_an_empty_one_is_empty(tmp_path):
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d", "truth": ""}]
    ((one, _),) = read(write(tmp_path / "rows.jsonl", rows)).train
    assert [group.truth for group in one] == [None, ""]


def test_rows_are_tokenized_once(file, monkeypatch):
    """PITFALLS 13: whoever comes second finds them done, with the same report."""
    first = read(file)
    monkeypatch.setattr(Encoder, "encode", None)
    second = read(file)
    assert second.to_json() == first.to_json()
    assert groups(second.train[0][0]) == groups(first.train[0][0])


CHANGES = {
    "file": lambda path: write(path, [*ROWS, ROWS[0]]),
    "order": lambda path: write(path, ROWS[::-1]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_content_of_a_file_is_a_miss(tmp_path, cache, file, change):
    """PITFALLS 12."""
    before = read(file).fingerprint
    CHANGES[change](tmp_path / "rows.jsonl")
    assert read(file).fingerprint != before
    assert len(list((cache / "data").iterdir())) == 2


def test_any_change_of_what_the_tokens_depend_on_is_a_miss(tmp_path, monkeypatch):
    """PITFALLS 12: a file, the template, the tokenizer, the masking, the length, our version."""
    turns = [{"messages": [user("a"), assistant("b")], "text": "c"}]
    path = write(tmp_path / "rows.jsonl", turns)
    keys = []

    def key(source=None, kind="demonstrations", tokenizer=None, seed=0, **config):
        source = SourceConfig(path=path, **(source or {}))
        config = DataConfig(train=path, **config)
        settings = load.Settings(config, kind, tokenizer or byte_level(), seed)
        keys.append(load.dataset_key(source, settings))

    key()
    key(kind="documents")
    key(max_length=99)
    key(overlong="drop")
    key(tokenizer=byte_level(THINKING))
    key(tokenizer=with_bos())
    other = byte_level()
    other.eos_token = "<|im_end|>"
    key(tokenizer=other)
    other = byte_level()
    other.add_tokens(["new"])
    key(tokenizer=other)
    key(source={"format": "messages"})
    key(source={"columns": {"prompt": "text"}})
    key(source={"limit": 1})
    key(source={"limit": 1}, seed=1)
    monkeypatch.setattr(load, "VERSION", load.VERSION + 1)
    key()
    assert len(set(keys)) == len(keys)


def test_what_changes_nothing_is_no_miss(file):
    config = DataConfig(train=file)
    source = SourceConfig(path=file)
    used = byte_level()
    used(["a", "bb"], padding=True, truncation=True, max_length=1)
    keys = {
        load.dataset_key(source, load.Settings(config, "demonstrations", tokenizer, seed))
        for tokenizer in (byte_level(), used)
        for seed in (0, 1)
    }
    assert len(keys) == 1


def test_a_half_written_or_broken_cache_is_never_read(cache, file):
    """PITFALLS 12, 41."""
    before = read(file)
    (folder,) = (cache / "data").iterdir()
    for name in ("tokens.npy", "meta.json"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-3])
        assert groups(read(file).train[0][0]) == groups(before.train[0][0])
    np.save(folder / "tokens.npy", np.zeros(3, dtype=np.int32))
    assert groups(read(file).train[0][0]) == groups(before.train[0][0])
    (folder / "ends.npy").unlink()
    assert read(file).to_json() == before.to_json()
    assert [path.name for path in (cache / "data").iterdir()] == [folder.name]


def test_writers_at_the_same_time_do_not_harm_each_other(cache, file):
    found, barrier = [], threading.Barrier(4)

    def work():
        barrier.wait()
        found.append(read(file).fingerprint)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(list((cache / "data").iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_an_error_that_names_it(tmp_path, monkeypatch, file):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file, not a folder")
    monkeypatch.setenv("FTKIT_CACHE", str(blocked))
    with pytest.raises(UserError, match="FTKIT_CACHE"):
        read(file)


def test_held_out_rows_are_those_whose_prompts_hash_so(tmp_path):
    """PITFALLS 14: seeded, the same in every process; equal prompts stay together."""
    twice = [{**row, "completion": " other"} for row in ROWS] + ROWS
    path = write(tmp_path / "rows.jsonl", twice)
    data = read(path, eval=EvalSplitConfig(fraction=0.3), seed=5)
    assert data.seen == 0
    prompts = {group.prompt_text for group in data.eval}
    assert len(data.eval) == 2 * len(prompts)
    assert not prompts & {group.prompt_text for group in data.train[0][0]}
    assert len(data.eval) + len(data.train[0][0]) == 80
    assert data.train[0][0].report.held_out == len(data.eval)
    again = read(path, eval=EvalSplitConfig(fraction=0.3), seed=5)
    assert again.fingerprint == data.fingerprint
    other = read(path, eval=EvalSplitConfig(fraction=0.3), seed=6)
    assert {group.prompt_text for group in other.eval} != prompts


def test_the_share_held_out_is_the_fraction():
    keys = np.arange(100_000, dtype=np.uint64)
    for fraction in (0.01, 0.5, 0.99):
        share = held_out(keys, fraction, 3).mean()
        assert abs(share - fraction) < 4 * np.sqrt(fraction * (1 - fraction) / 100_000)
    assert held_out(keys, 0.1, 3)[:10].tolist() == held_out(keys[:10], 0.1, 3).tolist()


def test_held_out_prompts_that_are_trained_on_are_counted(tmp_path, file):
    """PITFALLS 14."""
    held = write(tmp_path / "held.jsonl", [ROWS[3], {"prompt": "new", "completion": "x"}])
    data = read(file, eval=held)
    assert data.seen == 1
    assert data.warnings[-1] == "1 of 2 held-out prompts are trained on too"


def test_a_split_that_leaves_nothing_is_an_error(tmp_path):
    path = write(tmp_path / "rows.jsonl", ROWS[:1])
    for fraction in (0.001, 0.999):
        with pytest.raises(UserError, match="leaves none"):
            read(path, eval=EvalSplitConfig(fraction=fraction))


def test_nothing_to_learn_is_an_error(file):
    """PITFALLS 10."""
    with pytest.raises(UserError, match=r"nothing is left .* 40 rows: 40 longer than max_length"):
        read(file, max_length=3, overlong="drop")
    with pytest.raises(UserError, match="the list is empty"):
        read([])


def test_what_was_made_of_one_row_is_counted(tmp_path):
    """PITFALLS 6, 9."""
    path = write(tmp_path / "texts.jsonl", [{"text": "a b c d e f g h"}, {"text": "a"}])
    report = read(path, kind="documents", max_length=5, overlong="split").train[0][0].report
    assert (report.rows, report.split, report.by_turn) == (2, 1, 0)
    assert report.kept > 2
    turns = [user("a"), assistant("<think>b</think>c"), user("d"), assistant("e")]
    path = write(tmp_path / "turns.jsonl", [{"messages": turns}])
    report = read(path, byte_level(THINKING)).train[0][0].report
    assert (report.rows, report.kept, report.split, report.by_turn) == (1, 2, 0, 1)


def test_the_held_out_file_is_reported_too(tmp_path, file):
    """PITFALLS 9."""
    held = write(tmp_path / "held.jsonl", [{"prompt": "a", "completion": "b" * 99}, ROWS[0]])
    data = read(file, eval=held, max_length=30, overlong="drop")
    assert len(data.eval) == 1
    assert data.warnings[0] == f"{held}: 1 dropped (longer than max_length), first at {held}:1"


def test_sets_keep_their_weights_and_reports(tmp_path, file):
    """PITFALLS 9, 15."""
    texts = [{"messages": [user("a"), assistant("b"), user("c")]}] * 2
    other = write(
        tmp_path / "other.jsonl", [*texts, {"messages": [user("a"), assistant("b" * 99)]}]
    )
    sources = [SourceConfig(path=file), SourceConfig(path=other, weight=0.5)]
    data = read(sources, byte_level(UNMARKED), max_length=30, overlong="drop")
    assert [(len(one), weight) for one, weight in data.train] == [(40, 1.0), (2, 0.5)]
    report = data.train[1][0].report
    assert (report.format, report.masks, report.rows, report.kept) == ("messages", "diff", 3, 2)
    assert (report.trailing, report.duplicates) == (2, 1)
    assert report.dropped["longer than max_length"].first == [f"{other}:3"]
    assert report.lengths["max"] == max(data.train[1][0].lengths)
    assert report.trained == data.train[1][0].trained.sum()
    assert json.loads(json.dumps(data.to_json()))["train"][1]["rows"] == 3
    assert any("1 dropped" in warning for warning in data.warnings)
