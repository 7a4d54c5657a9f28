"""The loop: the same for every method."""

from __future__ import annotations

import math
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from ftkit.core.batch import collate
from ftkit.core.errors import RunError, ServiceError
from ftkit.core.phase import phase
from ftkit.train.measures import better, reaches, summary, value_of
from ftkit.train.writing import Contents

if TYPE_CHECKING:
    from ftkit.core.batch import Batch
    from ftkit.core.group import Group
    from ftkit.core.source import Source
    from ftkit.parallel.world import World
    from ftkit.train.checkpoint import Checkpoints, Saved
    from ftkit.train.config import CheckpointConfig, EvalConfig, TrainConfig
    from ftkit.train.interrupt import Interrupt
    from ftkit.train.learner import Learner
    from ftkit.train.memory import Memory
    from ftkit.train.monitor import Display, Journal, Silent
    from ftkit.train.optimizer import Update

CARRY = "carry"
"""The column of what is remembered."""

LATELY = 10
"""Steps over which metrics are averaged before advice is given on them."""


class Evaluation(Protocol):
    """What a measurement of the held-out rows says."""

    def to_json(self) -> dict[str, Any]:
        """Return ``n`` and, for each measure, its value and interval."""

    @property
    def samples(self) -> Sequence[Mapping[str, Any]]:
        """Return the answers that were sampled for it."""


@dataclass
class State:
    """Where a run stands; with weights and optimizer, all that a checkpoint must hold."""

    step: int = 0
    tokens: int = 0
    best_step: int | None = None
    best_value: float | None = None
    best_measure: str | None = None
    """What ``best_value`` is a value of."""
    measured: dict[str, Any] | None = None
    """The newest evaluation."""
    measured_at: int | None = None
    """The step after which it was made."""


