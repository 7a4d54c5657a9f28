"""``ftkit gen-negatives``: build the pool of negatives that a dft recipe learns against."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from ftkit.core.errors import UserError, user_error
from ftkit.data.augment import augmented_prompts
from ftkit.data.foreign import read_foreign
from ftkit.data.load import examples_of
from ftkit.data.pool import PoolWriter
from ftkit.data.provenance import pool_identity
from ftkit.data.template import stop_tokens
from ftkit.model.load import load_policy
from ftkit.model.tokenizer import load_tokenizer
from ftkit.parallel.world import OneProcess
from ftkit.run import model_identity, set_up_torch
from ftkit.samplers.base import awake
from ftkit.samplers.make import open_engine, sampler_of
from ftkit.sources.foreign import Foreign
from ftkit.sources.negatives import Asked, Negatives

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ftkit.core.group import Group
    from ftkit.model.policy import Policy
    from ftkit.recipe import Loaded, Recipe
    from ftkit.samplers.config import SampleConfig

TOKENS = 2**16
"""About how many tokens of negatives a file of the pool has: what a crash may cost."""

EVERY = 10.0
"""Seconds between lines of progress."""


def gen_negatives(
    loaded: Loaded, *, shard: str, held_out: str | None, source: str | None, as_json: bool
) -> None:
    """Build the pool of a dft recipe, or go on with it.

    Args:
        loaded: the recipe.
        shard: ``I/N``, the share of the prompts that this process takes, from 1.
        held_out: build a pool of the held-out rows in this folder instead.
        source: a file of negatives that someone else made; none are sampled.
        as_json: print what ``pool.json`` says and nothing else.

    Raises:
        UserError: if anything that the user gave is wrong, or the folder holds another pool.
    """
    recipe, console = loaded.recipe, Console(stderr=as_json)
    share, shares = _shard(shard)
    if recipe.sample is None and source is None:
        remedy = "write how negatives are sampled: temperature, max_tokens, answers, system"
        raise UserError(loaded.fault("sample", "missing", remedy))
    if shares > 1 and recipe.sample and recipe.sample.vllm and recipe.sample.vllm.server:
        remedy = "give several servers to one process, or each share a recipe without servers"
        raise user_error("--shard", "every share would give the same servers its weights", remedy)
    set_up_torch(recipe)
    tokenizer = load_tokenizer(recipe.model)
    asked = list(_asked(recipe, tokenizer, held_out is not None))
    policy = _reference(recipe, tokenizer)
    _check_room(asked, policy)
    ids = [each.group.id for each in asked]
    identity = {
        "model": model_identity(recipe, policy),
        **pool_identity(tokenizer, ids),
        **_sampling(recipe, source),
    }
    chunk = _chunk(recipe.sample)
    writer = PoolWriter(Path(held_out or str(recipe.data.pool)), identity, len(asked), chunk)
    _say(console, writer, len(asked), (share, shares))
    missing = writer.missing(share - 1, shares)
    chunks = {n: asked[n * chunk : (n + 1) * chunk] for n in missing}
    if chunks:
        with _maker(recipe, policy, asked, source) as maker:
            _build(writer, maker, chunks, console)
    about = writer.finish()
    _report(console, writer, about, as_json=as_json)


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise user_error("--shard", f"'{text}' is no share", "write I/N, such as 2/4")
    return int(match[1]), int(match[2])


def _asked(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, held_out: bool) -> Iterator[Asked]:
    """Yield each row once, with its prompt under each of the system prompts."""
    if held_out and recipe.data.eval is None:
        raise user_error("data.eval", "there are no held-out rows", "name them")
    systems = [text for text, _ in _systems(recipe.sample)]
    rows = examples_of(recipe.data, recipe.method.kind, tokenizer, recipe.seed, held_out=held_out)
    if not systems:
        yield from (Asked(group) for _, group in rows)
        return
    examples, groups = zip(*rows, strict=True)
    under = augmented_prompts(tokenizer, examples, systems)
    for group, prompts in zip(groups, under, strict=True):
        yield Asked(group, tuple(prompts))


def _systems(sample: SampleConfig | None) -> list[tuple[str, float]]:
    """Return each system prompt with its weight."""
    given = sample.system if sample is not None else []
    return [(one, 1.0) if isinstance(one, str) else (one.text, one.weight) for one in given]


def _reference(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Policy:
    """Load the model as training will begin with it, without adapters yet to be learnt."""
    config = recipe.model
    if config.lora is not None and not (Path(str(config.path)) / "adapter_config.json").is_file():
        config = config.model_copy(update={"lora": None})
    policy = load_policy(
        config, tokenizer, micro_tokens=recipe.train.micro_tokens, seed=recipe.seed
    )
    policy.model.requires_grad_(False)
    return policy


def _check_room(asked: Sequence[Asked], policy: Policy) -> None:
    """Refuse prompts that leave no room for a token of an answer."""
    config = policy.model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return
    full = [
        each.group
        for each in asked
        if max(map(len, (each.group.prompt, *each.augmented))) >= positions
    ]
    if full:
        first = full[0]
        raise user_error(
            f"{first.source}, {first.prompt_text[:60]!r}",
            f"{len(full)} of {len(asked)} prompts, this one first, fill all {positions} positions "
            "of the model and leave no room for an answer",
            "lower data.max_length with overlong: drop, or shorten the system prompts",
        )


@contextmanager
def _maker(
    recipe: Recipe, policy: Policy, asked: Sequence[Asked], source: str | None
) -> Iterator[Negatives | Foreign]:
    """Hold what makes or finds the negatives."""
    tokenizer, sample = policy.tokenizer, recipe.sample
    if source is not None:
        yield Foreign.match(source, read_foreign(source, recipe.data, tokenizer), asked, policy)
        return
    assert sample is not None
    longest = max(len(p) for each in asked for p in (each.group.prompt, *each.augmented))
    longest += sample.max_tokens
    world = OneProcess()
    engine = open_engine(sample, policy, longest=longest, run=str(recipe.data.pool), world=world)
    with closing(engine) if engine else nullcontext():
        sampler = sampler_of(policy, sample, stop_tokens(tokenizer), engine)
        weights = [weight for _, weight in _systems(sample)]
        with awake(sampler):
            yield Negatives(sampler, policy, sample.answers, recipe.seed, weights)


def _sampling(recipe: Recipe, source: str | None) -> dict[str, Any]:
    """Return what a pool says of how its negatives were made."""
    sample = recipe.sample
    systems = [{"text": text, "weight": weight} for text, weight in _systems(sample)]
    if source is not None:
        given = {"from": source, "digest": hashlib.sha256(Path(source).read_bytes()).hexdigest()}
        return {"system": systems, "sample": given, "seed": None}
    assert sample is not None
    constants = sample.model_dump(mode="json", exclude={"system", "vllm"})
    return {"system": systems, "sample": constants, "seed": recipe.seed}


def _chunk(sample: SampleConfig | None) -> int:
    """Return how many prompts a file of the pool has."""
    tokens = sample.answers * sample.max_tokens if sample is not None else TOKENS // 64
    return max(1, TOKENS // tokens)


def _say(console: Console, writer: PoolWriter, prompts: int, share: tuple[int, int]) -> None:
    left = len(writer.missing(share[0] - 1, share[1]))
    part = f", share {share[0]} of {share[1]}" if share[1] > 1 else ""
    done = "" if left else "; nothing is missing"
    _print(console, f"pool of {prompts} prompts{part}: {left} files to write{done}")


def _build(
    writer: PoolWriter,
    maker: Negatives | Foreign,
    chunks: Mapping[int, Sequence[Asked]],
    console: Console,
) -> None:
    """Write chunks, telling how long it will still take."""
    progress = _Progress(console, len(chunks))
    for number, asked in chunks.items():
        groups = maker.of(asked)
        writer.write(number, groups)
        progress.step(groups)


@dataclass
class _Progress:
    """Lines of progress with the time left; one for every chunk, but not too many."""

    console: Console
    total: int
    start: float = 0.0
    told: float = 0.0
    done: int = 0
    tokens: int = 0

    def step(self, groups: Sequence[Group]) -> None:
        now = time.monotonic()
        self.done += 1
        self.tokens += sum(len(a.tokens) for group in groups for a in group.answers[1:])
        self.start = self.start or now  # the first chunk warms up; it is timed from its end
        if now - self.told < EVERY and self.done < self.total:
            return
        self.told = now
        seconds = now - self.start
        left = seconds / max(self.done - 1, 1) * (self.total - self.done)
        eta = f", {left:.0f} s left" if 1 < self.done < self.total else ""
        _print(self.console, f"{self.done}/{self.total} files, {self.tokens:,} tokens{eta}")


def _report(
    console: Console, writer: PoolWriter, about: dict[str, Any] | None, *, as_json: bool
) -> None:
    """Say what is in the pool, or what is still to be built."""
    if as_json:
        state = about or {"missing": len(writer.missing())}
        typer.echo(json.dumps(state))
        return
    if about is None:
        left = len(writer.missing())
        _print(console, f"{left} files are still missing: the other shares will write them")
        return
    counts = ", ".join(
        f"{count:,} {name.replace('_', ' ')}" for name, count in about["counts"].items() if count
    )
    _print(console, f"{writer.folder}: {counts}\nnext: ftkit dft RECIPE")


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
