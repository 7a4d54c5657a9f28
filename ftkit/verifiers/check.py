"""What can be wrong with a recipe's ``verify:`` before anything is started."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ftkit.core.errors import Fault
from ftkit.verifiers.config import (
    FormatConfig,
    HttpConfig,
    LengthConfig,
    NumericConfig,
    OneVerify,
    ProofConfig,
    PythonConfig,
    Verify,
)
from ftkit.verifiers.proof import COMMANDS

FUNCTION = re.compile(r"[^:]+\.py:\w+|\w+(?:\.\w+)*:\w+")


def listed(verify: Verify) -> Sequence[OneVerify]:
    """Return the verifiers of a recipe, as a list."""
    return verify if isinstance(verify, list) else [verify]


def place_of(verify: Verify, index: int) -> str:
    """Return where a verifier stands in the recipe.

    >>> from ftkit.verifiers.config import ExactConfig
    >>> place_of(ExactConfig(name="exact"), 0), place_of([ExactConfig(name="exact")], 0)
    ('verify', 'verify.0')
    """
    return f"verify.{index}" if isinstance(verify, list) else "verify"


def faults_of(verify: Verify) -> list[Fault]:
    """Return everything that is wrong and can be seen without starting anything."""
    found: list[Fault] = []
    for index, config in enumerate(listed(verify)):
        check = CHECKS.get(config.name)
        if check is not None:
            found += check(config, place_of(verify, index))
    return found


def _numeric(config: NumericConfig, place: str) -> Iterator[Fault]:
    if re.search(r"[0-9.,+\-%\s]", config.currency):
        remedy = "write signs of currencies, such as $€"
        yield Fault(f"{place}.currency", f"'{config.currency}' holds a part of numbers", remedy)


def _format(config: FormatConfig, place: str) -> Iterator[Fault]:
    try:
        re.compile(config.pattern)
    except (re.error, RecursionError, OverflowError) as error:
        yield Fault(f"{place}.pattern", f"no regular expression: {error}", "correct it")


def _length(config: LengthConfig, place: str) -> Iterator[Fault]:
    if config.soft >= config.hard:
        found = f"soft, {config.soft}, is not below hard, {config.hard}"
        yield Fault(f"{place}.soft", found, "write hard = sample.max_tokens and less for soft")


def _http(config: HttpConfig, place: str) -> Iterator[Fault]:
    try:
        url = urlsplit(config.url)
        right = url.scheme in ("http", "https") and bool(url.hostname) and (url.port or 1) > 0
    except ValueError:
        right = False
    if not right or re.search(r"\s", config.url):
        remedy = "write one such as http://127.0.0.1:8000/judge"
        yield Fault(f"{place}.url", f"'{config.url}' is no address", remedy)
    if config.auth_env is not None and not os.environ.get(config.auth_env):
        remedy = "set it, or write another name"
        yield Fault(f"{place}.auth_env", f"no environment variable {config.auth_env}", remedy)


def _python(config: PythonConfig, place: str) -> Iterator[Fault]:
    place, file = f"{place}.function", config.function.rpartition(":")[0]
    if not FUNCTION.fullmatch(config.function):
        remedy = "write package.module:name or path/to/file.py:name"
        yield Fault(place, f"'{config.function}' names no function", remedy)
    elif file.endswith(".py") and not Path(file).is_file():
        yield Fault(place, f"no file {file}", "correct the path")


def _proof(config: ProofConfig, place: str) -> Iterator[Fault]:
    directory = Path(config.directory or ".")
    if not directory.is_dir():
        yield Fault(f"{place}.directory", f"no folder {directory}", "correct the path")
    if config.repl is not None and config.system != "lean":
        yield Fault(f"{place}.repl", "only lean has a REPL", "leave it out")
    key = "command" if config.repl is None else "repl"
    command = config.repl or config.command or COMMANDS[config.system]
    if "/" in command[0]:
        known: object = os.access(directory / command[0], os.X_OK)
    else:
        known = shutil.which(command[0])
    if not known:
        program = "Lean 4 (elan)" if config.system == "lean" else "Coq (apt-get install coq)"
        remedy = f"install {program}, or write its path"
        yield Fault(f"{place}.{key}", f"no program {command[0]} on PATH", remedy)


CHECKS: Mapping[str, Callable[[Any, str], Iterator[Fault]]] = {
    "numeric": _numeric,
    "format": _format,
    "length": _length,
    "http": _http,
    "python": _python,
    "proof": _proof,
}
