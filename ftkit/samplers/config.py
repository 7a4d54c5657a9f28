"""The recipe's ``sample:``: how answers are written."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ftkit.core.section import Section


class SystemPrompt(Section):
    """A system prompt and how often it is taken."""

    text: str = Field(min_length=1)
    """What it says."""
    weight: float = Field(1.0, gt=0)
    """Its share of the answers, beside the weights of the others."""


class VLLMConfig(Section):
    """How vLLM is run."""

    server: str | Annotated[list[str], Field(min_length=1)] | None = None
    """Where servers are that `ftkit serve` started, such as `http://node7:8000`; prompts are dealt
    among several. null = vLLM runs in the trainer's process."""
    exchange: str | None = None
    """A folder that the trainer and all servers see, for the weights of each rollout; null =
    beside the run's folder, as .NAME-weights."""
    wait: float = Field(300.0, ge=0)
    """Seconds to wait for a server that does not answer (yet), before the run stops."""
    memory: float = Field(0.4, gt=0, lt=1)
    """In the trainer's process: the share of the GPU's memory that vLLM takes for weights and
    cache."""
    tensor_parallel: int = Field(1, gt=0)
    """In the trainers' processes: how many of them share one vLLM, each with a part of its weights;
    the number of processes must be a multiple of it."""
    sleep: bool = True
    """In the trainer's process: give that memory up while the policy learns."""
    eager: bool = False
    """In the trainer's process: no CUDA graphs; slower, and less memory. Without a GPU it is
    always so."""
    tolerance: float | None = Field(None, gt=0)
    """Nats a token by which vLLM and the trainer may differ after weights were handed over, in the
    mean over a probe; null = 0.001 with float32, else 0.1."""


class SampleConfig(Section):
    """How answers are written."""

    engine: Literal["hf", "vllm"] = "hf"
    """`hf`: the embedded sampler, on the policy itself; `vllm`: vLLM, in this process or in
    servers."""
    vllm: VLLMConfig | None = None
    """How vLLM is run, with `engine: vllm`; null = in this process, with its defaults."""
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
