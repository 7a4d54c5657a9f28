"""A group worked out by hand: ratios, old probabilities and rewards (LAWS V6)."""

from __future__ import annotations

import torch

from ftkit.core.batch import Batch

RATIOS = [[1.2, 1.25], [0.5], [1.5, 1.0, 1.1], [1.0, 0.5]]
OLD = [[0.5, 0.4], [0.2], [0.3, 0.6, 0.5], [0.8, 0.1]]
REWARDS = [1.0, 0.0, 0.0, 0.0]


def group(ratios, old, rewards, truncated=()):
    """Log-probabilities of a group's answers, and the batch, in float64."""
    longest = max(map(len, ratios))
    logp, before = (torch.zeros(1, len(ratios), longest, dtype=torch.float64) for _ in range(2))
    mask = torch.zeros_like(logp, dtype=torch.bool)
    for k, (own, base) in enumerate(zip(ratios, old, strict=True)):
        before[0, k, : len(own)] = torch.tensor(base, dtype=torch.float64).log()
        logp[0, k, : len(own)] = torch.tensor(own, dtype=torch.float64).log()
        mask[0, k, : len(own)] = True
    cut = torch.zeros(1, len(ratios), dtype=torch.bool)
    cut[0, list(truncated)] = True
    columns = {
        "tokens": torch.zeros_like(mask, dtype=torch.int64),
        "mask": mask,
        "length": mask.sum(-1),
        "present": torch.ones(1, len(ratios), dtype=torch.bool),
        "reward": torch.tensor([rewards], dtype=torch.float64),
        "truncated": cut,
        "old": before,
    }
    logp = (logp + before).where(mask, 0.0).requires_grad_()
    return logp, Batch(("a",), (torch.ones(1, dtype=torch.int64),), columns)


def value(objective, *args):
    logp, batch = group(*args)
    loss = objective.loss(logp, batch)
    count = batch.count(objective.unit)
    return loss.terms.sum().item() / count, loss, logp, batch
