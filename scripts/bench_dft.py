"""DFT by padded rows and full logits, as published, and through ftkit: CPU time and peak memory.

Same weights, prompts, answers, optimizer and thread count; how peers are compared says
``bench.py``.  ``rows``: a prompt's 1 + m answers are rows of their own, each with the prompt before
it, padded to the longest; all their logits, a log-softmax over the vocabulary, SOX's weights.  Both
take ``--together`` prompts through the model at once: 4, as the published runs do on each device.

    python scripts/bench_dft.py                      # prompts of 256 tokens, 1 + 8 answers of 64
    python scripts/bench_dft.py --prompt 64
    python scripts/bench_dft.py --together 1
    python scripts/bench_dft.py --answer 16-112      # ragged answers, lengths uniform
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterable
from typing import TYPE_CHECKING

from scripts import bench
from scripts.bench import BIG, LR, OURS, Contest, Watch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ftkit.core.batch import Batch
    from ftkit.core.group import Group

TAU, GAMMA = 1.0, 0.85
NATS = math.log(BIG["vocab_size"])


def make_groups(args: argparse.Namespace) -> list[Group]:
    """Return the prompts of all steps, their answers with made-up probabilities P."""
    from ftkit.core.group import Answer, Group

    draw = random.Random(0)
    least, *most = (int(n) for n in args.answer.split("-"))

    def some(length: int) -> tuple[int, ...]:
        return tuple(draw.randrange(10, BIG["vocab_size"]) for _ in range(length))

    def answer() -> Answer:
        tokens = some(draw.randint(least, *most) if most else least)
        return Answer(tokens, logps={"prompt": draw.gauss(-NATS * len(tokens), 3.0)})

    return [
        Group(str(i), some(args.prompt), tuple(answer() for _ in range(1 + args.negatives)))
        for i in range(args.prompts * args.steps)
    ]


def run(args: argparse.Namespace, watch: Watch) -> None:
    """Run one peer's steps."""
    import torch

    from ftkit.core.batch import collate
    from ftkit.objectives import DFT

    groups = make_groups(args)
    never = torch.full((args.prompts,), math.nan, dtype=torch.float64)
    batches = (
        collate(step, columns=["logp_prompt"]).add(carry=never)
        for step in bench.in_steps(groups, args.prompts)
    )
    if args.peer == OURS:
        from scripts import bench_ftkit

        objective = DFT(name="dft", tau=TAU, gamma=GAMMA, negatives=args.negatives)
        largest = max(len(g.prompt) + sum(len(a.tokens) for a in g.answers) for g in groups)
        policy = bench_ftkit.new_policy(args.together * largest)
        bench_ftkit.take_steps(policy, objective, batches, watch)
    else:
        padded_rows(args, batches, watch)


def padded_rows(args: argparse.Namespace, batches: Iterable[Batch], watch: Watch) -> None:
    """Take the steps of the published way."""
    from ftkit.train.config import TrainConfig
    from ftkit.train.optimizer import Optimizer

    model = bench.new_model().train()
    optimizer = Optimizer(model, TrainConfig(lr=LR))
    watch.turn()
    for batch in batches:
        optimizer.zero_grad()
        loss = 0.0
        for some in bench.in_steps(range(args.prompts), args.together):
            terms, value = objective(scores(model, batch.take(some)), batch.take(some))
            (terms / args.prompts).backward()
            loss += value / args.prompts
        watch.differentiated(loss, batch.count("token"), model)
        optimizer.step(LR)
        watch.turn()


def scores(model: nn.Module, batch: Batch) -> Tensor:
    """Return log π(y | x), [B, K], from all logits of B K rows padded to the longest."""
    import torch

    count, answers, longest = batch.size
    prompts = torch.stack(batch.prompts)[:, None].expand(-1, answers, -1)
    own = torch.arange(longest) < batch.length[..., None]
    rows = torch.cat((prompts, batch.tokens), dim=2).flatten(0, 1)
    seen = torch.cat((torch.ones_like(prompts), own.long()), dim=2).flatten(0, 1)
    logits = model(input_ids=rows, attention_mask=seen, use_cache=False).logits
    logp = logits[:, :-1].float().log_softmax(-1).gather(2, rows[:, 1:, None]).squeeze(2)
    logp = logp[:, prompts.shape[2] - 1 :].view(count, answers, longest)
    total: Tensor = logp.where(own, 0.0).sum(2)
    return total


def objective(score: Tensor, batch: Batch) -> tuple[Tensor, float]:
    """Return the sum over prompts of what has SOX's gradient, and that of the objective."""
    ratio = score[:, 1:].detach().double() / TAU - batch["logp_prompt"][:, 1:]
    u = (1 - GAMMA) + GAMMA * ratio.exp().mean(1, keepdim=True)
    pull = (ratio.exp() / u * score[:, 1:]).mean(1)
    value = TAU * u.log()[:, 0] - score[:, 0].detach().double()
    return (pull - score[:, 0]).sum(), float(value.sum())


CONTEST = Contest(
    script=__file__,
    peers=("rows", OURS),
    unit="ms a prompt",
    scale=1e3,
    units=lambda args: [args.prompts] * args.steps,
    run=run,
    tolerance=(1e-3, 2e-2),
)

if __name__ == "__main__":
    parser = bench.parser(str(__doc__), CONTEST)
    parser.add_argument("--prompts", type=int, default=4, help="prompts in a step")
    parser.add_argument("--together", type=int, default=4, help="prompts that go through at once")
    parser.add_argument("--negatives", type=int, default=8, help="of each prompt")
    parser.add_argument("--prompt", type=int, default=256, help="length of prompts")
    parser.add_argument("--answer", default="64", help="length of answers, or a range as 16-112")
    bench.main(CONTEST, parser.parse_args())
