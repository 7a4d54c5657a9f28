"""How a proof is put under a Lean statement, what it may not hold, and what Lean's answer means."""

from __future__ import annotations

import re
import secrets
import textwrap
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ftkit.verifiers.base import Verdict
from ftkit.verifiers.proof import Attempt

STATEMENT = re.compile(r"(?:theorem|lemma|example)\b\s*")
NAME = re.compile(r"[^\s:({\[⦃]+\s*")
ASSIGNED = re.compile(r":=\s*(?:by\b)?\s*(?:sorry)?\s*\Z")

FORBIDDEN = (
    *("sorry", "sorryAx", "admit", "axiom", "native_decide", "ofReduceBool", "ofReduceNat"),
    *("trustCompiler", "unsafe", "implemented_by", "extern", "csimp", "macro", "macro_rules"),
    *("elab", "elab_rules", "run_cmd", "run_tac", "run_meta", "run_elab", "by_elab", "import"),
    *("initialize", "set_option", "unseal", "skipKernelTC", "simproc", "dsimproc"),
    r"(?:builtin|declare|register|simproc|dsimproc|elab|macro|run|initialize)_\w+",
)
"""Words that may stand nowhere in a proof, comments included."""
COMMANDS = (
    *("theorem", "lemma", "example", "def", "abbrev", "opaque", "instance", "structure", "class"),
    *("inductive", "coinductive", "namespace", "section", "end", "mutual", "universe", "variable"),
    *("attribute", "export", "syntax", "notation", "infix", "infixl", "infixr", "prefix"),
    *("postfix", "declare_syntax_cat", "deriving", "private", "protected", "noncomputable"),
    *("alias", "notation3", "binder_predicate", "irreducible_def", "unif_hint", "add_decl_doc"),
    *("partial", "local", "scoped", "include", "omit", "public", "meta", "register_simp_attr"),
)
"""Words that begin a command and end a proof."""
SIGNS = ('"', "«", "@[", "`(", "```")
"""Signs of which a proof needs none, and that would hide what comes after them."""
HASH = re.compile(r"#[a-zA-Z_]{2,}")

RESTS = re.compile(r"^'[^']*' depends on axioms: \[([^\]]*)\]\s*$")
FREE = re.compile(r"^'[^']*' does not depend on any axioms\s*$")

Messages = Iterable[tuple[str, int, str]]
"""Severity, line (from 1) and words."""


@dataclass(frozen=True)
class Lines:
    """The theorem's name; from 1, where the proof begins and where axioms are listed."""

    name: str
    proof: int
    axioms: int

    def after(self, lines: int) -> Lines:
        """Return the places when so many lines stand before."""
        return Lines(self.name, self.proof + lines, self.axioms + lines)


def refused(proof: str) -> str | None:
    r"""Say what in a proof is no tactic.

    >>> refused("simp [h] -- the end"), refused("simp\ntheorem x : False := y")
    (None, "the word 'theorem'")
    """
    for sign in SIGNS:
        if sign in proof:
            return f"the sign {sign}"
    if found := _word(FORBIDDEN, proof.replace(".", " ")):
        return f"the word '{found}'"
    text = _without_comments(proof)
    if text is None:
        return "a comment without an end"
    if found := _word(COMMANDS, text):
        return f"the word '{found}'"
    hashed = HASH.search(text)
    return f"the command {hashed[0]}" if hashed else None


def spliced(attempt: Attempt) -> tuple[str, Lines]:
    """Return the theorem with its proof, under a new name, and the command after it."""
    name = f"ftkit_{secrets.token_hex(8)}"
    claim = f"theorem {name} {_claim(attempt.statement)} := by\n"
    proof = re.sub(r"\A\s*(?::=\s*)?by\b[ \t]*\n?", "", attempt.proof)
    body = textwrap.indent(textwrap.dedent(proof), "  ")
    begins = claim.count("\n") + 1
    text = f"{claim}{body}\n\n#print axioms {name}\n"
    return text, Lines(name, begins, text.count("\n"))


def judged(messages: Messages, lines: Lines, allowed: Collection[str]) -> Verdict:
    """Return the verdict that a checker's messages mean."""
    axioms: list[str] | None = None
    for severity, line, words in messages:
        if severity == "error":
            short = " ".join(words.split())[:200]
            if line < lines.proof and "unsolved goals" not in words:
                return Verdict("error", None, f"the statement or the header is wrong: {short}")
            return Verdict("incorrect", 0.0, short)
        ours = line == lines.axioms and lines.name in words.partition("' d")[0]
        if ours and severity in ("info", "information"):
            if found := RESTS.match(words):
                axioms = [each.strip() for each in found[1].split(",")]
            elif FREE.match(words):
                axioms = []
    if axioms is None:
        return Verdict("incorrect", 0.0, "no word of the axioms that it rests on")
    others = [name for name in axioms if name not in allowed]
    if others:
        return Verdict("incorrect", 0.0, f"it rests on axioms: {', '.join(others)}")
    return Verdict("correct", 1.0, f"by the axioms {', '.join(axioms)}" if axioms else "")


def _claim(statement: str) -> str:
    """Return binders and claim of a statement, behind the name.

    >>> _claim("theorem t (n : Nat) : n = n := by sorry"), _claim("∀ n : Nat, n = n")
    ('(n : Nat) : n = n', ': ∀ n : Nat, n = n')
    """
    text = ASSIGNED.sub("", statement.strip()).strip()
    keyword = STATEMENT.match(text)
    if keyword is None:
        return f": {text}"
    text = text[keyword.end() :]
    return text if keyword[0].startswith("example") else NAME.sub("", text, count=1)


def _word(words: Iterable[str], text: str) -> str | None:
    found = re.search(rf"(?<![\w'!?.])(?:{'|'.join(words)})(?![\w'!?])", text)
    return found[0] if found else None


def _without_comments(text: str) -> str | None:
    """Return Lean's text with blanks for comments; None if one has no end."""
    out, depth, at = [], 0, 0
    while at < len(text):
        two = text[at : at + 2]
        if two == "--" and not depth:
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        elif two == "/-" or (two == "-/" and depth):
            depth += 1 if two == "/-" else -1
            out.append(" ")
            at += 2
        else:
            out.append(" " if depth else text[at])
            at += 1
    return None if depth else "".join(out)
