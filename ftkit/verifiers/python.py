"""The value of a Python function of (answer, truth).

It runs in a process of its own, with limits, so that it may hang, crash or print; it is no sandbox:
a function that runs code out of answers must shut that code in itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

from ftkit.verifiers.base import Item, ItemVerifier, SetupError, Verdict


def make(*, function: str, threshold: float) -> ItemVerifier:
    """Return the verifier of ``PythonConfig``; to be called in a pool's process only.

    Raises:
        SetupError: if there is no such function.
    """
    call = find(function)

    def verify(item: Item) -> Verdict:
        return graded(call(item.answer, item.truth), threshold, function)

    return verify


def graded(value: Any, threshold: float, source: str) -> Verdict:
    """Return the verdict that a value means: a truth value, or a finite number.

    >>> graded(True, 1.0, "f"), graded(float("nan"), 1.0, "f").status
    (Verdict(status='correct', reward=1.0, detail='', parts={}, seconds=0.0), 'error')
    """
    if not hasattr(value, "__float__"):
        return Verdict("error", None, f"{source} returned {type(value).__name__}, no number")
    reward = float(value)
    if not math.isfinite(reward):
        return Verdict("error", None, f"{source} returned {reward}")
    if reward >= threshold:
        return Verdict("correct", reward)
    return Verdict("incorrect", reward, f"{reward:g}, less than {threshold:g}")


def find(function: str) -> Callable[[str, str], Any]:
    """Import a function by its path.

    Raises:
        SetupError: if it cannot be imported, or is none.
    """
    where, _, name = function.rpartition(":")
    try:
        module = _file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except BaseException as error:
        raise SetupError(f"'{where}' cannot be imported: {type(error).__name__}: {error}") from None
    found = getattr(module, name, None)
    if not callable(found):
        own = [each for each in vars(module).values() if isinstance(each, FunctionType)]
        names = [each.__name__ for each in own if each.__module__ == module.__name__]
        known = f"; it has {', '.join(sorted(names)[:10])}" if names else ""
        raise SetupError(f"'{where}' has no function '{name}'{known}")
    return found  # type: ignore[no-any-return]


def _file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError("no such file")
    sys.path.insert(0, str(path.parent.resolve()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
