"""What Lean's compiler and REPL say, for tests without Lean.

It knows no mathematics: a theorem holds if its proof is the word ``trivial``; ``by_sorry`` and
``by_choice`` stand for proofs that rest on axioms; ``hang`` and ``die`` do that.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

AXIOMS = {"by_sorry": "[propext,\n sorryAx]", "by_choice": "[Classical.choice]"}


def messages(text, info):
    lines = text.split("\n")
    (start,) = [at for at, line in enumerate(lines) if line.startswith("theorem ftkit_")]
    name, claim = lines[start].split()[1], lines[start]
    end = len(lines) - 2
    assert lines[end] == f"#print axioms {name}"
    proof = " ".join(line.strip() for line in lines[start + 1 : end]).strip()

    def said(severity, line, words):
        return {"severity": severity, "pos": {"line": line + 1, "column": 0}, "data": words}

    if "nonsense" in claim:
        yield said("error", start, "unexpected token")
    elif proof == "hang":
        time.sleep(600)
    elif proof == "die":
        os._exit(1)
    elif proof == "kernel":
        yield said("error", start, "(kernel) declaration type mismatch")
    elif proof == "lie":
        yield said(info, start + 1, f"'{name}' does not depend on any axioms")
    elif proof == "sorry":
        yield said("warning", start, "declaration uses 'sorry'")
        yield said(info, end, f"'{name}' depends on axioms: [sorryAx]")
    elif proof in AXIOMS:
        yield said(info, end, f"'{name}' depends on axioms: {AXIOMS[proof]}")
    elif proof == "trivial" and "False" not in claim:
        yield said(info, end, f"'{name}' does not depend on any axioms")
    else:
        yield said("error", start, "unsolved goals\n⊢ False")


def compile_file(file):
    for message in messages(Path(file).read_text(encoding="utf-8"), "information"):
        sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.write("what a build tool says\n")


def repl():
    text = ""
    for line in sys.stdin:
        text += line
        if line.strip():
            continue
        command = json.loads(text)
        text = ""
        if "import" in command["cmd"]:
            wrong = "Missing" in command["cmd"]
            position = {"line": 1, "column": 0}
            said = [{"severity": "error", "pos": position, "data": "no Missing"}] if wrong else []
            reply = {"messages": said, "env": 0}
        else:
            assert command["env"] == 0
            reply = {"messages": list(messages(command["cmd"], "info")), "env": 1}
        sys.stdout.write(json.dumps(reply, indent=1) + "\n\n")
        sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--json"]:
        compile_file(sys.argv[2])
    else:
        repl()
