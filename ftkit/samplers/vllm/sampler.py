"""The sampler that has vLLM write the answers."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ftkit.core.batch import collate
from ftkit.core.errors import RunError
from ftkit.core.group import Answer, Group
from ftkit.samplers.base import Sampler
from ftkit.samplers.config import SampleConfig, VLLMConfig
from ftkit.samplers.vllm.base import Request
from ftkit.samplers.vllm.weights import present_weights
from ftkit.samplers.written import answers_of, room_of

if TYPE_CHECKING:
    from ftkit.model.policy import Policy
    from ftkit.samplers.vllm.base import Engine
    from ftkit.samplers.written import Drawn

PROBE = SampleConfig(temperature=1.0, max_tokens=8)
"""How the probe after each change of weights is sampled."""
PROBED = 8
"""Tokens of the prompt that it answers."""
PROBES = 4
"""Answers to it, of each server."""
SHORTEST = PROBED + PROBE.max_tokens
"""What vLLM must be able to read."""
TOLERANCE = {torch.float32: 1e-3}
"""Nats a token by which sampler and trainer may differ on the probe, by precision."""
ROUGH = 0.1
"""The same for any other precision."""

log = logging.getLogger("ftkit")


@dataclass(frozen=True)
class VLLMSampler(Sampler):
    """Samples from the policy's weights in a running vLLM.

    Attributes:
        engine: the vLLM, shared by all samplers of a run.
        policy: whose weights it shall have.
        config: temperature, top_k, top_p and max_tokens.
        stop: ids of tokens that end an answer.
    """

    engine: Engine
    policy: Policy
    config: SampleConfig
    stop: Sequence[int]

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        answers: int,
        seed: int,
        keys: Sequence[int] | None = None,
    ) -> list[list[Answer]]:
        """Sample answers to each prompt (``Sampler.generate``).

        What is drawn depends on the same things as the embedded sampler's answers, as far as vLLM's
        arithmetic does not depend on what else is in its batches.

        Raises:
            UserError: if a prompt leaves no room for an answer in the model's positions.
            RunError: if vLLM fails.
        """
        if not prompts and not self.engine.shared:
            return []
        keys = range(len(prompts)) if keys is None else keys
        room = room_of(self.policy.model, prompts, self.config.max_tokens)
        each = answers if self.config.temperature > 0 else 1  # greedy answers are all alike
        requests = [
            Request(prompt, each, _seed(seed, key), limit)
            for prompt, key, limit in zip(prompts, keys, room, strict=True)
        ]
        drawn = self.engine.ask(requests, self.config, self.stop)
        out = []
        for row, limit in zip(drawn, room, strict=True):
            whole = [self._checked(one, limit) for one in row]
            written = answers_of(whole, self.policy.tokenizer, self.stop)
            out.append(written * (answers // each))
        return out

    def sync(self) -> None:
        """Hand the policy's weights over, if they have changed, and see that they arrived."""
        version = self.policy.version
        if self.engine.version == version:
            return
        with self.policy.placement.whole():
            self.engine.load(present_weights(self.policy), version)
        self._compare()

    def wake(self) -> None:
        """Take back the memory that sampling needs."""
        self.engine.wake()

    def sleep(self) -> None:
        """Give it up."""
        self.engine.sleep()

    def _checked(self, drawn: Drawn, limit: int) -> Drawn:
        """Refuse what ended neither by a stop token nor by the limit; a greedy token is certain."""
        ended = bool(drawn.tokens) and drawn.tokens[-1] in self.stop
        if not ended and len(drawn.tokens) != limit:
            raise RunError(
                f"vLLM ended an answer after {len(drawn.tokens)} of {limit} tokens, and not by a "
                "stop token: a server must be started by `ftkit serve`, whose limits fit"
            )
        if self.config.temperature == 0:
            return drawn._replace(logp=[0.0] * len(drawn.logp))
        return drawn

    def _compare(self) -> None:
        """Sample a few tokens, and compare their log-probabilities with the policy's own.

        Raises:
            RunError: if they differ by more than rounding.
        """
        rows = self.policy.model.config.get_text_config().vocab_size
        prompt = tuple(7919 * i % rows for i in range(1, PROBED + 1))  # any tokens will do
        room = room_of(self.policy.model, [prompt], PROBE.max_tokens)
        probes = [Request(prompt, PROBES, i, room[0]) for i in range(self.engine.places)]
        drawn = [one for row in self.engine.ask(probes, PROBE, ()) for one in row]
        group = Group("probe", prompt, tuple(Answer(tuple(one.tokens)) for one in drawn))
        with self.policy.at(PROBE.temperature):
            own = self.policy.without_graph(collate([group]))[0].cpu()
        told = torch.tensor([one.logp for one in drawn])
        gap = (own[:, : told.shape[1]] - told).abs().mean().item()
        config = self.config.vllm or VLLMConfig()
        allowed = config.tolerance or TOLERANCE.get(self.policy.model.dtype, ROUGH)
        log.debug("vLLM and the policy differ by %.2g nats a token", gap)
        if not gap <= allowed:
            raise RunError(
                f"after new weights were handed to vLLM, its log-probabilities differ from the "
                f"policy's by {gap:.3g} nats a token, more than {allowed:g}: it does not have the "
                "policy's weights, or computes otherwise; write sample.engine: hf and vllm: null, "
                "or a larger sample.vllm.tolerance if this is rounding"
            )


def _seed(seed: int, key: int) -> int:
    """Return the seed of a prompt's answers, far from those of all others: 62 bits."""
    digest = hashlib.sha256(f"{seed} {key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2
