"""What no file of the repository may hold."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:work|root|home|opt|Users|mnt|scratch)/\w")
LARGEST = 500_000


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """Return what git tracks or would add."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing says which files belong to the repository")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip(f"git cannot list the files: {listed.stderr.strip()}")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_names_a_path_of_one_machine(files):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text("utf-8", errors="ignore").splitlines(), 1)
        if MACHINE_PATH.search(line) and "MACHINE_PATH" not in line
    ]
    assert not found


def test_no_file_is_large(files):
    assert not [path for path in files if path.stat().st_size > LARGEST]


@pytest.mark.parametrize(
    ("text", "found"),
    [("see /{}/x", True), ("`/{}/x`", True), ("https://a.org/{}/b", False), ("~/{}/x", False)],
)
def test_the_pattern_of_paths(text, found):
    assert bool(MACHINE_PATH.search(text.format("root"))) is found