@dataclass
class Loop:
    """The parts of a run, tied together."""

    source: Source
    learner: Learner
    optimizer: Update
    rate: Callable[[int], float]
    """The learning rate of a step."""
    steps: int
    evaluate: Callable[[], Evaluation] | None
    checkpoints: Checkpoints
    journal: Journal | Silent
    display: Display
    interrupt: Interrupt
    world: World
    train: TrainConfig
    eval: EvalConfig
    checkpoint: CheckpointConfig
    memory: Memory | None = None
    """What the method remembers of each prompt, if it does."""
    belongs: dict[str, Any] = field(default_factory=dict)
    """What a checkpoint of this run must agree with: fingerprints."""
    state: State = field(default_factory=State)
    saved: int | None = None
    """The step of the newest checkpoint."""
    seconds_sampling: float = 0.0
    """Spent on having prompts answered and judged, by this process."""
    _recent: deque[Mapping[str, float]] = field(default_factory=lambda: deque(maxlen=LATELY))
    _advised: bool = False

    def run(self) -> str:
        """Train until the last step, a target, or a signal; return why it ended.

        ``steps``, ``until``, or the name of a signal; in each case there is a checkpoint of the
        last step.
        """
        while (ended := self._ended()) is None:
            with phase("working", self.state.step + 1):
                try:
                    self._step()
                except ServiceError:
                    if (stopped := self._stopped()) is None or self.saved != self.state.step:
                        raise
                    return stopped.name  # what failed was the wait for it
                if self._due(self.eval.every) or self.state.step == self.steps:
                    self._evaluate()
                ended, stopped = self._ended(), self._stopped()
                if ended or stopped or self._due(self.checkpoint.every):
                    self._save(last=bool(ended or stopped))
                elif self.checkpoints.pending:
                    self.checkpoints.settle(wait=False)
            if stopped and not ended:
                return stopped.name
        return ended

    def _stopped(self) -> signal.Signals | None:
        """Return the signal by which any rank was asked to stop, the same on all."""
        caught = [each for each in self.world.gather([self.interrupt.signal]) if each is not None]
        if caught:  # else one that has come since it was asked for counts next time
            self.interrupt.signal = caught[0]
        return caught[0] if caught else None

    def _ended(self) -> str | None:
        """Return why there is nothing more to do; None if there is."""
        if self.state.step >= self.steps:
            return "steps"
        targets, found = self.train.until, self.state.measured
        if not targets or found is None or self.state.measured_at != self.state.step:
            return None
        reached = (reaches(name, value_of(found, name), aim) for name, aim in targets.items())
        return "until" if all(reached) else None

    def _due(self, every: int | None) -> bool:
        return every is not None and self.state.step % every == 0

    def _step(self) -> None:
        start = time.perf_counter()
        step = self.state.step + 1
        groups = self._groups(step)
        self.journal.append("samples.jsonl", self.source.samples())
        batch = self._batch(groups)
        self.optimizer.zero_grad()
        with phase("learning"):
            outcome = self.learner.differentiate(batch)
        if not math.isfinite(outcome.loss):
            raise RunError(self._diagnosis(step, outcome.loss, math.nan, groups, batch))
        with phase("updating"):
            told = self.optimizer.step(self.rate(step))
        if not math.isfinite(told["grad_norm"]):
            raise RunError(self._diagnosis(step, outcome.loss, told["grad_norm"], groups, batch))
        if self.memory is not None:
            outcome.metrics.update(self.memory.remember(batch.ids, outcome.carry))
        self.state.step = self.learner.policy.version = step
        self.state.tokens += outcome.tokens
        line = {"step": step, "loss": outcome.loss, **told}
        line |= {"tokens": outcome.tokens, "trained": outcome.trained, **outcome.metrics}
        told = dict(self.source.told())
        self.seconds_sampling += told.pop("seconds", 0.0)  # no part of what two equal runs share
        line |= told
        line["seconds"] = round(time.perf_counter() - start, 6)
        self.journal.step(line)
        self.display.step(line)
        self._advise(outcome.metrics)

    def _groups(self, step: int) -> Sequence[Group]:
        """Return the groups of a step; what fails here, such as a verifier, costs no steps."""
        try:
            with phase("reading or sampling"):
                return self.source.groups(step)
        except RunError:
            if self.state.step:
                self._save()
            raise

    def _batch(self, groups: Sequence[Group]) -> Batch:
        """Put groups together with what the objective reads of them."""
        columns = self.learner.objective.columns
        batch = collate(groups, sorted(columns - {CARRY}))
        return batch if self.memory is None else batch.add(carry=self.memory.recall(batch.ids))

    def _advise(self, metrics: Mapping[str, float]) -> None:
        """Tell a person once what the newest metrics say of the constants."""
        self._recent.append(metrics)
        if self._advised or len(self._recent) < LATELY:
            return
        means = {
            name: sum(each[name] for each in self._recent) / LATELY
            for name in metrics
            if all(name in each for each in self._recent)
        }
        if text := self.learner.objective.advice(means):
            self.display.say(f"step {self.state.step}: {text}")
            self._advised = True

    def _evaluate(self) -> None:
        """Measure the held-out rows."""
        if self.evaluate is None:
            return
        try:
            with phase("evaluating"):
                measured = self.evaluate()
        except RunError as error:
            if isinstance(error, ServiceError):
                self._save()
            raise type(error)(f"step {self.state.step}: {error}") from error
        found = measured.to_json()
        self.state.measured, self.state.measured_at = found, self.state.step
        self.journal.evaluation({"step": self.state.step, **found})
        self.journal.append(
            "samples.jsonl", [{"step": self.state.step, **s} for s in measured.samples]
        )
        self.display.say(f"step {self.state.step}  {summary(found)}")
        if "loss" in found and not math.isfinite(value_of(found, "eval.loss")):
            raise RunError(
                f"step {self.state.step}: the loss on held-out rows is no number; the weights have "
                "diverged: lower train.lr, or go back to an older checkpoint"
            )
        self._note_best(found)

    def _note_best(self, found: Mapping[str, Any]) -> None:
        name = self.checkpoint.best
        if name is None:
            return
        value = value_of(found, name)
        if self.state.best_value is None or better(name, value, self.state.best_value):
            self.state.best_step, self.state.best_value = self.state.step, value
            self.state.best_measure = name
            self._save()

    def _save(self, *, last: bool = True) -> None:
        """Write a checkpoint; in the background where another step follows and it is wished."""
        if self.saved == self.state.step:
            self.checkpoints.settle()
            return
        state = {**vars(self.state), "belongs": self.belongs}
        del state["step"]
        memory = None if self.memory is None else self.memory.state()
        with phase("saving"):
            contents = Contents(
                self.state.step,
                self.optimizer.pieces(),
                state,
                memory,
                self.source.state(),
                keep_too=self.state.best_step,
            )
            background = self.checkpoint.background and not last
            self.checkpoints.begin(contents, background=background)
            if not background:
                self.checkpoints.settle()
        self.saved = self.state.step

    def resume(self, saved: Saved) -> None:
        """Go on from a checkpoint."""
        self.optimizer.load(saved.stored)
        if self.memory is not None and saved.memory is not None:
            self.memory.load(saved.memory)
        if saved.sources:
            self.source.load(saved.sources)
        state = {key: value for key, value in saved.state.items() if key != "belongs"}
        self.state = State(step=saved.step, **state)
        self.learner.policy.version = saved.step
        if self.state.best_measure != self.checkpoint.best:  # the recipe asks for another one now
            self.state.best_step = self.state.best_value = self.state.best_measure = None
        self.saved = saved.step

    def _diagnosis(
        self, step: int, loss: float, norm: float, groups: Sequence[Group], batch: Batch
    ) -> str:
        """Name the rows behind a loss or gradient that is no number (LAWS L6)."""
        logp = self.learner.policy.without_graph(batch)
        finite = torch.isfinite(logp).flatten(1).all(1).tolist()
        bad = [
            f"{g.id} ({g.source}) {g.prompt_text[:60]!r}"
            for g, ok in zip(groups, finite, strict=True)
            if not ok
        ]
        bad, rows = self.world.joined(bad), sum(self.world.gather([len(groups)]))
        norm_told = (
            "" if math.isnan(norm) and not math.isfinite(loss) else f", gradient norm {norm}"
        )
        head = f"step {step}: loss {loss}{norm_told}; no update was made"
        if not bad:
            return (
                f"{head}. The log-probabilities of all {rows} rows are finite, so the "
                "gradient overflowed: lower train.lr, or go back to an older checkpoint"
            )
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""  # noqa: PLR2004
        return f"{head}. Rows with non-finite log-probabilities: {'; '.join(bad[:5])}{more}"
