"""A step of GRPO through TRL's GRPOTrainer and through ftkit: CPU time and peak memory.

Same weights, prompts, group size, answer lengths, optimizer and thread count; how peers are
compared says ``bench.py``.  A step samples answers to the prompts with the present weights, rewards
them (1 where the sum of an answer's tokens is odd: cheap, and mixed within a group), and updates
once; the time until all is rewarded, and that of the update, are told apart.  All answers are of
one length: the stop token is one that the model cannot draw.

In the first step, which is not measured, answers are not sampled but given, and ragged: with them
the gradients of all that take GRPO's loss must agree.  TRL adds 1e-4 to a group's deviation (the
unbiased one, as ``advantage: sample_sigma``), so they do to a few parts in ten thousand.

``trl-default`` and ``ftkit-parts`` put 8 answers through the model at once, which is TRL's default
(an update is of all of them all the same); ``trl-whole`` and ``ftkit`` put all.  Of TRL's defaults,
recomputation and 16 bits are switched off, and nothing in it is switched on that costs time: no
reference model, no second pass for old log-probabilities.  ``ftkit-disco`` is another objective on
the same rollouts.  At last ftkit's sampler and trainer are asked for log-probabilities of the same
tokens.

    python scripts/bench_rl.py
    python scripts/bench_rl.py --prompt 256
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts import bench
from scripts.bench import BIG, OURS, Contest, Peer, Watch

if TYPE_CHECKING:
    from ftkit.objectives import Objective
    from ftkit.sources.rollouts import Rollouts
    from ftkit.verifiers.base import Item, Verdict

DISCO, PARTS, WHOLE = "ftkit-disco", "ftkit-parts", "trl-whole"
AT_ONCE = 8
"""Answers that ``trl-default`` and ``ftkit-parts`` put through the model at once."""
MICRO_TOKENS = 16384
"""Those that ftkit puts through at once by default: all, here."""
TOLERANCE = 1e-3
"""By how much the first gradients of GRPO may differ, relative to their 2-norm."""
TEMPERATURES = (0.6, 1.0)


def run(args: argparse.Namespace, watch: Watch) -> None:
    """Run one peer's steps."""
    (ours if args.peer in {OURS, PARTS, DISCO} else trl)(args, watch)


def make_prompts(args: argparse.Namespace) -> list[list[int]]:
    """Return the prompts of all steps."""
    return _tokens(random.Random(0), [args.prompt] * args.prompts * args.steps)


def given(args: argparse.Namespace) -> list[list[int]]:
    """Return the answers of the first step, prompt-major: ragged."""
    draw = random.Random(1)
    count = args.prompts * args.group
    return _tokens(draw, [draw.randint(1, args.answer) for _ in range(count)])


def _tokens(draw: random.Random, lengths: Sequence[int]) -> list[list[int]]:
    return [[draw.randrange(10, BIG["vocab_size"]) for _ in range(n)] for n in lengths]


def reward(tokens: Sequence[int]) -> float:
    """Return what an answer is worth."""
    return float(sum(tokens) % 2)


def tokenizer() -> Any:
    """Return a tokenizer whose stop token no model of ``bench.BIG`` can draw."""
    from scripts import bench_trl

    out = bench_trl.tokenizer()
    out.add_special_tokens({"eos_token": "<end>"})
    assert out.eos_token_id >= BIG["vocab_size"]
    return out


