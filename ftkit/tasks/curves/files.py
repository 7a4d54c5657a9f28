"""The files of a comparison: never written over what someone else made."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from ftkit.core.errors import Fault, UserError, user_error

MAKER = "ftkit compare"
"""How what is written into each file as its maker begins."""

PNG = b"\x89PNG\r\n\x1a\n"
HEAD = 4096
"""So many bytes of a page are looked at."""


def targets(out: str) -> dict[str, Path]:
    """Return the files to write, by their kind: ``png``, ``html``.

    Args:
        out: their name, with or without one of the suffixes.

    Raises:
        UserError: of all that stands in the way.
    """
    base = Path(out)
    if base.suffix in {".png", ".html"}:
        base = base.with_suffix("")
    if not base.name:
        raise user_error(f"--out {out}", "names no file", "give a name, such as compare")
    if not base.parent.is_dir():
        raise user_error(f"--out {out}", "its folder does not exist", "make it, or name another")
    found = {kind: base.with_name(f"{base.name}.{kind}") for kind in ("png", "html")}
    faults = [
        Fault(str(path), "is there already, and ftkit compare did not write it", "give --out NAME")
        for kind, path in found.items()
        if (path.exists() or path.is_symlink()) and not is_ours(path, kind)
    ]
    if faults:
        raise UserError(faults)
    return found


def is_ours(path: Path, kind: str) -> bool:
    """Whether a file says that ``ftkit compare`` wrote it."""
    if not path.is_file():
        return False
    try:
        if kind == "html":
            with path.open("rb") as file:
                said = f'<meta name="generator" content="{MAKER} '
                return said.encode() in file.read(HEAD)
        return any(text.startswith(MAKER) for text in _software(path))
    except OSError:
        return False


def _software(path: Path) -> Iterator[str]:
    """Yield what the text chunks of a PNG call the program that made it."""
    with path.open("rb") as file:
        if file.read(len(PNG)) != PNG:
            return
        while len(head := file.read(8)) == 8:  # noqa: PLR2004  (a length and a name)
            size, name = struct.unpack(">I4s", head)
            if name in {b"IDAT", b"IEND"}:
                return
            if name == b"tEXt":
                key, _, text = file.read(size).partition(b"\0")
                if key == b"Software":
                    yield text.decode("latin-1")
            else:
                file.seek(size, 1)
            file.seek(4, 1)  # the checksum


def write(contents: Mapping[Path, bytes]) -> None:
    """Write files, each whole or not at all.

    Raises:
        UserError: if they cannot be written.
    """
    for path, content in contents.items():
        aside = path.with_name(f".tmp-{path.name}")
        try:
            aside.write_bytes(content)
            aside.replace(path)
        except OSError as error:
            raise user_error(
                str(path), f"cannot be written: {error.strerror}", "give --out NAME"
            ) from error
