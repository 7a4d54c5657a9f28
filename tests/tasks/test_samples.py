"""``ftkit samples``: which answers are shown, and how."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from ftkit.cli_runs import runs_app
from ftkit.core.errors import UserError
from ftkit.core.group import Answer, Group
from ftkit.tasks.samples import samples

OPTIONS = {
    "step": None,
    "last": False,
    "kind": None,
    "status": None,
    "reward": None,
    "grep": None,
    "n": 10,
    "full": False,
    "as_json": True,
}


def group(step, name, *answers, decoding="rollout"):
    """Return the line of a group; an answer is its text, reward, status."""
    told = tuple(
        Answer((1, 2, 3), text=text, reward=reward, status=status, finish=finish)
        for text, reward, status, finish in answers
    )
    row = Group(name, (1,), told, prompt_text=f"prompt of {name}", truth="42").to_json()
    return {"step": step, **row, "decoding": decoding}


RIGHT = ("42", 1.0, "correct", "stop")
WRONG = ("41", 0.0, "incorrect", "stop")
CUT = ("4", 0.0, "unparseable", "length")
LOST = ("42!", None, "error", "stop")
LINES = [
    group(5, "a", RIGHT, WRONG, CUT, LOST),
    group(5, "b", WRONG, WRONG),
    group(5, "c", RIGHT, decoding="greedy"),
    group(10, "d", RIGHT, RIGHT),
    group(10, "e", ("so \\boxed{42}", 0.5, "", "stop"), WRONG),
]


@pytest.fixture
def run(tmp_path):
    (tmp_path / "recipe.yaml").write_text("run: x\n")
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LINES))
    return tmp_path


@pytest.fixture
def show(run, capsys):
    def call(**options):
        samples(str(run), **{**OPTIONS, **options})
        return capsys.readouterr()

    return call


@pytest.fixture
def found(show):
    """Return what is shown as ``[(group, indices of its answers)]``."""

    def call(**options):
        rows = [json.loads(line) for line in show(**options).out.splitlines()]
        return [(row["id"], row["matches"]) for row in rows]

    return call


def fault(run, **options):
    with pytest.raises(UserError) as error:
        samples(str(run), **{**OPTIONS, **options})
    return str(error.value)


def test_without_a_wish_all_groups_are_shown_whole(found):
    assert found() == [("a", [0, 1, 2, 3]), ("b", [0, 1]), ("c", [0]), ("d", [0, 1]), ("e", [0, 1])]


def test_answers_are_chosen_by_all_that_is_asked_for(found):
    assert found(step=10) == [("d", [0, 1]), ("e", [0, 1])]
    assert found(kind="greedy") == [("c", [0])]
    assert found(status="unparseable") == [("a", [2])]
    assert found(status="incorrect", step=5) == [("a", [1]), ("b", [0, 1])]
    assert found(reward="0.5..") == [("a", [0]), ("c", [0]), ("d", [0, 1]), ("e", [0])]
    assert found(reward="..0.4", kind="rollout", step=10) == [("e", [1])]
    assert found(reward="0.5") == [("e", [0])]
    assert found(grep="boxed") == [("e", [0])]
    assert found(grep="of d") == [("d", [0, 1])]
    assert found(grep="of a", status="correct") == [("a", [0])]
    assert found(status="error") == [("a", [3])]


def test_the_last_step_is_the_last_with_such_answers(found):
    assert [name for name, _ in found(last=True)] == ["d", "e"]
    assert found(last=True, kind="greedy") == [("c", [0])]
    assert found(last=True, status="incorrect", n=1) == [("e", [1])]


def test_the_last_step_need_not_have_such_answers(run, found):
    with (run / "samples.jsonl").open("a") as file:
        file.write(json.dumps(group(15, "f", RIGHT, decoding="greedy")) + "\n")
    assert found(last=True) == [("f", [0])]
    assert [name for name, _ in found(last=True, kind="rollout")] == ["d", "e"]


def test_a_status_that_is_not_written_down_is_that_of_the_reward(run, found):
    rows = [{**row, "answers": [{**a, "status": ""} for a in row["answers"]]} for row in LINES]
    (run / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert found(status="correct") == [("a", [0]), ("c", [0]), ("d", [0, 1])]
    assert found(status="incorrect", step=5) == [("a", [1, 2]), ("b", [0, 1])]


def test_json_is_the_line_of_the_file_and_the_mean_of_its_rewards(show):
    rows = [json.loads(line) for line in show().out.splitlines()]
    for row, line in zip(rows, LINES, strict=True):
        assert {**row, **json.loads(json.dumps(line))} == row
    assert [row["mean_reward"] for row in rows] == [1 / 3, 0.0, 1.0, 1.0, 0.25]


def test_at_most_n_groups_and_that_there_are_more_is_said_aside(show):
    told = show(n=2)
    assert len(told.out.splitlines()) == 2
    assert "-n shows more than 2" in told.err
    assert show(n=5).err == ""


def test_on_a_terminal_each_answer_has_its_verdict(show):
    out = show(as_json=False, step=5, n=1).out
    assert "step 5  rollout  a  4 answers  mean reward 0.3333" in out
    for text, said in (
        ("prompt of a", "prompt"),
        ("42", "truth"),
        ("42", "correct, reward 1, 3 tokens, stop"),
        ("4", "unparseable, reward 0, 3 tokens, cut"),
        ("42!", "error, no reward, 3 tokens, stop"),
    ):
        assert any(
            line.split("  ")[0].strip() == text or line.strip().startswith(text)
            for line in out.splitlines()
            if line.endswith(said)
        ), said
    assert "2 more that were not asked for" not in out
    assert "3 more that were not asked for" in show(as_json=False, status="error").out


def test_control_characters_and_long_texts(run, show):
    text = "\x1b[2J" + "x" * 5000 + "\r\nend\x00"
    row = group(1, "evil\x1b]0;", (text, 1.0, "correct", "stop"))
    (run / "samples.jsonl").write_text(json.dumps(row))
    for full in (False, True):
        out = show(as_json=False, full=full).out
        assert not set(out) & {"\x1b", "\r", "\x00"}
        assert "\u241b[2J" in out
        assert "end\u2400" in out
        assert "evil\u241b]0;" in out
        assert ("x" * 5000 in out) == full
        assert ("characters left out, --full" in out) != full


def test_what_there_is_is_said_where_nothing_fits(run):
    told = fault(run, step=6, kind="greedy")
    assert "has no answer with --step 6 --kind greedy" in told
    assert "it has steps 5, 10; groups: 4 rollout, 1 greedy" in told
    assert "4 correct, 4 incorrect" in told
    assert "rewards: 0 to 1" in told


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    lines = fault(tmp_path, step=1, last=True, reward="2..1").splitlines()
    assert len(lines) == 3
    for wrong in ("x", "..", "nan", "1..nan", "0..1..2"):
        assert "is no range" in fault(tmp_path, reward=wrong)
    (tmp_path / "recipe.yaml").touch()
    assert "no answers were written down" in fault(tmp_path)
    (tmp_path / "samples.jsonl").touch()
    assert "no answers were written down" in fault(tmp_path)


def test_a_line_that_was_cut_is_left_out_and_a_broken_one_refused(run, show):
    file = run / "samples.jsonl"
    text = file.read_text()
    file.write_text(text[:-30])
    told = show()
    assert len(told.out.splitlines()) == 4
    assert "line 5 was cut" in told.err
    assert len(show(last=True).out.splitlines()) == 1
    file.write_text(text.replace('"prompt of b"', "prompt", 1))
    assert "samples.jsonl:2: broken JSON" in fault(run)
    file.write_text('{"step": 1, "answers": "none"}\n')
    assert "samples.jsonl:1: no group" in fault(run)
    file.write_text('{"step": 1')
    assert "no whole line" in fault(run)


def test_only_what_is_needed_is_read(run, show):
    with (run / "samples.jsonl").open("a") as file:
        file.write('{"step": 15, broken\n{"step": 20, "answers": []}\n')
    assert len(show(step=10).out.splitlines()) == 2  # another step's lines are not parsed
    assert len(show(n=3).out.splitlines()) == 3  # nor what comes after enough
    assert "broken JSON" in fault(run, n=9)


def test_the_command_line_passes_all_on(run):
    def call(*options):
        done = CliRunner().invoke(runs_app, ["samples", str(run), "--json", *options])
        assert done.exit_code == 0, done.output
        return [json.loads(line)["id"] for line in done.stdout.splitlines()]

    assert call("--step", "5", "--kind", "rollout", "--status", "correct") == ["a"]
    assert call("--last", "--reward", "0.5..0.5", "--grep", "boxed", "--full") == ["e"]
    assert call("-n", "1") == call("--n", "1") == ["a"]
