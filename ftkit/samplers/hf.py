"""The embedded sampler, on the policy itself: a Hugging Face causal LM.

Each prompt is read once for all of its answers, rows that have ended leave the batch, and the
log-probability of every sampled token is kept.  Models of the common family go through a loop of
our own (``decoder``), others through their own forward (``whole``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ftkit.core.group import Answer
from ftkit.core.phase import beat
from ftkit.parallel.placement import IN_PLACE, Placement
from ftkit.samplers.base import Sampler
from ftkit.samplers.cache import compact
from ftkit.samplers.choose import choose
from ftkit.samplers.config import SampleConfig
from ftkit.samplers.decoder import PrefixDecoder
from ftkit.samplers.draw import draw, uniforms
from ftkit.samplers.network import Network
from ftkit.samplers.whole import Decoder, WholeModel
from ftkit.samplers.written import Drawn, answers_of, room_of


class _Step(NamedTuple):
    """One token of every row that was live."""

    rows: Tensor
    """int64 [R], on the CPU: which rows of the batch (prompt-major, then answer)."""
    tokens: Tensor
    """int64 [R]: what each one drew."""
    logp: Tensor
    """float32 [R]: its log-probability."""


@dataclass(frozen=True)
class HFSampler(Sampler):
    """Samples from a Hugging Face causal LM, adapters included, where it lies.

    The log-probabilities are those of softmax(logits / temperature) among the tokens that top-k and
    top-p keep, in float32; a greedy token's is 0.  What an answer draws depends on the seed, its
    prompt's key, its own number and the position alone (``draw.uniforms``).

    Attributes:
        model: the causal LM, or a PeftModel of one; put into eval mode while it samples.
        tokenizer: decodes answers.
        config: temperature, top_k, top_p and max_tokens.
        stop: ids of tokens that end an answer.
        rows: how many answers go through the model at once, at most (but all of one prompt's do).
        cache_tokens: of how many tokens keys and values are held, prompts included, at most.
        placement: where the weights lie; they are gathered once for all that is written.
    """

    model: Any
    tokenizer: Any
    config: SampleConfig
    stop: Sequence[int]
    rows: int = 512
    cache_tokens: int = 2**17
    placement: Placement = IN_PLACE

    def placed(self) -> AbstractContextManager[None]:
        """Have whole weights here (``Sampler.placed``)."""
        return self.placement.whole()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        answers: int,
        seed: int,
        keys: Sequence[int] | None = None,
    ) -> list[list[Answer]]:
        """Sample answers to each prompt (``Sampler.generate``).

        Raises:
            UserError: if a prompt leaves no room for an answer in the model's positions.
        """
        if not prompts:
            return []
        keys = range(len(prompts)) if keys is None else keys
        written: list[list[Answer]] = [[] for _ in prompts]
        lengths = [len(prompt) for prompt in prompts]
        with evaluating(self.model):
            parts = choose(self.model, max(lengths) + self.config.max_tokens)
            for batch in self._batches(lengths, answers, shared=parts is not None):
                asked, keyed = [prompts[i] for i in batch], [keys[i] for i in batch]
                drawn = [Drawn([], []) for _ in range(len(batch) * answers)]
                for step in self._steps(parts, asked, keyed, answers, seed):
                    columns = (step.rows.tolist(), step.tokens.tolist(), step.logp.tolist())
                    for row, token, logp in zip(*columns, strict=True):
                        drawn[row].tokens.append(token)
                        drawn[row].logp.append(logp)
                done = answers_of(drawn, self.tokenizer, self.stop)
                for place, i in enumerate(batch):
                    written[i] = done[place * answers : (place + 1) * answers]
        return written

    def stream(self, prompt: Sequence[int], *, seed: int) -> Iterator[int]:
        """Yield the tokens of one answer as they are drawn, the stop token included."""
        with evaluating(self.model):
            parts = choose(self.model, len(prompt) + self.config.max_tokens)
            for step in self._steps(parts, [prompt], [0], 1, seed):
                yield int(step.tokens)

    def _batches(
        self, lengths: Sequence[int], answers: int, *, shared: bool
    ) -> Iterator[list[int]]:
        """Cut the prompts, sorted by length, into batches within the budgets.

        Args:
            lengths: of the prompts.
            answers: to each.
            shared: whether the answers to a prompt share its keys and values.
        """
        batch: list[int] = []
        for i in sorted(range(len(lengths)), key=lengths.__getitem__):
            prompts = len(batch) + 1
            rows = prompts * answers
            held = (prompts if shared else rows) * lengths[i] + rows * self.config.max_tokens
            if batch and (rows > self.rows or held > self.cache_tokens):
                yield batch
                batch = []
            batch.append(i)
        yield batch

    @torch.no_grad()
    def _steps(
        self,
        parts: Network | None,
        prompts: Sequence[Sequence[int]],
        keys: Sequence[int],
        answers: int,
        seed: int,
    ) -> Iterator[_Step]:
        """Decode one batch, a token of every live row at a time."""
        room = room_of(self.model, prompts, self.config.max_tokens)
        limits = torch.tensor(room).repeat_interleave(answers)
        state: Decoder
        if parts is None:
            state = WholeModel(self.model, prompts, answers=answers, room=max(room))
        else:
            state = PrefixDecoder(parts, prompts, answers=answers, room=max(room))
        device = state.logits.device
        greedy = self.config.temperature == 0
        chance = None if greedy else uniforms(seed, keys, answers, max(room)).to(device)
        stops = torch.tensor(sorted(self.stop), device=device)
        rows, t = torch.arange(len(limits)), 0
        while True:
            u = None if chance is None else chance[t, rows.to(device)]
            beat()
            tokens, logp = draw(state.logits, u, self.config)
            yield _Step(rows, tokens, logp)
            t += 1
            live = ~(torch.isin(tokens, stops).cpu() | (limits[rows] <= t))
            if not live.any():
                return
            if not live.all():
                keep = compact(live)
                rows, tokens = rows[keep], tokens[keep.to(device)]
                state.select(keep)
            state.advance(tokens)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and each of its modules back into its own mode at the end."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
