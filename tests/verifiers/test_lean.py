"""How proofs are put under statements, refused and judged; a stand-in speaks for Lean."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ftkit.core.errors import UserError
from ftkit.verifiers import lean
from ftkit.verifiers.base import Item
from ftkit.verifiers.config import ProofConfig
from ftkit.verifiers.judge import build_judge
from ftkit.verifiers.lean_text import Lines, judged, refused, spliced
from ftkit.verifiers.proof import Attempt, make
from ftkit.verifiers.trial import self_test

STAND_IN = [sys.executable, str(Path(__file__).with_name("lean_stand_in.py"))]
ALLOWED = ("propext", "Classical.choice", "Quot.sound")


@pytest.mark.parametrize(
    "proof",
    [
        *("sorry", "exact sorry", "exact _root_.sorryAx _ false", "admit", "native_decide"),
        *("simp\naxiom x : False", "simp\ntheorem y : True := trivial", "simp\nend", "#eval 1"),
        *("run_tac pure ()", 'trace "x"', "set_option debug.skipKernelTC true in simp", "/- open"),
        *("simp\nmacro_rules | `(x) => `(y)", "simp\n@[simp] def x := 1", "simp\nimport Lean"),
        *("exact Lean.ofReduceBool a b rfl", "unsafe foo", "exact «--»\nend", "-- /-\nend --"),
        *("simp\nlocal notation x => y", "simp\nprivate def x := 1", "#print axioms", "-/ end"),
        *("simp\nsimproc x (y) := z", "simp\nregister_option a : Nat", "simp\nrun_elab x"),
    ],
)
def test_what_is_more_than_a_proof_is_refused(proof):
    assert refused(proof) is not None


@pytest.mark.parametrize(
    "proof",
    [
        "simp [h]",
        "by\n  intro h\n  exact h.end_to",
        "-- the theorem is easy, at the end\nomega",
        "/- a /- nested -/ def -/ simp",
        "induction n with\n| zero => rfl\n| succ n ih => simp [ih]",
        "have h' : #s = 2 := by decide\nexact h'",
        "open Nat in\nexact succ_pos _",
    ],
)
def test_what_is_a_proof_is_not(proof):
    assert refused(proof) is None


def test_the_proof_alone_is_the_models_and_its_theorem_has_a_name_that_it_cannot_know():
    statement = "theorem add_zero (n : Nat) : n + 0 = n := by sorry"
    text, lines = spliced(Attempt(statement, "by\n    intro\n      simp\n    rfl", ""))
    rows = text.split("\n")
    name = rows[0].split()[1]
    assert rows[0] == f"theorem {name} (n : Nat) : n + 0 = n := by"
    assert rows[1:4] == ["  intro", "    simp", "  rfl"]
    assert rows[lines.axioms - 1] == f"#print axioms {name}"
    assert lines.proof == 2
    assert name != spliced(Attempt(statement, "rfl", ""))[0].split()[1]


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([("info", 9, "'t' does not depend on any axioms")], "correct"),
        ([("information", 9, "'t' depends on axioms: [propext,\n Quot.sound]")], "correct"),
        ([("info", 9, "'t' depends on axioms: [propext, sorryAx]")], "incorrect"),
        ([("info", 9, "'t' depends on axioms: [ours]")], "incorrect"),
        ([("info", 3, "'t' does not depend on any axioms")], "incorrect"),  # not at our line
        ([("info", 9, "'u' does not depend on any axioms")], "incorrect"),
        ([("warning", 9, "'t' does not depend on any axioms")], "incorrect"),
        ([("error", 4, "no"), ("info", 9, "'t' does not depend on any axioms")], "incorrect"),
        ([("error", 1, "unsolved goals")], "incorrect"),
        ([("error", 1, "unexpected token")], "error"),
        ([], "incorrect"),
    ],
)
def test_messages(messages, status):
    assert judged(messages, Lines("t", proof=2, axioms=9), ALLOWED).status == status


@pytest.fixture(scope="module", params=["file", "repl"])
def judge(request):
    key = "command" if request.param == "file" else "repl"
    config = ProofConfig(
        name="proof",
        system="lean",
        header="import Something",
        timeout=1.0,
        workers=2,
        **{key: STAND_IN},
    )
    with build_judge(config) as judge:
        yield judge


def test_a_stand_in_judges(judge):
    claim = "theorem t : True"
    items = {
        "right": ("trivial", claim, "correct"),
        "in a block": ("```lean4\nby\n  trivial\n```", claim, "correct"),
        "allowed axiom": ("by_choice", claim, "correct"),
        "sorry behind a name": ("by_sorry", claim, "incorrect"),
        "refused": ("sorry", claim, "incorrect"),
        "wrong": ("rfl", claim, "incorrect"),
        "a lie at another line": ("lie", claim, "incorrect"),
        "an error of the kernel at the name": ("kernel", claim, "incorrect"),
        "no statement": ("trivial", "nonsense", "error"),
        "for ever": ("hang", claim, "timeout"),
        "dies": ("die", claim, "error"),
        "right again": ("trivial", claim, "correct"),
    }
    verdicts = judge.judge([Item(answer, truth) for answer, truth, _ in items.values()])
    found = {name: verdict.status for name, verdict in zip(items, verdicts, strict=True)}
    assert found == {name: status for name, (_, _, status) in items.items()}
    assert not self_test(judge, [claim]).failures
    assert self_test(judge, ["nonsense"]).failures


def test_a_repl_is_replaced_after_so_many_proofs(monkeypatch):
    monkeypatch.setattr(lean, "RECYCLED", 2)
    values = {"command": None, "directory": None, "after": None, "axioms": None}
    prover = make(system="lean", repl=STAND_IN, header="import X", **values)
    spent = []
    for _ in range(2):
        prover(Item("trivial", "True"))
        spent.append(prover.spent)
    prover.checker.process.kill()
    prover.checker.process.wait()
    assert spent == [False, True]


def test_a_header_that_the_repl_does_not_take_is_the_users_error():
    config = ProofConfig(name="proof", system="lean", header="import Missing", repl=STAND_IN)
    with pytest.raises(UserError, match=r"verify\.header: .*no Missing"):
        build_judge(config)
