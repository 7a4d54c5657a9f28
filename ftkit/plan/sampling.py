"""What the embedded sampler holds (``samplers.hf``, ``samplers.memory``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftkit.plan.spread import WIDE
from ftkit.samplers.decoder import READ
from ftkit.samplers.draw import TILE
from ftkit.samplers.hf import HFSampler
from ftkit.samplers.memory import ROOM

if TYPE_CHECKING:
    from ftkit.plan.facts import Facts


@dataclass(frozen=True)
class Asked:
    """Prompts that are answered."""

    prompts: int
    longest: int
    """Tokens of the longest."""
    answers: int
    """To each."""
    room: int
    """Tokens of an answer, at most."""


@dataclass(frozen=True)
class Sampling:
    """Bytes of one batch of answers, all of the greatest length."""

    cache: int
    """Keys and values."""
    work: int
    """Logits and what is made of them, scores of attention, prompts on their way."""


def sampling(asked: Asked, facts: Facts, per_token: float, forward: float, device: str) -> Sampling:
    """Return what the largest batch holds.

    Args:
        asked: what is answered.
        facts: of the model.
        per_token: bytes of the keys and values of a token, all layers.
        forward: bytes of a token on its way without a graph.
        device: ``cpu`` or ``cuda``.
    """
    shared = facts.shares and asked.answers > 1
    held = asked.answers * asked.room + asked.longest * (1 if shared else asked.answers)
    fit = min(HFSampler.rows // asked.answers, HFSampler.cache_tokens // held)
    prompts = max(1, min(asked.prompts, fit))
    rows, room = prompts * asked.answers, asked.room
    if shared:
        own, given_up = grown(min(room, ROOM), room)
        places = prompts * asked.longest + rows * own
    else:
        start = asked.longest + (min(room, ROOM) if facts.shares else asked.longest // 2)
        own, given_up = grown(start, asked.longest + room)
        places = rows * own
    places += rows * given_up // facts.layers  # one layer's at a time
    logits = rows * facts.vocabulary
    drawn = min(logits, TILE.get(device, logits))
    scores = rows * facts.heads * (asked.longest + room)
    reading = min(prompts * asked.longest, max(READ[device], asked.longest))
    step = 2 * logits * facts.element + 4 * drawn * WIDE + scores * (WIDE + facts.element)
    return Sampling(round(places * per_token), max(step, round(reading * forward)))


def grown(start: int, wanted: int) -> tuple[int, int]:
    """Return for how many tokens there is room once so many are held, and was before it grew last.

    Storage that is full grows to half as many again as are asked for, and by 32 at least
    (``samplers.cache``); until it is copied, the old one is there too.

    >>> grown(256, 200), grown(256, 257), grown(256, 400)
    ((256, 0), (385, 256), (579, 385))
    """
    room, before = start, 0
    while room < wanted:
        room, before = room + 1 + max((room + 1) // 2, 32), room
    return room, before
