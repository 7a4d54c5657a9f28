"""Who writes a run's answers, by what its recipe says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ftkit.samplers.config import SampleConfig, VLLMConfig
from ftkit.samplers.hf import HFSampler
from ftkit.samplers.written import positions_of

if TYPE_CHECKING:
    from ftkit.model.policy import Policy
    from ftkit.parallel.world import World
    from ftkit.samplers.base import Sampler
    from ftkit.samplers.vllm.base import Engine


def open_engine(
    config: SampleConfig, policy: Policy, *, longest: int, run: str, world: World
) -> Engine | None:
    """Return the vLLM that writes answers, to be closed by the caller; None with ``engine: hf``.

    Args:
        config: how answers are written.
        policy: whose weights it will be given.
        longest: tokens of the longest prompt and answer together.
        run: the folder of the run, beside which weights for servers are laid.
        world: the ranks that ask.

    Raises:
        UserError: if it cannot be started or reached.
    """
    if config.engine == "hf":
        return None
    from ftkit.samplers.vllm.sampler import SHORTEST

    how = config.vllm or VLLMConfig()
    longest = max(min(longest, positions_of(policy.model) or longest), SHORTEST)
    if how.server is None:
        from ftkit.samplers.vllm.inside import Inside

        return Inside.start(policy, how, longest, world)
    from ftkit.samplers.vllm.server import Servers

    urls = [how.server] if isinstance(how.server, str) else how.server
    folder = (Path(how.exchange) if how.exchange else beside(run)).absolute()
    return Servers.join(urls, folder, how.wait, world, longest)


def beside(run: str, what: str = "weights") -> Path:
    """Return a folder for what servers read.

    >>> str(beside("runs/gsm8k"))
    'runs/.gsm8k-weights'
    """
    path = Path(run)
    return path.with_name(f".{path.name}-{what}")


def sampler_of(
    policy: Policy, config: SampleConfig, stop: Sequence[int], engine: Engine | None
) -> Sampler:
    """Return who writes answers.

    Args:
        policy: whose answers they are.
        config: how they are drawn.
        stop: ids of tokens that end an answer.
        engine: the vLLM that writes them; None = the embedded sampler.
    """
    if engine is None:
        placement = policy.placement
        return HFSampler(policy.model, policy.tokenizer, config, stop, placement=placement)
    from ftkit.samplers.vllm.sampler import VLLMSampler

    return VLLMSampler(engine, policy, config, stop)