def ours(args: argparse.Namespace, watch: Watch) -> None:
    """Take ftkit's steps: what its loop does, without evaluations, checkpoints and logs."""
    from ftkit.core.batch import collate
    from ftkit.objectives import GRPO, DisCO
    from ftkit.parallel.world import OneProcess
    from ftkit.train.config import TrainConfig
    from ftkit.train.learner import Learner
    from ftkit.train.optimizer import Optimizer
    from scripts import bench_ftkit

    of_part = AT_ONCE // args.group * args.prompt + AT_ONCE * args.answer
    policy = bench_ftkit.new_policy(of_part if args.peer == PARTS else MICRO_TOKENS)
    objective: Objective = (
        DisCO(name="disco") if args.peer == DISCO else GRPO(name="grpo", advantage="sample_sigma")
    )
    source = new_source(args, policy, binary=args.peer == DISCO)
    learner = Learner(policy, objective, OneProcess())
    optimizer = Optimizer(policy.model, TrainConfig(lr=bench.LR))
    watch.turn()
    for step in range(1, args.steps + 1):
        started = time.process_time()
        groups = source.groups(step)
        watch.note(rollout=time.process_time() - started)
        batch = collate(groups)
        optimizer.zero_grad()
        outcome = learner.differentiate(batch)
        watch.differentiated(outcome.loss, outcome.trained, policy.model)
        optimizer.step(bench.LR)
        source.told(), source.samples()
        watch.turn()


def new_source(args: argparse.Namespace, policy: Any, *, binary: bool) -> Rollouts:
    """Return prompts that the policy answers; the first step's answers are given."""
    from ftkit.core.group import Group
    from ftkit.data.order import Order
    from ftkit.parallel.world import OneProcess
    from ftkit.samplers.config import SampleConfig
    from ftkit.samplers.hf import HFSampler
    from ftkit.sources.asking import Asking
    from ftkit.sources.rollouts import Rollouts
    from scripts import bench_ftkit

    words, config = tokenizer(), SampleConfig(max_tokens=args.answer, answers=args.group)
    asking = Asking(
        policy=policy,
        world=OneProcess(),
        sampler=bench_ftkit.Given(given(args), HFSampler(policy.model, words, config, stop=())),
        judge=OddSum(),
        answers=args.group,
        temperature=1.0,
        seed=0,
        keeps_old=False,
        binary=binary,
    )
    rows: Any = [Group(str(i), tuple(prompt)) for i, prompt in enumerate(make_prompts(args))]
    return Rollouts(
        sets=[rows],
        order=Order([len(rows)], [1.0], seed=0),
        prompts=args.prompts,
        world=OneProcess(),
        asking=asking,
    )


class OddSum:
    """A judge by ``reward``."""

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """Return a verdict on each answer."""
        from ftkit.verifiers.base import Verdict

        worth = (reward(item.tokens) for item in items)
        return [Verdict("correct" if value else "incorrect", value) for value in worth]

    def close(self) -> None:
        """It has no processes."""


def trl(args: argparse.Namespace, watch: Watch) -> None:
    """Take TRL's steps, on the same prompts in the same order."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from ftkit.data.order import Order
    from scripts import bench_trl

    prompts = make_prompts(args)
    order = Order([len(prompts)], [1.0], seed=0).rows_from(0, len(prompts))
    rows = args.prompts * args.group
    parts = 1 if args.peer == WHOLE else rows // AT_ONCE
    trainer = bench_trl.watched_rollouts(GRPOTrainer, watch, given(args))(
        model=bench.new_model(),
        reward_funcs=lambda completion_ids, **_: [reward(tokens) for tokens in completion_ids],
        args=GRPOConfig(
            **{k: v for k, v in bench_trl.settings(rows // parts).items() if k != "max_length"},
            gradient_accumulation_steps=parts,
            num_generations=args.group,
            max_completion_length=args.answer,
            temperature=1.0,
            loss_type="grpo",
            scale_rewards="group",
            beta=0.0,
            num_iterations=1,
            shuffle_dataset=False,
        ),
        train_dataset=Dataset.from_dict({"prompt": [prompts[row] for _, row in order]}),
        processing_class=tokenizer(),
    )
    trainer.train()
    watch.turn()


CONTEST = Contest(
    script=__file__,
    peers=("trl-default", WHOLE, OURS, PARTS, DISCO),
    unit="s a step",
    scale=1.0,
    units=lambda args: [1] * args.steps,
    run=run,
    tolerance=(1e-4,),
)


def main(args: argparse.Namespace) -> None:
    """Compare all peers, or be one of them."""
    if args.peer:
        bench.be(CONTEST, args)
        return
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        peers = bench.take_turns(CONTEST, args, Path(folder), stack)
        ours = next(peer for peer in peers if peer.name == OURS)
        gaps = {
            peer.name: bench.gap(peer.gradient, ours.gradient)
            for peer in peers
            if peer.name != DISCO
        }
    check(peers, ours, gaps, args)
    table(peers, ours, gaps, args)
    for temperature in TEMPERATURES:
        told = agreement(args, temperature)
        print(f"\nT {temperature:g}: sampler and trainer apart by {told}")


def agreement(args: argparse.Namespace, temperature: float) -> str:
    """Return how far ftkit's sampler and trainer are apart on some answers."""
    from ftkit.samplers.config import SampleConfig
    from scripts import bench_ftkit

    config = SampleConfig(max_tokens=args.answer, answers=args.group, temperature=temperature)
    policy = bench_ftkit.new_policy(MICRO_TOKENS)
    return bench_ftkit.agreement(policy, make_prompts(args)[: args.prompts], config, tokenizer())


