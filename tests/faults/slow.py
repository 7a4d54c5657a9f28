"""A verifier that takes its time, and says that it has begun."""

from __future__ import annotations

import os
import time
from pathlib import Path


def judge(answer, truth):
    Path(os.environ["SLOW"]).write_text("")
    time.sleep(20)
    return True
