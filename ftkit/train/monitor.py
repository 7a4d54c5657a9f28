"""What a run writes as it goes: metrics.jsonl, TensorBoard, a bar or plain lines."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class Display(Protocol):
    """Where a person watches."""

    def step(self, line: Mapping[str, Any]) -> None:
        """Show a step."""

    def say(self, text: str) -> None:
        """Show a line of text."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def progress(line: Mapping[str, Any]) -> str:
    """Return what a step's line says of progress: the loss; of sampled answers, the reward.

    >>> progress({"loss": 1.25}), progress({"loss": -1e-17, "reward": 0.5})
    ('loss 1.2500', 'reward 0.500')
    """
    return f"reward {line['reward']:.3f}" if "reward" in line else f"loss {line['loss']:.4f}"


class Bar:
    """A live bar: step, loss, tokens a second, time left."""

    def __init__(self, console: Console, steps: int, done: int) -> None:
        """Start at ``done`` of ``steps``."""
        columns = (
            TextColumn("{task.completed}/{task.total}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[progress]}  {task.fields[speed]} tokens/s"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, refresh_per_second=4)
        self._task = self._progress.add_task(
            "", total=steps, completed=done, progress="", speed="-"
        )
        self._progress.start()

    def step(self, line: Mapping[str, Any]) -> None:
        """Move the bar."""
        speed = f"{line['tokens'] / max(line['seconds'], 1e-9):,.0f}"
        self._progress.update(
            self._task, completed=line["step"], progress=progress(line), speed=speed
        )

    def say(self, text: str) -> None:
        """Print above the bar."""
        self._progress.console.print(text, highlight=False)

    def close(self) -> None:
        """Stop the bar."""
        self._progress.stop()


class Lines:
    """Plain lines, for logs and pipes: at most about one every ``every`` seconds."""

    def __init__(self, console: Console, steps: int, every: float = 5.0) -> None:
        """Print to a console."""
        self._console, self._steps, self._every = console, steps, every
        self._start = self._last = time.monotonic()
        self._first: int | None = None

    def step(self, line: Mapping[str, Any]) -> None:
        """Print a line if it is time, and for the first and the last step."""
        now, step = time.monotonic(), line["step"]
        self._first = self._first or step
        if step not in (self._first, self._steps) and now - self._last < self._every:
            return
        self._last = now
        pace = (now - self._start + line["seconds"]) / (step - self._first + 1)
        rate = f"lr {line['lr']:.3g}  " if "lr" in line else ""  # trpo has none
        self.say(
            f"step {step}/{self._steps}  {progress(line)}  "
            f"grad_norm {line['grad_norm']:.3g}  {rate}"
            f"{line['tokens'] / max(line['seconds'], 1e-9):,.0f} tokens/s  "
            f"left {_clock(pace * (self._steps - step))}"
        )

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing to undo."""


def display_for(console: Console, steps: int, done: int) -> Display:
    """Return a bar on a terminal, plain lines elsewhere."""
    return Bar(console, steps, done) if console.is_terminal else Lines(console, steps)


class Silent:
    """The display and the journal of a rank that has none: another one's are everybody's."""

    def step(self, line: Mapping[str, Any]) -> None:
        """Leave it out."""

    def say(self, text: str) -> None:
        """Leave it out."""

    def evaluation(self, line: Mapping[str, Any]) -> None:
        """Leave it out."""

    def append(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Leave them out."""

    def close(self) -> None:
        """Nothing to close."""


class Journal:
    """The files of a run that grow a line at a time."""

    def __init__(self, run: Path, sinks: Sequence[str], done: int) -> None:
        """Open the files, and cut off what an interrupted life wrote after step ``done``.

        Args:
            run: the run's folder.
            sinks: ``tensorboard`` adds event files under RUN/tensorboard.
            done: the last step that counts.
        """
        self._run = run
        for name in ("metrics.jsonl", "eval.jsonl", "samples.jsonl"):
            cut_after(run / name, done)
        self._metrics = (run / "metrics.jsonl").open("a")
        self._board: Any = None
        if "tensorboard" in sinks:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=done + 1)

    def step(self, line: Mapping[str, Any]) -> None:
        """Write a step's metrics."""
        self._metrics.write(json.dumps(line) + "\n")
        self._metrics.flush()
        self._plot(line, "train")

    def evaluation(self, line: Mapping[str, Any]) -> None:
        """Write an evaluation."""
        self.append("eval.jsonl", [line])
        values = {k: v["value"] for k, v in line.items() if isinstance(v, Mapping) and "value" in v}
        self._plot({"step": line["step"], **values}, "eval")

    def append(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows to a file of the run."""
        with (self._run / name).open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    def close(self) -> None:
        """Close the files."""
        self._metrics.close()
        if self._board is not None:
            self._board.close()

    def _plot(self, line: Mapping[str, Any], group: str) -> None:
        if self._board is None:
            return
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float):
                self._board.add_scalar(f"{group}/{name}", value, line["step"])


def cut_after(path: Path, step: int) -> None:
    """Keep the whole lines of a JSONL file whose ``step`` is at most ``step``."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        try:
            row = json.loads(line)
        except ValueError:
            break
        if row["step"] <= step and line.endswith("\n"):
            kept.append(line)
    aside = path.with_name(f".tmp-{path.name}")
    aside.write_text("".join(kept))
    aside.replace(path)


def _clock(seconds: float) -> str:
    """Minutes and seconds, or hours.

    >>> _clock(75), _clock(7300)
    ('1:15', '2:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
