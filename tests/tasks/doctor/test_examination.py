"""How an examination goes on where something is broken; what is printed; the exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from ftkit.tasks.doctor import inside, report, versions
from ftkit.tasks.doctor.finding import BrokenError, Finding, Later, Probe, examine, said
from tests.tasks.doctor.conftest import by_what


def fine(what):
    return lambda: [Finding("ok", what, "well")]


def broken():
    raise ZeroDivisionError("by zero")


def refuses():
    raise BrokenError("status 9: no")


def test_what_fails_or_hangs_is_a_finding_and_the_rest_is_looked_at():
    start = time.monotonic()
    probes = [
        Probe("a", "first", fine("first")),
        Probe("a", "second", broken),
        Probe("b", "third", refuses),
        Probe("b", "fourth", lambda: time.sleep(60), seconds=0.2),
        Probe("b", "fifth", lambda: time.sleep(60), seconds=0.2),
        Probe("c", "sixth", fine("sixth")),
    ]
    found = list(examine(probes))
    assert time.monotonic() - start < 5
    assert [(section, f.level, f.what) for section, f in found] == [
        ("a", "ok", "first"),
        ("a", "note", "second"),
        ("b", "note", "third"),
        ("b", "problem", "fourth"),
        ("b", "problem", "fifth"),
        ("c", "ok", "sixth"),
    ]
    assert found[1][1].found == "could not be looked at: ZeroDivisionError: by zero"
    assert found[2][1].found == "could not be looked at: status 9: no"
    assert found[3][1].found == "no answer within 0.2 s"


def test_a_result_is_there_for_all_who_ask():
    made = []
    later = Later(lambda: made.append(1) or len(made))
    assert [later.wait(5), later.wait(5)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        Later(broken).wait(5)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo one; echo 'two: failed' >&2; exit 9", "status 9: two: failed"),
        ("echo 'no devices'; exit 3", "status 3: no devices"),
        ("exit 4", "status 4: without a word"),
        ("kill -SEGV $$", "killed by signal 11"),
        ("sleep 60", "no answer within 0.3 s"),
    ],
)
def test_programs_that_fail_say_why(program, script, words):
    program("tool", script)
    with pytest.raises(BrokenError, match=f"^{words}$"):
        said(["tool"], seconds=0.3)


def test_programs_that_are_not_there():
    with pytest.raises(BrokenError, match="cannot be started: No such file"):
        said(["no-such-tool"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise ImportError('libcudart.so.12: not found')", "ImportError: libcudart.so.12"),
        ("import os; os.abort()", "killed by signal 6"),
        ("import time; time.sleep(60)", "no answer within 1 s"),
        ("import sys; print('hello'); sys.exit(0)", "no answer"),
    ],
)
def test_a_broken_torch_is_a_problem_that_names_the_reason(module, monkeypatch, text, words):
    module("torch", text)
    monkeypatch.setattr(inside, "LATER", 1)
    (finding,) = versions.of_torch(Later(lambda: inside.ask("torch")))
    assert (finding.level, finding.what) == ("problem", "torch")
    assert "cannot be imported: " in finding.found
    assert words in finding.found


# the command


def probes_of(*levels):
    findings = [Finding(level, f"thing {n}", "found", "mend it") for n, level in enumerate(levels)]
    return lambda _: [Probe("section", "all", lambda: findings)]


@pytest.mark.parametrize(
    ("levels", "status"),
    [((), 0), (("ok", "note", "note"), 0), (("ok", "problem"), 1), (("problem", "problem"), 1)],
)
def test_the_exit_status_is_1_with_any_problem(monkeypatch, capsys, levels, status):
    monkeypatch.setattr(report, "_probes", probes_of(*levels))
    assert report.doctor(None, as_json=True) == status
    told = json.loads(capsys.readouterr().out)
    assert told["problems"] == levels.count("problem")
    assert told["notes"] == levels.count("note")
    assert [each["level"] for each in told["findings"]] == [*levels]
    assert report.doctor(None, as_json=False) == status
    text = capsys.readouterr().out
    assert text.count("mend it") == len(levels)
    assert text.count("PROBLEM") == levels.count("problem")
    assert f"problems: {levels.count('problem')}, notes: {levels.count('note')}" in text


MODULES = """
import sys
from ftkit.__main__ import main
sys.argv = ["ftkit", "doctor", "--json"]
try:
    main()
except SystemExit as error:
    print(error.code, "torch" in sys.modules, "numpy" in sys.modules)
"""


def test_the_whole_command_on_a_made_up_machine(nvidia_smi, tmp_path):
    """Three GPUs, of which this torch may know nothing; a lock that a killed build has left."""
    lock = tmp_path / "extensions" / "cpu_adam" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    os.utime(lock, (0, 0))
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions")}
    environment |= {"NCCL_SOCKET_IFNAME": "no-such-interface"}
    command = [sys.executable, "-c", MODULES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    line, end = done.stdout.splitlines()
    assert end == "1 False False"
    told = json.loads(line)
    problems = {each["what"] for each in told["findings"] if each["level"] == "problem"}
    assert {"extension lock", "NCCL_SOCKET_IFNAME"} <= problems
    assert told["problems"] == sum(each["level"] == "problem" for each in told["findings"])
    sections = dict.fromkeys(each["section"] for each in told["findings"])
    assert [*sections] == ["versions", "devices", "network", "storage", "extensions", "hub"]
    for row in told["findings"]:
        del row["section"]
    found = by_what(Finding(**row) for row in told["findings"])
    assert {"ftkit", "Python", "torch", "GPU 0", "GPU 2", "between GPUs", "memory"} <= found.keys()
    assert "could not be looked at" not in line
    assert lock.exists()
