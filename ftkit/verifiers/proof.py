"""Right if the answer proves the statement that the truth is.

The statement is ours and only the proof the model's: it is refused if it could be more than a
proof, put under the statement, compiled, and the axioms that it rests on are listed.
"""

from __future__ import annotations

import re
import resource
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ftkit.verifiers.base import Item, ItemVerifier, SetupError, Verdict
from ftkit.verifiers.place import MissingError, taken
from ftkit.verifiers.shield import shielded

System = Literal["lean", "coq"]

FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
LARGEST_FILE = 2**28
"""Bytes of a file that a program may write."""
LONGEST = 100_000
"""Letters of a proof that is read."""

COMMANDS: Mapping[System, tuple[str, ...]] = {"lean": ("lake", "env", "lean"), "coq": ("coqc",)}
AXIOMS: Mapping[System, tuple[str, ...]] = {
    "lean": ("propext", "Classical.choice", "Quot.sound"),
    "coq": (),
}

TRIALS: Mapping[System, tuple[tuple[str, str, bool], ...]] = {
    "coq": (("True", "exact I.", True), ("False", "exact I.", False)),
    "lean": (("True", "trivial", True), ("False", "trivial", False)),
}
"""Statement, proof and whether that is one: what is tried at the start."""

UNPROVED: Mapping[System, str] = {"coq": "fail.", "lean": "fail"}
"""What proves nothing: with it, a statement that can be read is not proved, and no error."""


@dataclass(frozen=True)
class Attempt:
    """A proof to be checked."""

    statement: str
    proof: str
    header: str


class Checker(Protocol):
    """A proof system."""

    def refused(self, proof: str) -> str | None:
        """Say what in a proof is no part of one."""

    def check(self, attempt: Attempt) -> Verdict:
        """Return whether it is a proof."""


def make(
    *,
    system: System,
    command: Sequence[str] | None,
    repl: Sequence[str] | None,
    header: str,
    directory: str | None,
    after: str | None,
    axioms: Sequence[str] | None,
) -> ItemVerifier:
    """Return the verifier of ``ProofConfig``; to be called in a pool's process only.

    Raises:
        SetupError: if the REPL does not start or does not take the header.
    """
    from ftkit.verifiers.coq import Coq
    from ftkit.verifiers.lean import Lean, Repl

    _limit_files()
    program = Program(tuple(command or COMMANDS[system]), directory)
    allowed = frozenset(AXIOMS[system] if axioms is None else axioms)
    checker: Checker
    if system == "coq":
        checker = Coq(program, allowed)
    elif repl is None:
        checker = Lean(program, allowed)
    else:
        checker = Repl(Program(tuple(repl), directory), allowed, header)
    return Prover(checker, header, after)


@dataclass
class Prover:
    """Judges proofs by a proof system."""

    checker: Checker
    header: str
    after: str | None

    def __call__(self, item: Item) -> Verdict:
        """Return the verdict on one proof."""
        if not item.truth.strip():
            return Verdict("error", None, "there is no statement to prove")
        try:
            proof = proof_in(item.answer, self.after)
        except MissingError as missing:
            return Verdict("unparseable", 0.0, str(missing))
        refused = self.checker.refused(proof)
        if refused is not None:
            return Verdict("incorrect", 0.0, f"refused: {refused}")
        return self.checker.check(Attempt(item.truth.strip(), proof, self.header))

    @property
    def spent(self) -> bool:
        """Whether the process shall be replaced."""
        return bool(getattr(self.checker, "spent", False))


def proof_in(answer: str, after: str | None) -> str:
    """Return the proof in an answer: its one fenced block, or else the whole of it.

    Raises:
        MissingError: if there is none, or several blocks.
    """
    text = taken(answer, after=after)
    blocks = FENCE.findall(text)
    if len(blocks) > 1:
        raise MissingError(f"{len(blocks)} fenced blocks, and one proof is asked")
    proof = str(blocks[0]) if blocks else text
    if not proof.strip():
        raise MissingError("no proof")
    if "```" in proof or "\0" in proof or len(proof) > LONGEST:
        raise MissingError("an open fenced block" if "```" in proof else "no text of a proof")
    return proof.strip("\n")


@dataclass(frozen=True)
class Program:
    """An outside program, and where it runs."""

    command: tuple[str, ...]
    directory: str | None

    def run(self, *arguments: str, output: Path) -> int:
        """Run it until it ends; what it prints goes to ``output``, its errors to ``output``.err.

        Its time is limited by the pool, which kills it with this process.

        Raises:
            SetupError: if it cannot be started.
        """
        try:
            told = output.with_suffix(".err")
            with shielded(), output.open("wb") as out, told.open("wb") as errors:
                return subprocess.run(
                    [*self.command, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=errors,
                    cwd=self.directory,
                    check=False,
                ).returncode
        except OSError as error:
            raise SetupError(f"{self.command[0]} does not start: {error}") from None


def beginning(file: Path, most: int = 1 << 16) -> str:
    """Return the beginning of a file's text."""
    with file.open("rb") as opened:
        return opened.read(most).decode(errors="replace")


def _limit_files() -> None:
    from ftkit.verifiers.worker import limit

    limit(resource.RLIMIT_FSIZE, LARGEST_FILE)
