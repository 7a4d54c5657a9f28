"""Proofs checked by Coq's compiler.

A proof is compiled under the statement, and then, in a second file that only we write, the result
is used to prove the statement anew: whatever the first file did, it is the statement that is
proved, and the axioms are listed where nothing of the model's can print.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ftkit.verifiers.base import Verdict
from ftkit.verifiers.proof import Attempt, Program, beginning

NAME = "ftkit_goal"
ATTEMPT, CHECK = "FtkitAttempt", "FtkitCheck"

STATEMENT = re.compile(
    r"(?:Theorem|Lemma|Fact|Remark|Corollary|Proposition|Property|Example|Goal)\b\s*"
)
IDENTIFIER = re.compile(r"[^\W\d][\w']*\s*")
FORBIDDEN = (
    *("admit", "give_up", "Admitted", "Axiom", "Axioms", "Parameter", "Parameters", "Conjecture"),
    *("native_compute", "native_cast_no_check", "Load", "Declare ML"),
)
"""Words that may stand nowhere in a proof, comments included."""
SELECTOR = re.compile(r"[-+*]+|\{|\}|(?:\[[^\]]*\]|all|par|!|[0-9][0-9, -]*)\s*:(?!=)")
"""What may stand before a tactic."""
ERROR = re.compile(r"line (\d+), characters [^\n]*:\nError:\s*(.*?)(?:\n\n|\Z)", re.DOTALL)
NAMED = re.compile(r"^(\S+)\s*(?::|is |relies |$)", re.MULTILINE)
"""An axiom in Coq's list, or something else that is assumed."""
CLOSED = "Closed under the global context"
MEMORY = re.compile(r"out of memory|out_of_memory", re.IGNORECASE)


@dataclass(frozen=True)
class Coq:
    """Coq, through ``coqc``."""

    program: Program
    allowed: Collection[str]

    def refused(self, proof: str) -> str | None:
        """Say what in a proof is no tactic: every command begins with a capital letter.

        >>> coq = Coq(Program(("coqc",), None), ())
        >>> coq.refused("- exact I. Qed. Axiom x : False."), coq.refused("{ now auto. } (* Qed. *)")
        ("the word 'Axiom'", None)
        """
        for word in FORBIDDEN:
            if re.search(rf"(?<![\w']){word}(?![\w'])", proof):
                return f"the word '{word}'"
        text = _without_comments(_bare(proof))
        if text is None:
            return "a comment or a string without an end"
        for sentence in _sentences(text):
            if not re.match(r"[a-z_(]", sentence):
                return f"'{sentence.split()[0][:40]}' begins a command, not a tactic"
        return None

    def check(self, attempt: Attempt) -> Verdict:
        """Return whether it is a proof."""
        binders, claim = _parts(attempt.statement)
        head = f"{attempt.header}\nTheorem {NAME} {binders} : {claim}.\nProof.\n"
        proof = _bare(attempt.proof)
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            verdict = self._compile(place, ATTEMPT, f"{head}{proof}\nQed.\n")
            if verdict is not None:
                at, detail = verdict
                if at is not None and at < head.count("\n"):
                    return Verdict("error", None, f"the statement is no statement: {detail}")
                return _failed(detail)
            whole = f"forall {binders}, {claim}" if binders else claim
            verdict = self._compile(
                place,
                CHECK,
                f"{attempt.header}\nTheorem {NAME} : {whole}.\nProof.\nRequire {ATTEMPT}.\n"
                f"exact @{ATTEMPT}.{NAME}.\nQed.\nPrint Assumptions {NAME}.\n",
            )
            if verdict is not None:
                return _failed(f"it proves something else: {verdict[1]}")
            return self._judge_axioms(beginning(place / f"{CHECK}.out"))

    def _compile(self, place: Path, name: str, text: str) -> tuple[int | None, str] | None:
        """Compile a file; return the line and the words of the error, if there is one."""
        file, output = place / f"{name}.v", place / f"{name}.out"
        file.write_text(text, encoding="utf-8", errors="replace")
        status = self.program.run("-q", "-noglob", "-Q", str(place), "", str(file), output=output)
        if status == 0:
            return None
        said = beginning(output.with_suffix(".err"))
        found = ERROR.search(said)
        if found is not None:
            return int(found[1]), " ".join(found[2].split())[:200]
        if MEMORY.search(said):
            return None, "out of memory"
        raise RuntimeError(f"{self.program.command[0]} ended with {status}: {said.strip()[-200:]}")

    def _judge_axioms(self, said: str) -> Verdict:
        if said.strip() == CLOSED:
            return Verdict("correct", 1.0)
        names = NAMED.findall(said.partition("Axioms:")[2])
        others = [name for name in names if name not in self.allowed]
        if names and not others and said.lstrip().startswith("Axioms:"):
            return Verdict("correct", 1.0, f"by the axioms {', '.join(names)}")
        found = ", ".join(others) or " ".join(said.split())[:200]
        return Verdict("incorrect", 0.0, f"it rests on axioms: {found}")


def _failed(detail: str) -> Verdict:
    if MEMORY.search(detail):
        return Verdict("timeout", 0.0, "checking it needs more memory than memory_mb")
    return Verdict("incorrect", 0.0, detail)


def _bare(proof: str) -> str:
    """Drop the words around a proof that are ours to write."""
    proof = re.sub(r"\A\s*Proof\s*\.(?=\s|\Z)", "", proof)
    return re.sub(r"(?<![\w'])(?:Qed|Defined)\s*\.\s*\Z", "", proof)


def _parts(statement: str) -> tuple[str, str]:
    """Return the binders of a statement, and what it claims.

    >>> _parts("Theorem add_0 (n m : nat) : n + 0 = n."), _parts("forall n : nat, n = n")
    (('(n m : nat)', 'n + 0 = n'), ('', 'forall n : nat, n = n'))
    """
    text = re.sub(r"\.\s*\Z", "", statement.strip())
    keyword = STATEMENT.match(text)
    if keyword is None:
        return "", text
    text = text[keyword.end() :]
    if keyword[0].startswith("Goal"):
        return "", text.strip()
    text = IDENTIFIER.sub("", text, count=1)
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == ":" and depth == 0:
            return text[:at].strip(), text[at + 1 :].strip()
    return "", text.strip()


def _without_comments(text: str) -> str | None:
    """Return Coq's text with blanks for comments and strings; None if one has no end."""
    out, depth, at = [], 0, 0
    while at < len(text):
        two = text[at : at + 2]
        if text[at] == '"':
            end = text.find('"', at + 1)
            if end < 0:
                return None
            at = end + 1
            out.append('""' if depth == 0 else " ")
        elif two == "(*" or (two == "*)" and depth):
            depth += 1 if two == "(*" else -1
            out.append(" ")
            at += 2
        else:
            out.append(" " if depth else text[at])
            at += 1
    return None if depth else "".join(out)


def _sentences(text: str) -> Iterator[str]:
    """Yield each sentence, without the bullets, braces and selectors before it."""
    for sentence in re.split(r"\.(?=\s|\Z)", text):
        rest = sentence.strip()
        while found := SELECTOR.match(rest):
            rest = rest[found.end() :].strip()
        if rest.strip("."):
            yield rest
