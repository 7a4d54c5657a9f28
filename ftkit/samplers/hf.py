"""The embedded sampler: a decode loop of our own on the policy itself, a Hugging Face causal LM.

Each prompt is read once for all of its answers, rows that have ended leave the batch, and the
log-probability of every sampled token is kept.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ftkit.core.errors import user_error
from ftkit.core.group import Answer
from ftkit.samplers.cache import new_cache
from ftkit.samplers.config import SampleConfig
from ftkit.samplers.draw import draw, uniforms


class _Step(NamedTuple):
    """One token of every row that was live."""

    rows: Tensor
    """int64 [R], on the CPU: which rows of the batch (prompt-major, then answer)."""
    tokens: Tensor
    """int64 [R]: what each one drew."""
    logp: Tensor
    """float32 [R]: its log-probability."""


class _Drawn(NamedTuple):
    """What one row has drawn so far."""

    tokens: list[int]
    logp: list[float]


@dataclass(frozen=True)
class HFSampler:
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
        cache_tokens: how many tokens their keys and values may take up, prompts included, at most.
    """

    model: Any
    tokenizer: Any
    config: SampleConfig
    stop: Sequence[int]
    rows: int = 512
    cache_tokens: int = 2**17

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
        keys = range(len(prompts)) if keys is None else keys
        written: list[list[Answer]] = [[] for _ in prompts]
        for batch in self._batches([len(prompt) for prompt in prompts], answers):
            asked, keyed = [prompts[i] for i in batch], [keys[i] for i in batch]
            drawn = [_Drawn([], []) for _ in range(len(batch) * answers)]
            for step in self._steps(asked, keyed, answers, seed):
                columns = (step.rows.tolist(), step.tokens.tolist(), step.logp.tolist())
                for row, token, logp in zip(*columns, strict=True):
                    drawn[row].tokens.append(token)
                    drawn[row].logp.append(logp)
            done = self._answers(drawn)
            for place, i in enumerate(batch):
                written[i] = done[place * answers : (place + 1) * answers]
        return written

    def stream(self, prompt: Sequence[int], *, seed: int) -> Iterator[int]:
        """Yield the tokens of one answer as they are drawn, the stop token included."""
        for step in self._steps([prompt], [0], 1, seed):
            yield int(step.tokens)

    def _batches(self, lengths: Sequence[int], answers: int) -> Iterator[list[int]]:
        """Cut the prompts, sorted by length, into batches within the budgets."""
        batch: list[int] = []
        for i in sorted(range(len(lengths)), key=lengths.__getitem__):
            rows = (len(batch) + 1) * answers
            tokens = rows * (lengths[i] + self.config.max_tokens)
            if batch and (rows > self.rows or tokens > self.cache_tokens):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _answers(self, drawn: Sequence[_Drawn]) -> list[Answer]:
        """Make answers of what was drawn, with their text."""
        stop = frozenset(self.stop)
        ended = [tokens[-1] in stop for tokens, _ in drawn]
        texts = self.tokenizer.batch_decode(
            [row.tokens[:-1] if end else row.tokens for row, end in zip(drawn, ended, strict=True)],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        return [
            Answer(tuple(tokens), text=text, finish="stop" if end else "length", logp=tuple(logp))
            for (tokens, logp), text, end in zip(drawn, texts, ended, strict=True)
        ]

    def _limits(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Return how many tokens an answer to each prompt may have: int64 [B]."""
        config = self.model.config.get_text_config(decoder=True)
        positions = getattr(config, "max_position_embeddings", None)
        limit = [self.config.max_tokens] * len(prompts)
        if positions is not None:
            limit = [min(positions - len(prompt), self.config.max_tokens) for prompt in prompts]
        if min(limit) < 1:
            raise user_error(
                "",
                f"a prompt of {max(map(len, prompts))} tokens fills all {positions} positions",
                "shorten it",
            )
        return torch.tensor(limit)

    @torch.no_grad()
    def _steps(
        self, prompts: Sequence[Sequence[int]], keys: Sequence[int], answers: int, seed: int
    ) -> Iterator[_Step]:
        """Decode one batch, a token of every live row at a time."""
        device = next(self.model.parameters()).device
        limits = self._limits(prompts).repeat_interleave(answers)
        greedy = self.config.temperature == 0
        chance = None if greedy else uniforms(seed, keys, answers, int(limits.max())).to(device)
        stops = torch.tensor(sorted(self.stop), device=device)
        with evaluating(self.model):
            state = _Decoder(self.model, prompts, answers, int(limits.max()), device)
            rows, t = torch.arange(len(limits)), 0
            while True:
                u = None if chance is None else chance[t, rows.to(device)]
                tokens, logp = draw(state.logits, u, self.config)
                yield _Step(rows, tokens, logp)
                t += 1
                live = ~(torch.isin(tokens, stops).cpu() | (limits[rows] <= t))
                if not live.any():
                    return
                if not live.all():
                    keep = _compact(live)
                    rows, tokens = rows[keep], tokens[keep.to(device)]
                    state.select(keep)
                state.advance(tokens)


class _Decoder:
    """What the model holds of a batch between tokens: cache, mask, positions, the next logits."""

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        answers: int,
        room: int,
        device: torch.device,
    ) -> None:
        self.model, self.cache, self.seen = model, new_cache(model.config), 0
        takes = inspect.signature(
            getattr(model, "get_base_model", lambda: model)().forward
        ).parameters
        self.options = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        longest = int(lengths.max())
        ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
        for row, prompt in zip(ids, prompts, strict=True):
            row[longest - len(prompt) :] = torch.tensor(prompt)
        self.padding = longest - lengths
        place = torch.arange(longest + room)
        self.mask = (place >= self.padding[:, None]).to(device)
        positions = (place[:longest] - self.padding[:, None]).clamp(min=0).to(device)
        self.logits = self._forward(ids.to(device), positions)
        self.positions = positions[:, -1:]
        self.select(torch.arange(len(prompts)).repeat_interleave(answers))

    def select(self, keep: Tensor) -> None:
        """Make row i what row ``keep[i]`` (int64, on the CPU) is now."""
        self.cache.reorder_cache(keep)
        self.padding, keep = self.padding[keep], keep.to(self.mask.device)
        self.mask, self.positions = self.mask[keep], self.positions[keep]
        self.logits = self.logits[keep]

    def advance(self, tokens: Tensor) -> None:
        """Append a token, int64 [R], to each row, and find the logits of the next."""
        self.positions = self.positions + 1
        self.logits = self._forward(tokens[:, None], self.positions)

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Read tokens, int64 [R, q], and return the logits after the last one: [R, V]."""
        self.seen += ids.shape[1]
        # Without padding the model needs no mask, and attention without one is faster.
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask[:, : self.seen] if self.padding.any() else None,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            **self.options,
        )
        logits: Tensor = output.logits[:, -1]
        return logits


def _compact(live: Tensor) -> Tensor:
    """Return which rows (int64) are to stand in the first places so that the fewest move.

    >>> _compact(torch.tensor([True, False, True, False, True]))
    tensor([0, 4, 2])
    """
    count = int(live.sum())
    keep = torch.arange(count)
    keep[~live[:count]] = live[count:].nonzero().squeeze(1) + count
    return keep


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
