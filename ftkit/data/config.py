"""The recipe's ``data:``: which rows, in which form, and what becomes of those too long."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftkit.core.section import Section

Format = Literal[
    "auto",
    "messages",
    "sharegpt",
    "alpaca",
    "prompt_completion",
    "text",
    "preferences",
    "prompts",
]
"""How a row says what it says."""

Column = Literal[
    "messages",
    "conversations",
    "system",
    "tools",
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "history",
    "chosen",
    "rejected",
    "negatives",
    "text",
    "truth",
]
"""Our name for a column."""


class SourceConfig(Section):
    """One set of rows."""

    path: str
    """A file (.jsonl, .jsonl.gz, .json, .csv, .parquet), a folder of such files, or `hf:NAME` for a
    data set of the Hugging Face hub (`hf:NAME:CONFIG` where it has several)."""
    split: str = "train"
    """Which split of an `hf:` data set."""
    weight: float = Field(1.0, gt=0)
    """How often each row is seen in an epoch: 2 is twice, 0.5 is every second epoch."""
    format: Format = "auto"
    """How a row says what it says; `auto` looks at the columns and reports what it took: the first
    that fits of messages, sharegpt, prompt_completion, alpaca, text (pretrain: text first; methods
    that sample their answers: prompts, with or without truth, in the place of text); methods that
    compare given answers read preferences only."""
    columns: dict[Column, str] = Field(default_factory=dict)
    """Our name for a column: its name in the file, as `{prompt: question, completion: answer}`."""
    ask: str | None = Field(None, min_length=1)
    """format prompts: what the user says, with `{prompt}` where the row's prompt stands; such a
    prompt goes through the chat template, as one turn. null = a prompt that is a text is fed as it
    is."""
    limit: int | None = Field(None, gt=0)
    """At most so many rows, drawn with the recipe's seed."""


class EvalSplitConfig(Section):
    """Held-out rows drawn from the training rows by the hash of their prompt and the seed."""

    fraction: float = Field(gt=0, lt=1)
    """The share of prompts held out; rows with the same prompt stay together."""


class DataConfig(Section):
    """The rows to learn from and those to be measured on."""

    train: str | list[SourceConfig]
    """A path, `hf:NAME`, or a list of sets with weights."""
    eval: str | SourceConfig | EvalSplitConfig | None = None
    """The held-out rows: a path, a set, a pool's folder, or `{fraction: 0.02}` of the training
    rows."""
    pool: str | None = None
    """dft: the folder of negatives that `ftkit gen-negatives` wrote, or will write."""
    max_length: int = Field(1024, gt=1)
    """The longest row, prompt and answer together, in tokens; of a pair, either answer with it."""
    overlong: Literal["error", "drop", "truncate", "split"] = "error"
    """What becomes of a longer row: `error` stops with the row's place, `drop` leaves it out and
    counts it, `truncate` cuts the end (the EOS with it; of a pair, that of each answer), `split`
    (pretrain only) makes several rows of it."""
    template: str | None = None
    """The chat template: null = the tokenizer's own; `chatml`, `plain` = built in; or a .jinja
    file."""
