"""What a run's folder tells of the run."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PEAK = """
import json, re
from ftkit.train.folder import peak_memory
held = re.search(r"VmRSS:\\s+(\\d+) kB", open("/proc/self/status").read())
print(json.dumps([int(held[1]) * 1024, peak_memory()["host"]]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux tells it")
def test_the_peak_of_memory_is_not_that_of_whoever_started_the_process():
    """A process begins as a copy of its parent, and getrusage counts that (getrusage(2))."""
    held = bytearray(b"x") * (1 << 30)
    done = subprocess.run(
        [sys.executable, "-c", PEAK], capture_output=True, text=True, check=True, close_fds=False
    )
    now, peak = json.loads(done.stdout)
    assert now - (1 << 20) <= peak < len(held)
