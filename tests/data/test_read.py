"""Rows of files: all of them, each with its place, and faults that say where and what to do."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from ftkit.core.errors import UserError
from ftkit.data.config import SourceConfig
from ftkit.data.read import Faults, read_rows

ROWS = [{"prompt": f"{n}+1=", "completion": str(n + 1)} for n in range(5)]


def read(path, seed=0, **source):
    faults = Faults()
    rows = list(read_rows(SourceConfig(path=str(path), **source), seed, faults))
    faults.check()
    return rows


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_gzip(path, rows):
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    return path


def write_json(path, rows):
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def write_parquet(path, rows):
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


WRITERS = {
    ".jsonl": write_jsonl,
    ".jsonl.gz": write_gzip,
    ".json": write_json,
    ".csv": write_csv,
    ".parquet": write_parquet,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_kind_of_file_gives_the_same_rows(tmp_path, suffix):
    path = WRITERS[suffix](tmp_path / f"rows{suffix}", ROWS)
    assert [row.fields for row in read(path)] == ROWS
    assert len({row.place for row in read(path)}) == len(ROWS)


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    write_jsonl(tmp_path / "b.jsonl", ROWS[2:])
    write_csv(tmp_path / "a.csv", ROWS[:2])
    (tmp_path / "README.md").write_text("no rows")
    assert [row.fields for row in read(tmp_path)] == ROWS


def test_a_data_set_of_the_hub_is_read_by_split(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", ROWS[:3])
    write_jsonl(tmp_path / "test.jsonl", ROWS[3:])
    assert [row.fields for row in read(f"hf:{tmp_path}", split="test")] == ROWS[3:]
    with pytest.raises(UserError, match="split 'dev'"):
        read(f"hf:{tmp_path}", split="dev")


def test_blank_lines_a_byte_order_mark_and_other_line_ends_are_fine(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}')
    assert [(row.place, row.fields["text"]) for row in read(path)] == [
        (f"{path}:1", "a"),
        (f"{path}:3", "b"),
    ]


def test_numbers_and_nothings_in_a_table_stay_texts(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('prompt,completion\n007,NA\n"two\nlines",null\n')
    assert [row.fields for row in read(path)] == [
        {"prompt": "007", "completion": "NA"},
        {"prompt": "two\nlines", "completion": "null"},
    ]
    assert [row.place for row in read(path)] == [f"{path}:2", f"{path}:3"]


def test_one_broken_line_in_many_is_named_with_its_column(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS * 200)
    lines = path.read_text().splitlines(keepends=True)
    lines[776] = '{"prompt": "a", completion}\n'
    path.write_text("".join(lines))
    with pytest.raises(UserError, match=r"rows\.jsonl:777:17: broken JSON.*mend or remove"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.jsonl", b'{"text": "\xff"}\n', r"a\.jsonl:1: byte 0xff at column 11 is not UTF-8"),
        ("a.jsonl", b"[1]\n", r"a\.jsonl:1: a JSON list, not an object"),
        ("a.jsonl", b"\n\n", "no rows"),
        ("a.jsonl", b"", "no rows"),
        ("a.json", b"", r"a\.json:1:1: broken JSON"),
        ("a.json", b"{}", "not an array"),
        ("a.json", b"[{}, 1]", "row 2: a JSON int"),
        ("a.csv", b"", "no rows"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", r"a\.csv:3: 3 cells under a header of 2"),
        ("a.parquet", b"nothing of the kind", "broken Parquet"),
        ("a.jsonl.gz", b"nothing of the kind", "broken gzip"),
        ("a.txt", b"words", "'.txt' is no kind of file"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_place(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=match) as caught:
        read(tmp_path / name)
    assert all(fault.remedy for fault in caught.value.faults)


def test_a_missing_file_and_an_empty_folder_are_errors(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="no file of rows"):
        read(tmp_path)


def test_faults_come_together_but_not_by_the_thousand(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("{\n" * 3)
    with pytest.raises(UserError) as caught:
        read(path)
    assert len(caught.value.faults) == 3
    path.write_text("{\n" * 1000)
    with pytest.raises(UserError) as caught:
        read(path)
    assert len(caught.value.faults) == 11


def test_a_limit_draws_with_the_seed_and_not_the_first_rows(tmp_path, monkeypatch):
    """PITFALLS 15."""
    monkeypatch.chdir(tmp_path)  # what is drawn depends on the path as it is given, too
    rows = [{"text": str(n)} for n in range(1000)]
    path = write_jsonl(Path("rows.jsonl"), rows)

    def drawn(seed):
        return [int(row.fields["text"]) for row in read(path, seed, limit=100)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert drawn(1) == sorted(set(drawn(1)))
    assert len(drawn(1)) == 100
    counts = [sum(number in drawn(seed) for seed in range(40)) for number in (0, 500, 999)]
    assert all(0 < count < 20 for count in counts)  # 4 are expected of 40 draws of a tenth
    assert len(read(path, limit=2000)) == 1000


def test_keys_that_arrow_invents_are_left_out(tmp_path):
    """PITFALLS 15."""
    rows = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "tool", "name": "n"}]},
        {"messages": [{"role": "user", "content": "b"}]},
    ]
    path = write_parquet(tmp_path / "rows.parquet", rows)
    assert [row.fields for row in read(path)] == rows
    write_jsonl(tmp_path / "train.jsonl", rows)
    assert read(f"hf:{tmp_path}")[0].fields == rows[0]
