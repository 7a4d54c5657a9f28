"""``ftkit train``: from a recipe to a trained model in a run's folder."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.logging import RichHandler

from ftkit.core.errors import user_error
from ftkit.core.phase import phase
from ftkit.model.save import save_model
from ftkit.parallel.world import OneProcess
from ftkit.recipe import Loaded, dump_yaml, flatten, load_recipe
from ftkit.run import build_loop, build_policy, read_data, set_up_torch
from ftkit.run_rollouts import outside_of
from ftkit.tasks.agreement import check_same, check_shared
from ftkit.train.checkpoint import Checkpoints, Saved
from ftkit.train.folder import RunFolder, environment, peak_memory
from ftkit.train.interrupt import Interrupt
from ftkit.train.loop import Loop
from ftkit.train.measures import summary
from ftkit.train.monitor import Display, Journal, Silent, display_for
from ftkit.train.report import write_report

if TYPE_CHECKING:
    from ftkit.model.reader import Reader
    from ftkit.parallel.world import World
    from ftkit.recipe import Recipe
    from ftkit.run_data import Data
    from ftkit.run_rollouts import Outside

console = Console()


def say(text: str) -> None:
    """Print as it is: paths are not broken over lines."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def train(loaded: Loaded, *, resume: bool, dry_run: bool, world: World | None = None) -> int:
    """Run a recipe; on every rank, where there are several.

    Args:
        loaded: the recipe, resolved.
        resume: go on from the newest complete checkpoint of its folder, or start if there is none.
        dry_run: read the recipe and the data, say what would happen, write nothing into the folder.
        world: the ranks that train together; None = there are no others.

    Returns:
        The exit status: 0, or that of a signal, with a checkpoint written.

    Raises:
        UserError: if anything that the user gave is wrong.
        RunError: if the run failed.
    """
    world = world or OneProcess()
    _log_to(console)
    recipe = loaded.recipe
    folder = RunFolder(Path(recipe.run))
    done = world.together(lambda: world.leads and _is_done(loaded, folder, resume=resume))
    if world.gather([done])[0]:
        if world.leads:
            say(f"{folder.path}: this run is finished; its model is in {folder.path}/model")
        return 0
    set_up_torch(recipe)
    with phase("reading the data"):
        data = world.first(lambda: read_data(recipe))
    check_same(world, loaded, data)
    if world.leads:
        _announce(recipe, data)
    if dry_run:
        return 0
    with phase("loading the model"):
        world.together(lambda: folder.claim() if world.leads else None)
        check_shared(world, folder.path)
        # a model that cannot be loaded leaves no run behind
        policy = world.together(lambda: build_policy(recipe, data, world))
    with outside_of(recipe, policy, world) as outside:  # nor a verifier that is of no use
        if world.leads:
            folder.write_text("recipe.yaml", dump_yaml(loaded.resolved()))
            folder.write_json("environment.json", environment(world.size))
            folder.write_json("data.json", data.sets.to_json())
        return _run(recipe, data, policy, folder, outside=outside, world=world)


def _is_done(loaded: Loaded, folder: RunFolder, *, resume: bool) -> bool:
    """Whether the run has come to its end before; refuses a folder that is another run's."""
    if not (resume and folder.holds_a_run):
        folder.check_free()
        return False
    before = load_recipe(str(folder.path / "recipe.yaml"))
    folder.check_recipe(flatten(loaded.resolved()), flatten(before.resolved()))
    return folder.finished and before.recipe.train.until == loaded.recipe.train.until


def _run(
    recipe: Recipe,
    data: Data,
    policy: Reader,
    folder: RunFolder,
    *,
    outside: Outside,
    world: World,
) -> int:
    """Train the policy, and write how it ended, whichever way it did."""
    start = time.monotonic()
    interrupt = Interrupt()
    with ExitStack() as stack:
        saved = _newest(recipe, folder, data, world)
        done = saved.step if saved else 0
        journal, display = _told_to(recipe, folder, data, done, world)
        stack.callback(journal.close)
        stack.callback(display.close)
        if outside.engine is not None:
            outside.engine.heed(lambda: interrupt.signal is not None)
        with phase("preparing"):
            loop = build_loop(
                recipe,
                data,
                policy,
                judge=outside.judge,
                engine=outside.engine,
                journal=journal,
                display=display,
                interrupt=interrupt,
                world=world,
            )
            if saved:
                loop.resume(saved)
                display.say(f"going on after step {done} of {data.steps}")
        stack.enter_context(interrupt)  # until here a signal ends the run at once: none is lost
        try:
            reason = loop.run()
            ended = reason in {"steps", "until"}
            display.close()
            if ended:
                with phase("exporting the model"):
                    _export(policy, loop, folder, data)
        except BaseException as error:
            with suppress(OSError):  # a full disk must not hide what happened
                _write_ending(folder, loop, "failed", str(error), start)
            raise
        _write_ending(folder, loop, "finished" if ended else "stopped", reason, start)
    if world.leads:
        write_report(folder.path)
        if ended:
            _farewell(loop, folder, reason, time.monotonic() - start)
        else:
            say(
                f"{reason}: stopped with a checkpoint after step {loop.state.step} of "
                f"{data.steps}; the same command with --resume goes on"
            )
    return 0 if ended else interrupt.status


