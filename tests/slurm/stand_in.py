"""What Slurm sees of ``ftkit train RECIPE --resume``, without a model.

A line in metrics.jsonl a step, a checkpoint on the first SIGTERM or SIGUSR1 (Slurm may
send one twice), the exit status 143 or 138 then, and going on from it; status 2 without data.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import yaml

STEP, SAVING = 0.05, 2.0  # seconds


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main() -> int:
    recipe = yaml.safe_load(Path(sys.argv[2]).read_text())
    if not Path(recipe["data"]["train"]).exists():
        say(f"data.train: there is no {recipe['data']['train']}")
        return 2
    run, steps = Path(recipe["run"]), recipe["train"]["steps"]
    caught = []
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, _: caught.append(number))
    if os.environ["SLURM_NODEID"] != "0":  # the first node writes
        while not caught and not (run / "summary.json").exists():
            time.sleep(STEP)
        return 128 + caught[0] if caught else 0
    saved = sorted((run / "checkpoints").glob("step-*"))
    done = int(saved[-1].name.removeprefix("step-")) if saved else 0
    if done:
        say(f"going on after step {done} of {steps}")
    run.mkdir(exist_ok=True)
    with (run / "metrics.jsonl").open("a") as metrics:
        while done < steps and not caught:
            time.sleep(STEP)
            done += 1
            metrics.write(json.dumps({"step": done}) + "\n")
            metrics.flush()
    if caught:
        time.sleep(SAVING)
        (run / "checkpoints" / f"step-{done:06}").mkdir(parents=True)
        return 128 + caught[0]
    (run / "summary.json").write_text(json.dumps({"status": "finished", "step": done}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
