"""The recipe's ``sample:``: how answers are written."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftkit.core.section import Section


class SystemPrompt(Section):
    """A system prompt and how often it is taken."""

    text: str = Field(min_length=1)
    """What it says."""
    weight: float = Field(1.0, gt=0)
    """Its share of the answers, beside the weights of the others."""


class SampleConfig(Section):
    """How answers are written."""

    engine: Literal["hf"] = "hf"
    """`hf`: the embedded sampler, on the policy itself."""
    temperature: float = Field(1.0, ge=0)
    """The policy that is sampled is softmax(logits / temperature); 0 is greedy."""
    top_k: int | None = Field(None, gt=0)
    """Sample among so many of the likeliest tokens only."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Sample among the likeliest tokens whose probabilities sum to this."""
    max_tokens: int = Field(256, gt=0)
    """The longest answer, in tokens."""
    answers: int = Field(1, gt=0)
    """Answers to each prompt."""
    logged: int = Field(16, ge=0)
    """grpo and its kin: prompts of each rollout that are written, with their answers, to
    RUN/samples.jsonl."""
    system: list[str | SystemPrompt] = Field([])
    """dft: the system prompts by which prompts are augmented for `ftkit gen-negatives`, as texts or
    with weights; none = prompts as they are."""
