"""The recipe's ``verify:``: who judges answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ftkit.core.section import Section

Percent = Literal["same", "ignore", "hundredth"]


class Weighted(Section):
    """What every verifier has."""

    weight: float = 1.0
    """What its reward is multiplied by, alone and in a sum of verifiers."""


class Pooled(Weighted):
    """What verifiers have that run in processes of their own."""

    timeout: float = Field(10.0, gt=0)
    """Seconds for one answer; then its process is killed, and the verdict is `timeout`."""
    memory_mb: int = Field(2048, ge=128)
    """The address space of one process, in MiB."""
    workers: int | None = Field(None, gt=0)
    """Processes; null = one for each CPU, at most 4."""


class ExactConfig(Weighted):
    """Right if the answer is the truth, white space at both ends apart."""

    name: Literal["exact"]
    after: str | None = Field(None, min_length=1)
    """Compare only what follows the last occurrence of this marker, such as `####`, in both; an
    answer without it is unparseable, not right; a truth without it is compared whole."""


class NumericConfig(Weighted):
    """Right if the answer is the number that the truth is."""

    name: Literal["numeric"]
    after: str | None = Field(None, min_length=1)
    """The number is all that follows the last occurrence of this marker; null = the whole answer
    is the number."""
    boxed: bool = False
    """The number is in `\\boxed{}`; with `after`, in one that follows the marker."""
    tolerance: float = Field(0.0, ge=0)
    """The largest distance from the truth."""
    relative: float = Field(0.0, ge=0)
    """The largest distance, in parts of the truth, where that is more than `tolerance`."""
    thousands: Literal["comma", "point", "space", "none"] = "comma"
    """What may part digits in threes; with `point` the decimal mark is a comma."""
    percent: Percent = "same"
    """`same`: a number with % equals only one with %; `ignore`: the sign means nothing;
    `hundredth`: 10% is 0.1."""
    currency: str = "$"
    """Signs that may stand before the number and mean nothing."""


class MathConfig(Pooled):
    """Right if the answer is mathematically equal to the truth, by math-verify."""

    name: Literal["math"]
    after: str | None = Field(None, min_length=1)
    """Read only what follows the last occurrence of this marker, such as `</think>`."""
    boxed: bool = True
    """The answer is in `\\boxed{}`; false = it is all that is read."""
    worked_out: bool = True
    """Where the truth is a plain number, the answer must be one too, or a fraction of two: `6*7`
    is not taken for 42."""
    percent: Percent = "same"
    """`same`: a value with % equals only one with %; `ignore`: the sign means nothing;
    `hundredth`: 10% is 0.1."""


class ProofConfig(Pooled):
    """Right if the answer proves the statement that the truth is, by Lean 4 or Coq."""

    name: Literal["proof"]
    system: Literal["lean", "coq"]
    """Who checks proofs."""
    command: list[str] | None = Field(None, min_length=1)
    """The program and its arguments; a file is added to them. null = `lake env lean` or `coqc`."""
    repl: list[str] | None = Field(None, min_length=1)
    """lean: the program of a REPL that reads commands as JSON, such as `lake env repl`; it reads
    `header` once instead of with each proof."""
    header: str = ""
    """What stands before each statement: imports, definitions."""
    directory: str | None = None
    """The folder in which the program runs, such as that of a lake project; null = the current."""
    after: str | None = Field(None, min_length=1)
    """The proof is what follows the last occurrence of this marker; in it, or in the whole answer,
    the one block between ``` if there is one."""
    axioms: list[str] | None = None
    """Axioms that a proof may rest on; null = lean: propext, Classical.choice, Quot.sound; coq:
    none."""
    timeout: float = Field(60.0, gt=0)
    """Seconds for one proof; then its process is killed, and the verdict is `timeout`."""
    start_timeout: float = Field(300.0, gt=0)
    """Seconds for a REPL to read `header`."""
    memory_mb: int = Field(8192, ge=128)
    """The address space of one program, in MiB; Lean with Mathlib needs more than 8192."""


class PythonConfig(Pooled):
    """The value of a Python function of (answer, truth)."""

    name: Literal["python"]
    function: str = Field(min_length=1)
    """`package.module:name` or `path/to/file.py:name`; called with two texts, it returns true,
    false or a number."""
    threshold: float = 1.0
    """An answer counts as correct in figures if its value is at least this."""
    gold: str | None = Field(None, min_length=1)
    """A right answer, with `{truth}` in its place: what is tried on the data's truths at the start;
    null = nothing is."""


class HttpConfig(Pooled):
    """The reward that a server returns for {"prompt", "answer", "truth"}, sent as JSON."""

    name: Literal["http"]
    url: str = Field(min_length=1)
    """Where to; it returns a number, true or false, alone or as `reward` of a map."""
    timeout: float = Field(10.0, gt=0)
    """Seconds for one request; a server that is later is an error, not the answer's fault."""
    retries: int = Field(2, ge=0)
    """Further requests, each after a longer pause, where the server does not answer or is busy."""
    auth_env: str | None = Field(None, min_length=1)
    """The environment variable that holds the token of the header `Authorization: Bearer`."""
    threshold: float = 1.0
    """An answer counts as correct in figures if its reward is at least this."""
    gold: str | None = Field(None, min_length=1)
    """A right answer, with `{truth}` in its place: what is tried on the data's truths at the start;
    null = nothing is."""
    workers: int | None = Field(None, gt=0)
    """Requests at once; null = 8."""


class ModelJudgeConfig(Weighted):
    """What a reward model, trained by `reward`, says at the last token of the answer."""

    name: Literal["model"]
    path: str = Field(min_length=1)
    """Its folder or name; its tokenizer must be the policy's, for it reads the same tokens."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Its precision."""
    micro_tokens: int | None = Field(None, gt=0)
    """Tokens that go through at once; null = as many as of the policy."""
    threshold: float = 0.0
    """An answer counts as correct in figures if its reward is at least this."""


class FormatConfig(Pooled):
    """1 if the whole answer matches a regular expression, else 0."""

    name: Literal["format"]
    pattern: str = Field(min_length=1)
    """Of Python's `re`; begin with `(?s)` for a dot that matches line ends too."""
    timeout: float = Field(1.0, gt=0)
    """Seconds for one answer; then its process is killed, and the verdict is `timeout`."""
    workers: int | None = Field(1, gt=0)
    """Processes; null = one for each CPU, at most 4."""
    memory_mb: int = Field(512, ge=128)
    """The address space of one process, in MiB."""


class LengthConfig(Weighted):
    """DAPO's soft punishment of long answers: 0 up to `soft` tokens, -1 from `hard` on."""

    name: Literal["length"]
    soft: int = Field(ge=0)
    """The longest answer, in tokens with the stop token, that is not punished."""
    hard: int = Field(gt=0)
    """From here on the reward is -1; between the two it falls in a line."""


OneVerify = Annotated[
    ExactConfig
    | NumericConfig
    | MathConfig
    | ProofConfig
    | PythonConfig
    | HttpConfig
    | ModelJudgeConfig
    | FormatConfig
    | LengthConfig,
    Field(discriminator="name"),
]
"""Every verifier that a recipe can name."""

Verify = OneVerify | Annotated[list[OneVerify], Field(min_length=1)]
"""One verifier, or several whose rewards are summed."""
