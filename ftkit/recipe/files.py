"""Whether the files that a recipe names are there, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ftkit.core.errors import Fault, UserError
from ftkit.core.templates import TEMPLATES
from ftkit.data.config import DataConfig, SourceConfig
from ftkit.recipe.load import Loaded
from ftkit.recipe.suggest import closest

MODEL_FILES = ("config.json", "adapter_config.json")
"""A folder with one of these holds a model or adapters."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


def missing_files(loaded: Loaded, *, pool: bool = True) -> list[Fault]:
    """Return a fault for each data file, model, tokenizer or template that is not there.

    Names of the hub (``hf:NAME``, ``org/model``) are not looked up; nor is the pool without
    ``pool``.
    """
    data, model = loaded.recipe.data, loaded.recipe.model
    faults = [fault for key, path in _data_paths(data) for fault in _data(loaded, key, path)]
    if data.template is not None and data.template not in TEMPLATES:
        remedy = f"write {', '.join(TEMPLATES)} or a .jinja file"
        faults += _file(loaded, "data.template", data.template, remedy)
    if pool and data.pool is not None and not Path(data.pool).expanduser().is_dir():
        remedy = _near(data.pool) or "build it: ftkit gen-negatives RECIPE"
        faults.append(loaded.fault("data.pool", f"there is no pool '{data.pool}'", remedy))
    named = {
        "method.reference": getattr(loaded.recipe.method, "reference", None),
        "method.critic_path": getattr(loaded.recipe.method, "critic_path", None),
        "eval.reference": loaded.recipe.eval.reference,
    }
    for key, reference in named.items():
        if reference not in {"initial", "none", None}:
            faults += _folder(loaded, key, str(reference), MODEL_FILES)
    if model.path is not None:
        faults += _folder(loaded, "model.path", model.path, MODEL_FILES)
    if model.tokenizer is not None:
        faults += _folder(loaded, "model.tokenizer", model.tokenizer, _TOKENIZER_FILES)
    return faults


def require_files(loaded: Loaded, *, pool: bool = True) -> None:
    """Raise ``UserError`` with every file that a recipe names and that is not there."""
    if faults := missing_files(loaded, pool=pool):
        raise UserError(faults)


def require_method(loaded: Loaded, name: str) -> None:
    """Raise ``UserError`` where the recipe is of another method than the command is."""
    if loaded.recipe.method.name != name:
        found = f"'{loaded.recipe.method.name}', and the command is `ftkit {name}`"
        remedy = f"run `ftkit {loaded.recipe.method.name}`, or `ftkit train`"
        raise UserError(loaded.fault("method.name", found, remedy))


def is_path(name: str) -> bool:
    """Whether a model's name means a folder here rather than a name of the hub.

    >>> is_path("runs/sft/model"), is_path("./model"), is_path("Qwen/Qwen3-0.6B")
    (True, True, False)
    """
    first = name.split("/", 1)[0]
    return name.startswith((".", "/", "~")) or name.count("/") != 1 or Path(first).exists()


def _data_paths(data: DataConfig) -> Iterator[tuple[str, str]]:
    if isinstance(data.train, str):
        yield "data.train", data.train
    else:
        for i, source in enumerate(data.train):
            yield f"data.train.{i}.path", source.path
    if isinstance(data.eval, str):
        yield "data.eval", data.eval
    elif isinstance(data.eval, SourceConfig):
        yield "data.eval.path", data.eval.path


def _data(loaded: Loaded, key: str, path: str) -> Iterator[Fault]:
    if not path.startswith("hf:"):
        yield from _file(loaded, key, path, "write a file, a folder of files, or hf:NAME")


def _file(loaded: Loaded, key: str, path: str, remedy: str) -> Iterator[Fault]:
    if not Path(path).expanduser().exists():
        yield loaded.fault(key, f"there is no '{path}' in {Path.cwd()}", _near(path) or remedy)


def _folder(loaded: Loaded, key: str, path: str, files: tuple[str, ...]) -> Iterator[Fault]:
    folder = Path(path).expanduser()
    if not is_path(path):
        return
    if not folder.is_dir():
        remedy = _near(path) or "write the folder, or a name of the hub"
        yield loaded.fault(key, f"there is no folder '{path}' in {Path.cwd()}", remedy)
    elif not any((folder / file).is_file() for file in files):
        within = folder / "model"
        better = any((within / file).is_file() for file in files)
        remedy = f"did you mean '{within}'?" if better else "write a folder that holds one"
        yield loaded.fault(key, f"'{path}' has no {' or '.join(files)}", remedy)


def _near(path: str) -> str:
    """Return the file beside that looks most like it, as a question."""
    wanted = Path(path)
    folder = wanted.parent
    names = [each.name for each in sorted(folder.iterdir())] if folder.is_dir() else []
    near = closest(wanted.name, names, 0.75)
    return f"did you mean '{folder / near}'?" if near else ""
