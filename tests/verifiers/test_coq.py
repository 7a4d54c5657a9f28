"""Proofs by Coq itself, where it is installed, and what is refused before it is asked."""

from __future__ import annotations

import shutil

import pytest

from ftkit.verifiers.base import Item
from ftkit.verifiers.config import ProofConfig
from ftkit.verifiers.coq import Coq, _parts
from ftkit.verifiers.judge import build_judge
from ftkit.verifiers.proof import Attempt, Program
from ftkit.verifiers.trial import self_test

COMMUTES = "Theorem add_comm (n m : nat) : n + m = m + n."
PROOF = """induction n as [|n IH]; simpl.
- now rewrite <- plus_n_O.
- rewrite IH. apply plus_n_Sm."""

installed = pytest.mark.skipif(
    shutil.which("coqc") is None, reason="no coqc on PATH: apt-get install coq"
)


@pytest.mark.parametrize(
    "proof",
    [
        "admit.",
        "give_up.",
        "exact I. Admitted.",
        "Axiom x : False. exact x.",
        "exact I. Qed. Theorem easy : True. exact I.",
        "exact I. Qed.\nPrint Assumptions easy. Qed.",
        "{ Qed. }",
        "- Abort.",
        "1: Abort.",
        "Require Import Arith. ring.",
        "Set Guard Checking. auto.",
        "#[local] Hint Resolve x : core. auto.",
        "Unset Guard Checking. auto.",
        "Ltac x := auto. x.",
        'Notation "x" := True. exact I.',
        "Module M. End M. auto.",
        "native_compute. reflexivity.",
        'Redirect "file" Print nat. auto.',
        "Drop.",
        "(* an open comment",
        'idtac "an open string. Qed.',
        'idtac "(*". Qed. (* ". *)',
        "(* (* *) Qed.",
        "auto. *) Qed. (*",
        "auto...Qed. Abort.",
    ],
)
def test_what_is_more_than_a_proof_is_refused(proof):
    assert Coq(Program(("coqc",), None), ()).refused(proof) is not None


@pytest.mark.parametrize(
    "proof",
    [
        PROOF,
        f"Proof.\n{PROOF}\nQed.",
        "intros. { auto. } all: auto.",
        "split. - { auto. } - + auto. all: { auto. }",
        "destruct n; [ auto | ]. 1-2: auto. [x]: auto.",
        "(* Qed. here (* and *) here *) auto.",
        "pose (f := fun x : Set => x). exact (f I).",
        'idtac "Qed. (*". auto.',
        "auto with arith...",
    ],
)
def test_what_is_a_proof_is_not(proof):
    assert Coq(Program(("coqc",), None), ()).refused(proof) is None


def test_a_statement_is_parted():
    assert _parts("Lemma a' {A : Type} (l : list A):\n l = l .") == (
        "{A : Type} (l : list A)",
        "l = l",
    )
    assert _parts("Goal 1 = 1.") == ("", "1 = 1")
    assert _parts("forall n : nat, n = n.") == ("", "forall n : nat, n = n")
    assert _parts("Theorem t : forall n : nat, n = n.") == ("", "forall n : nat, n = n")


@pytest.fixture(scope="module")
def judge():
    header = (
        "Require Import Coq.Logic.Classical.\n"
        "Axiom ours : 1 = 2.\n"
        "Definition double (n : nat) := n + n.\n"
    )
    config = ProofConfig(
        name="proof", system="coq", header=header, timeout=2.0, workers=2, axioms=["classic"]
    )
    with build_judge(config) as judge:
        yield judge


@installed
def test_coq_judges(judge):
    items = {
        "right": (PROOF, COMMUTES, "correct"),
        "in a block": (f"By induction:\n```coq\nProof.\n{PROOF}\nQed.\n```\n", COMMUTES, "correct"),
        "no binders": ("intros. reflexivity.", "forall n : nat, double n = n + n", "correct"),
        "implicit": ("reflexivity.", "Lemma same {A : Type} (a : A) : a = a.", "correct"),
        "allowed axiom": ("apply classic.", "forall P : Prop, P \\/ ~ P", "correct"),
        "other axiom": ("exact ours.", "1 = 2", "incorrect"),
        "wrong": ("reflexivity.", COMMUTES, "incorrect"),
        "not finished": ("intros.", COMMUTES, "incorrect"),
        "circular": ("revert n m. fix F 1. intros. apply F.", COMMUTES, "incorrect"),
        "false": ("auto.", "1 = 3", "incorrect"),
        "says it is closed": ('idtac "Closed under the global context".', "1 = 3", "incorrect"),
        "for ever": ("do 1000000000 (do 1000000000 idtac).", "1 = 1", "timeout"),
        "several blocks": ("```\nauto.\n```\n```\nauto.\n```", "1 = 1", "unparseable"),
        "nothing": ("", "1 = 1", "unparseable"),
        "no statement": ("auto.", "1 = = 1", "error"),
        "empty statement": ("auto.", " ", "error"),
    }
    verdicts = judge.judge([Item(answer, truth) for answer, truth, _ in items.values()])
    found = {name: verdict.status for name, verdict in zip(items, verdicts, strict=True)}
    assert found == {name: status for name, (_, _, status) in items.items()}
    named = dict(zip(items, verdicts, strict=True))
    assert "ours" in named["other axiom"].detail
    assert "classic" in named["allowed axiom"].detail


@installed
@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ("Admitted. Theorem again : True. exact I.", "axioms: FtkitAttempt.ftkit_goal"),
        ("Abort. Axiom ftkit_goal : 1 = 3. Goal True. exact I.", "axioms"),
        ("Abort. Theorem ftkit_goal : True. exact I.", "something else"),
        ('Abort. Notation "1 = 3" := True. Theorem ftkit_goal : 1 = 3. exact I.', "something else"),
        (
            "Abort. Unset Guard Checking. Fixpoint f (n : nat) : 1 = 3 := f n. "
            "Theorem ftkit_goal : 1 = 3. exact (f 0).",
            "axioms",
        ),
    ],
)
def test_the_second_file_finds_what_no_word_was_refused_for(lie, reason):
    verdict = Coq(Program(("coqc",), None), ()).check(Attempt("1 = 3", lie, ""))
    assert verdict.status == "incorrect"
    assert reason in verdict.detail


@installed
def test_self_test_tries_coq_and_reads_the_statements(judge):
    tested = self_test(judge, [COMMUTES, "forall n : nat, n = n", "1 = = 1"])
    assert tested.tried == 5
    (failure,) = tested.failures
    assert failure.truth == "1 = = 1"
    assert "no statement" in str(tested)
