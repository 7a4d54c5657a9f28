"""``ftkit chat``: talk with a model."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ftkit.core.errors import UserError, user_error
from ftkit.data.example import Completion, Message
from ftkit.data.template import encode_prompt, stop_tokens
from ftkit.model.config import ModelConfig
from ftkit.model.load import load_policy
from ftkit.model.tokenizer import load_tokenizer
from ftkit.recipe.files import is_path
from ftkit.samplers.config import SampleConfig
from ftkit.samplers.hf import HFSampler
from ftkit.tasks.target import is_run, recipe_of_run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WITHOUT_TEMPLATE = {"boundary", "all"}
"""Masks (``RUN/data.json``) of rows that were learnt as they are: completions and documents."""

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What the bytes of an unfinished character decode to."""


def chat(target: str, *, once: str | None, temperature: float, max_tokens: int) -> None:
    """Talk with a model: line by line until ``/quit`` or the end of the input, or once.

    Through the chat template, with the history until ``/reset``, if there is one and the run that
    made the model learnt conversations, or no run is known; else each line is a text to continue.

    Args:
        target: a run's folder, a model's folder or a hub name.
        once: answer this and stop.
        temperature: 0 is greedy; otherwise every answer is drawn anew.
        max_tokens: the longest answer, in tokens.

    Raises:
        UserError: if there is no such model, or a prompt leaves no room for an answer.
    """
    if is_path(target) and not Path(target).expanduser().is_dir():
        raise user_error(target, "there is no such folder", "give a run, a model, or org/name")
    config = recipe_of_run(Path(target)).model if is_run(Path(target)) else ModelConfig(path=target)
    tokenizer = load_tokenizer(config)
    policy = load_policy(config, tokenizer, micro_tokens=1024, trainable=False)
    sampling = SampleConfig(temperature=temperature, max_tokens=max_tokens)
    sampler = HFSampler(policy.model, tokenizer, sampling, stop_tokens(tokenizer))
    talk = Talk(sampler, tokenizer, bool(tokenizer.chat_template) and _learnt_turns(Path(target)))
    if once is not None:
        _say(talk, once)
        return
    for line in _lines():
        if line.strip() == "/reset":
            talk.history.clear()
            typer.echo("(forgotten)")
            continue
        try:
            _say(talk, line)
        except UserError as error:
            typer.echo(f"{error}, or /reset" if talk.history else str(error), err=True)
        except KeyboardInterrupt:
            typer.echo(" (stopped)")


@dataclass
class Talk:
    """A conversation and who answers in it."""

    sampler: HFSampler
    tokenizer: PreTrainedTokenizerBase
    templated: bool
    """Whether turns go through the chat template; if not, each line is a text to be continued."""
    history: list[Message] = field(default_factory=list)

    def answer(self, line: str) -> Iterator[str]:
        """Yield the pieces of an answer as they are sampled, and remember it if it came to its end.

        Raises:
            UserError: if the prompt leaves no room for an answer.
        """
        asked: list[Message] = [*self.history, {"role": "user", "content": line}]
        given = asked if self.templated else Completion(line, "", "")
        prompt = encode_prompt(self.tokenizer, given)
        tokens: list[int] = []
        said = ""
        for token in self.sampler.stream(prompt, seed=random.getrandbits(63)):
            if token in self.sampler.stop:
                break
            tokens.append(token)
            text = self._text(tokens)
            if not text.endswith(INCOMPLETE):
                yield text[len(said) :]
                said = text
        yield self._text(tokens)[len(said) :]
        if self.templated:
            self.history = [*asked, {"role": "assistant", "content": self._text(tokens)}]

    def _text(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def _say(talk: Talk, line: str) -> None:
    """Print the answer to a line while it is sampled."""
    for piece in talk.answer(line):
        typer.echo(piece, nl=False)
    typer.echo()


def _lines() -> Iterator[str]:
    """Yield what is typed, without empty lines, until ``/quit`` or the end of the input."""
    typed = sys.stdin.isatty()
    if typed:
        typer.echo("/reset forgets what was said, /quit ends")
    while True:
        try:
            line = input("> " if typed else "")
        except EOFError:
            return
        if line.strip() == "/quit":
            return
        if line.strip():
            yield line


def _learnt_turns(folder: Path) -> bool:
    """Whether the run that made a model learnt conversations; so too if none is known."""
    run = folder if is_run(folder) else folder.parent
    report = run / "data.json"
    if not (is_run(run) and report.is_file()):
        return True
    masks = {source["masks"] for source in json.loads(report.read_text())["train"]}
    return not masks <= WITHOUT_TEMPLATE
