#!/usr/bin/env bash
# Make a virtual environment with ftkit in it, editable, with what the tests need.
#
#   scripts/setup_env.sh [FOLDER]      the folder of the environment (.venv)
#
# PYTHON=...       the interpreter to use (python3; at least 3.11)
# FTKIT_TORCH=...  what to install as torch, in pip's words: a requirement, a wheel, or a requirement and options
#
# Without an NVIDIA GPU the CPU build of torch is taken, from wherever pip already looks or else from PyTorch's own
# index; a CUDA build, some gigabytes, is never pulled in there by accident.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${1:-.venv}
cpu_index=https://download.pytorch.org/whl/cpu
tested=2.13.0

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" ${PYTHON:+-} python3.12 python3.11 python3.13; do
        [ "$candidate" = - ] && break # the one that was asked for, or none
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    die "no Python >= 3.11 found as ${PYTHON:-python3, python3.12, python3.11 or python3.13}; install one or name it: PYTHON=/path/to/python make setup"
}

has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; }

# The CPU build to take where pip looks already: the tested version, else the newest that ftkit can use; else nothing.
# Only lists are read, nothing is downloaded.
cpu_build_at_hand() {
    { pip index versions torch 2>/dev/null || true; } | tr ', ' '\n' | sed -n 's/^\([0-9][0-9.]*+cpu\)$/\1/p' |
        sort -V | awk -v tested="$tested+cpu" '
            { split($0, part, "."); if (part[1] > 2 || (part[1] == 2 && part[2] >= 11)) best = $0 }
            $0 == tested { found = 1 }
            END { print found ? tested : best }'
}

install_torch() {
    if [ -n "${FTKIT_TORCH:-}" ]; then
        say "torch: $FTKIT_TORCH (FTKIT_TORCH)"
        # shellcheck disable=SC2086 # options may follow the requirement
        pip install --quiet $FTKIT_TORCH
        return
    fi
    if [ "$(uname -s)" != Linux ]; then
        say "torch: the standard build"
        pip install --quiet "torch==$tested"
    elif has_gpu; then
        say "torch: the CUDA build, for $(nvidia-smi -L | head -n 1 | cut -d'(' -f1) (gigabytes; minutes)"
        pip install --quiet "torch==$tested"
    else
        local found
        found=$(cpu_build_at_hand)
        if [ -n "$found" ]; then
            say "torch: no NVIDIA GPU here, so the CPU build $found, found where pip looks"
            pip install --quiet "torch==$found"
        else
            say "torch: no NVIDIA GPU here, so the CPU build $tested from $cpu_index (200 MB)"
            pip install --quiet --index-url "$cpu_index" "torch==$tested+cpu" ||
                die "no CPU build of torch could be installed; name one: FTKIT_TORCH='torch==2.12.0+cpu' or FTKIT_TORCH=/path/to/torch.whl"
        fi
    fi
}

python=$(find_python)
command -v "${CC:-gcc}" >/dev/null || die "no C compiler (${CC:-gcc}): DeepSpeed is built from source; install gcc"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    die "$python cannot make virtual environments; install its venv package (on Debian and Ubuntu: apt install python3-venv)"

# An environment that an interrupted set-up left behind, or whose interpreter is gone, is made anew.
if [ -e "$venv/INCOMPLETE" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    say "making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi
touch "$venv/INCOMPLETE"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

started=$SECONDS
if ! "$venv/bin/python" -c 'import torch' 2>/dev/null || [ -n "${FTKIT_TORCH:-}" ]; then
    install_torch
fi
torch=$("$venv/bin/python" -c 'from importlib.metadata import version; print(version("torch"))')
say "ftkit and what it needs, with torch $torch kept as it is (a minute or two)"
echo "torch==$torch" >"$venv/constraints.txt"
pip install --quiet --constraint "$venv/constraints.txt" --editable '.[dev]'

rm "$venv/INCOMPLETE"
pwd -P >"$venv/READY"
say "done in $((SECONDS - started)) s: $venv/bin/ftkit"