def _told_to(
    recipe: Recipe, folder: RunFolder, data: Data, done: int, world: World
) -> tuple[Journal | Silent, Display]:
    """Return the files and the display of a run; they are those of the leading rank alone."""
    if not world.leads:
        return Silent(), Silent()
    return Journal(folder.path, recipe.log, done), display_for(console, data.steps, done)


def _newest(recipe: Recipe, folder: RunFolder, data: Data, world: World) -> Saved | None:
    """Return the newest checkpoint, if it belongs to this data."""
    saved = Checkpoints(folder.path / "checkpoints", recipe.checkpoint.keep, world).load()
    if saved and saved.state["belongs"]["data"] != data.sets.fingerprint:
        raise user_error(
            "data.train",
            "the rows are not those that the run began with",
            "bring the files back as they were, or begin a new run in another folder (run=...)",
        )
    if saved and data.pool and saved.state["belongs"].get("pool") != data.pool.fingerprint:
        raise user_error(
            "data.pool",
            "the pool is not the one that the run began with",
            "bring it back, or begin a new run in another folder (run=...)",
        )
    return saved


def _announce(recipe: Recipe, data: Data) -> None:
    """Say what will be done, before it takes time."""
    rows = sum(len(s) for s, _ in data.sets.train)
    measured = data.held_out_pool or data.sets.eval
    held_out = 0 if measured is None else len(measured)
    say(
        f"{recipe.method.name}: {recipe.method.about}\n"
        f"data: {rows:,} rows to learn from, {held_out:,} held out{_negatives(data)}\n"
        f"steps: {data.steps:,} of {recipe.train.prompts} prompts, into {recipe.run}",
    )
    for line in data.sets.warnings:
        say(f"data: {line}")
    for line in data.warnings:
        say(f"note: {line}")


def _negatives(data: Data) -> str:
    """Say how many negatives there are."""
    if data.pool is None:
        return ""
    return f"; {int(data.pool.sizes.sum()):,} negatives in {data.pool.folder}"


def _write_ending(folder: RunFolder, loop: Loop, status: str, reason: str, start: float) -> None:
    """Write summary.json, by the leading rank."""
    if not loop.world.leads:
        return
    ending = {
        "status": status,
        "reason": reason,
        "step": loop.state.step,
        "steps": loop.steps,
        "tokens": loop.state.tokens,
        "eval": loop.state.measured,
        "best": {"step": loop.state.best_step, "value": loop.state.best_value},
        "seconds": round(time.monotonic() - start, 3),
        **({"seconds_sampling": round(loop.seconds_sampling, 3)} if loop.seconds_sampling else {}),
        "peak_memory_bytes": peak_memory(),
        "ranks": loop.world.size,
    }
    folder.write_json("summary.json", ending)


def _export(policy: Reader, loop: Loop, folder: RunFolder, data: Data) -> None:
    """Write the final model and, where one is asked for, the best."""
    _write_model(policy, loop.world, folder.path / "model", data)
    best = loop.state.best_step
    if best is None:
        return
    saved = loop.checkpoints.load(best)
    assert saved is not None
    loop.optimizer.load(saved.stored)
    _write_model(policy, loop.world, folder.path / "best", data)


def _write_model(policy: Reader, world: World, folder: Path, data: Data) -> None:
    """Write a model whose weights all ranks have, or have shares of; the leading rank writes."""
    with policy.placement.whole():
        world.together(lambda: save_model(policy, folder, data.stop) if world.leads else None)


def _farewell(loop: Loop, folder: RunFolder, reason: str, seconds: float) -> None:
    """Say where everything lies and what to try next."""
    why = "the target is reached" if reason == "until" else "all steps are done"
    found = f"\n{summary(loop.state.measured)}" if loop.state.measured else ""
    answers = loop.learner.objective.reads == "logp"  # a reward model has none
    chat = f"   or   ftkit chat {folder.path}" if answers else ""
    say(
        f"{why} after step {loop.state.step}, {seconds:.0f} s{found}\n"
        f"  model    {folder.path}/model   (transformers loads it)\n"
        f"  metrics  {folder.path}/metrics.jsonl\n"
        f"  curves   {folder.path}/report.html\n"
        f"next: ftkit eval {folder.path}" + chat,
    )


def _log_to(console: Console) -> None:
    """Show what the parts have to say as lines of the console."""
    log = logging.getLogger("ftkit")
    if not log.handlers:
        log.addHandler(RichHandler(console=console, show_time=False, show_path=False))
        log.setLevel(logging.INFO)