def check(
    peers: Sequence[Peer], ours: Peer, gaps: dict[str, float], args: argparse.Namespace
) -> None:
    """Assert that all learnt as many tokens, and that the same rollout gave the same gradient."""
    for peer in peers:
        for one, other in zip(peer.steps, ours.steps, strict=True):
            assert one["trained"] == other["trained"], (peer.name, one["trained"], other["trained"])
        full = args.prompts * args.group * args.answer
        assert all(step["trained"] == full for step in peer.steps[1:]), (peer.name, full)
    for name, gap in gaps.items():
        assert gap < TOLERANCE, (name, "gradient", gap)


def table(
    peers: Sequence[Peer], ours: Peer, gaps: dict[str, float], args: argparse.Namespace
) -> None:
    """Print medians over the steps, and of the ratios to ftkit step by step."""
    head = "peer | CPU s a step | rollout | update | ratio to ftkit (of the steps) | of rollouts"
    head += " | of updates | peak MB | ftkit's share | gradient, apart by"
    print(f"| {head} |\n|{'---|' * (head.count('|') + 1)}")
    own = costs(ours, args.warmup)
    for peer in peers:
        mine = costs(peer, args.warmup)
        ratios = [
            [a / b for a, b in zip(x, y, strict=True)] for x, y in zip(mine, own, strict=True)
        ]
        whole, rollout, update = (f"{statistics.median(column):.2f}" for column in ratios)
        memory = peer.end["peak_mb"]
        cells = [f"{statistics.median(column):.2f}" for column in mine]
        cells += [f"{whole} ({min(ratios[0]):.2f} to {max(ratios[0]):.2f})", rollout, update]
        cells += [f"{memory:.0f}", f"{ours.end['peak_mb'] / memory:.2f}"]
        cells += [f"{gaps[peer.name]:.0e}" if peer.name in gaps else ""]
        print(f"| {peer.name} | {' | '.join(cells)} |")


def costs(peer: Peer, warmup: int) -> tuple[list[float], list[float], list[float]]:
    """Return CPU seconds of each measured step: the whole, its rollout, its update."""
    steps = peer.steps[warmup:]
    whole, rollout = [step["seconds"] for step in steps], [step["rollout"] for step in steps]
    return whole, rollout, [a - b for a, b in zip(whole, rollout, strict=True)]


if __name__ == "__main__":
    parser = bench.parser(str(__doc__), CONTEST)
    parser.add_argument("--prompts", type=int, default=4, help="in a step")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of each prompt")
    parser.add_argument("--group", type=int, default=8, help="answers to each prompt")
    parser.add_argument("--answer", type=int, default=64, help="tokens of each answer")
    parser.set_defaults(steps=5, warmup=2)  # the second step is the first that samples
    main(parser.parse_args())
