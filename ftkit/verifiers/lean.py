"""Proofs checked by Lean 4: a file for each by ``lake env lean``, or a REPL that keeps the imports.

The proof stands under our statement, whose name it cannot know, and what the theorem rests on is
printed at a line where only our command stands: no message there, no proof.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from ftkit.verifiers.base import SetupError, Verdict
from ftkit.verifiers.lean_text import Lines, Messages, judged, refused, spliced
from ftkit.verifiers.proof import Attempt, Program, beginning
from ftkit.verifiers.shield import shielded

RECYCLED = 200
"""Proofs after which a REPL is replaced: it keeps everything that it was told."""
LARGEST = 1 << 22
"""Letters of a REPL's reply."""


class Checker(ABC):
    """What both ways to Lean share."""

    allowed: Collection[str]

    def refused(self, proof: str) -> str | None:
        """Say what in a proof is no tactic."""
        return refused(proof)

    def check(self, attempt: Attempt) -> Verdict:
        """Return whether it is a proof."""
        verdict = judged(*self.answers(attempt), self.allowed)
        if verdict.status != "error":
            return verdict
        # An error above the proof may be the proof's all the same: a kernel names the theorem.
        alone, _ = self.answers(replace(attempt, proof="sorry"))
        if any(severity == "error" for severity, _, _ in alone):
            return verdict
        return Verdict("incorrect", 0.0, verdict.detail)

    @abstractmethod
    def answers(self, attempt: Attempt) -> tuple[Messages, Lines]:
        """Return what Lean says, and at which lines that stands of which it says it."""


@dataclass(frozen=True)
class Lean(Checker):
    """Lean, through a program that compiles a file and prints messages as JSON."""

    program: Program
    allowed: Collection[str]

    def answers(self, attempt: Attempt) -> tuple[Messages, Lines]:
        """Compile one file."""
        header = f"{attempt.header}\n" if attempt.header else ""
        text, lines = spliced(attempt)
        with tempfile.TemporaryDirectory() as folder:
            file, output = Path(folder) / "Ftkit.lean", Path(folder) / "Ftkit.out"
            file.write_text(header + text, encoding="utf-8", errors="replace")
            status = self.program.run("--json", str(file), output=output)
            said = beginning(output, LARGEST)
            messages = list(_messages(said.splitlines()))
            if not messages:
                errors = beginning(output.with_suffix(".err")).strip() or said.strip()
                raise RuntimeError(
                    f"{self.program.command[0]} ended with {status}: {errors[-200:]}"
                )
        return messages, lines.after(header.count("\n"))


@dataclass
class Repl(Checker):
    """Lean, through a REPL that read the header once and begins each proof behind it."""

    program: Program
    allowed: Collection[str]
    header: str
    process: subprocess.Popen[str] = field(init=False)
    environment: int | None = field(init=False, default=None)
    checked: int = field(init=False, default=0)
    broken: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        """Start it and have it read the header."""
        try:
            with shielded():
                self.process = subprocess.Popen(
                    self.program.command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    cwd=self.program.directory,
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                )
        except OSError as error:
            raise SetupError(f"{self.program.command[0]} does not start: {error}") from None
        if not self.header.strip():
            return
        try:
            reply = self._ask({"cmd": self.header})
        except RuntimeError as error:
            raise SetupError(str(error)) from None
        wrong = [words for severity, _, words in _of_repl(reply) if severity == "error"]
        if wrong or not isinstance(reply.get("env"), int):
            said = " ".join(wrong) or str(reply)
            raise SetupError(f"the REPL does not take the header: {said[:300]}")
        self.environment = reply["env"]

    @property
    def spent(self) -> bool:
        """Whether it is to be replaced."""
        return self.broken or self.checked >= RECYCLED

    def answers(self, attempt: Attempt) -> tuple[Messages, Lines]:
        """Send one command."""
        text, lines = spliced(attempt)
        command: dict[str, Any] = {"cmd": text}
        if self.environment is not None:
            command["env"] = self.environment
        self.checked += 1
        return list(_of_repl(self._ask(command))), lines

    def _ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Send a command; return the reply, one map that may be spread over lines."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(command) + "\n\n")
            self.process.stdin.flush()
            return _reply(self.process.stdout)
        except (OSError, RuntimeError) as error:
            self.broken = True
            status = self.process.poll()
            raise RuntimeError(f"the REPL does not answer (status {status}): {error}") from None


def _messages(lines: Iterable[str]) -> Iterator[tuple[str, int, str]]:
    """Yield the messages of a compiler, one map a line."""
    for line in lines:
        with contextlib.suppress(ValueError):
            yield from _of_repl({"messages": [json.loads(line)]})


def _of_repl(reply: Mapping[str, Any]) -> Iterator[tuple[str, int, str]]:
    if isinstance(reply.get("message"), str):  # what it says of a command that it cannot read
        yield "error", 0, reply["message"]
    for message in reply.get("messages") or ():
        with contextlib.suppress(LookupError, TypeError):
            yield str(message["severity"]), int(message["pos"]["line"]), str(message["data"])


def _reply(stream: IO[str]) -> dict[str, Any]:
    text = ""
    for line in stream:
        text += line
        if len(text) > LARGEST:
            raise RuntimeError("its reply has no end")
        with contextlib.suppress(ValueError):
            reply = json.loads(text)
            if isinstance(reply, dict):
                return reply
    raise RuntimeError("it has ended")
