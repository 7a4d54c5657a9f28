"""All that the memory of a run depends on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ftkit.objectives import PPO
from ftkit.plan.sampling import Asked, Sampling, sampling
from ftkit.samplers.config import VLLMConfig
from ftkit.train.answers import GREEDY, held_out_sampling

if TYPE_CHECKING:
    from ftkit.plan.body import Held, Passing
    from ftkit.plan.facts import Facts
    from ftkit.plan.machine import Machine
    from ftkit.plan.models import Models
    from ftkit.plan.spread import Spread
    from ftkit.plan.work import Work
    from ftkit.recipe import Recipe
    from ftkit.run_data import Data

BEFORE, LEARN, VALUES, UPDATE = "before", "learn", "values", "update"
SAMPLE, SAVE = "sample", "save"
"""The phases of a run: references are asked; gradients of the policy, of a critic; the change of
weights; answers; the model is written."""


@dataclass(frozen=True)
class Setting:
    """A recipe, what it reads, its models, and the processes that they are on."""

    recipe: Recipe
    data: Data
    machine: Machine
    models: Models
    work: Work
    spread: Spread
    part: Passing
    """What goes through the policy at once."""
    fresh: bool
    """Whether a step begins with it, so that gradients come only as its activations go."""

    @cached_property
    def facts(self) -> Facts:
        """Sizes of the policy."""
        return self.models.policy.facts

    @cached_property
    def trained(self) -> list[Facts]:
        """Sizes of all models that learn, the policy's first."""
        models = self.models.policy, self.models.critic
        return [model.facts for model in models if model is not None]

    @cached_property
    def held(self) -> Held:
        """What a part of a batch holds in the policy's body."""
        return self.models.policy.held(self.part, self.machine.kind)

    @cached_property
    def held_by_critic(self) -> Held:
        """What it holds in the critic's, which may be the policy's."""
        critic = self.models.critic or self.models.policy
        return critic.held(self.part, self.machine.kind)

    @cached_property
    def sampling(self) -> Sampling | None:
        """What the embedded sampler holds; None where it writes nothing."""
        if self.recipe.sample is not None and self.recipe.sample.engine == "vllm":
            return None
        tokens = max(self.part.tokens, 1)
        cached, forward = self.held.cached / tokens, self.held.forward / tokens
        each = (
            sampling(asked, self.facts, cached, forward, self.machine.kind)
            for asked in self._asked()
        )
        return max(each, key=lambda one: one.cache + one.work, default=None)

    @cached_property
    def served(self) -> VLLMConfig | None:
        """How vLLM is run in this process; None where it is not."""
        sample = self.recipe.sample
        if sample is None or sample.engine != "vllm" or not any(self._asked()):
            return None
        how = sample.vllm or VLLMConfig()
        return how if how.server is None else None

    @cached_property
    def phases(self) -> tuple[str, ...]:
        """Those that the run has."""
        values = [VALUES] if isinstance(self.recipe.method, PPO) else []
        answered = [SAMPLE] if self.sampling or self.served else []
        before = [BEFORE] if self.models.beforehand else []
        return (*before, LEARN, *values, UPDATE, *answered, SAVE)

    def _asked(self) -> Iterator[Asked]:
        """Yield the prompts that are answered: of a rollout, and of an evaluation."""
        recipe, data, sample = self.recipe, self.data, self.recipe.sample
        if recipe.method.kind == "rollouts" and sample is not None:
            count = -(-recipe.train.prompts * recipe.train.updates // self.machine.processes)
            longest = self.work.longest - sample.max_tokens
            yield Asked(count, longest, sample.answers, sample.max_tokens)
        held_out = data.held_out_pool or data.sets.eval
        how = held_out_sampling(recipe.method, sample) or GREEDY
        if recipe.verify is None or held_out is None:
            return
        count = min(len(held_out), recipe.eval.limit or len(held_out))
        longest = int(held_out.lengths.max())
        yield Asked(count, longest, 1, how.max_tokens)
        if how.temperature > 0:
            yield Asked(count, longest, how.answers, how.max_tokens)
