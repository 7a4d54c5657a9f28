"""TRPO's step: the curvature is the Hessian of the KL, and nobody leaves the region."""

from __future__ import annotations

import pytest
import torch

from ftkit.core.batch import collate
from ftkit.core.errors import RunError
from ftkit.model.attention import in_plain_products
from ftkit.model.layout import lay_out
from ftkit.objectives import TRPO
from ftkit.parallel.world import OneProcess
from ftkit.train.curvature import Curvature, conjugate_gradient
from ftkit.train.trust_region import TrustRegion
from tests.tiny import random_groups, tiny_policy

NARROW = {
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def region(groups, *, temperature=1.0, micro_tokens=10**6, way="segments", **constants):
    policy = tiny_policy(micro_tokens, way)
    objective = TRPO(name="trpo", **constants)
    learner = TrustRegion(policy, objective, OneProcess(), temperature)
    learner.zero_grad()
    learner.differentiate(collate(groups))
    return learner


def all_log_probs(policy, batch, temperature=1.0):
    """log softmax of all logits where tokens are learnt, through the model's own head."""
    tokens, seen, row, place = policy.rows(batch, lay_out(batch))
    logits = policy.model(input_ids=tokens, attention_mask=seen, use_cache=False).logits
    return (logits[row, place] / temperature).log_softmax(-1)


def copies(learner):
    return {name: weight.detach().clone() for name, weight in learner.weights.items()}


@pytest.mark.parametrize(
    ("way", "micro_tokens"), [("segments", 10**6), ("segments", 11), ("rows", 30), ("logits", 30)]
)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_product_is_with_the_hessian_of_the_kl(way, micro_tokens, temperature):
    """Against two derivatives of the KL itself, in float64."""
    policy = tiny_policy(micro_tokens, way, **NARROW)
    policy.model.double()
    batch, live = collate(random_groups(1)), dict(policy.model.named_parameters())
    with in_plain_products():
        logp = all_log_probs(policy, batch, temperature)
        kl = (logp.detach().exp() * (logp.detach() - logp)).sum() / batch.count("token")
        slope = torch.autograd.grad(kl, list(live.values()), create_graph=True)
    flat = torch.cat([each.flatten() for each in slope])
    assert flat.abs().max() < 1e-12  # the KL is least at π_old
    with policy.at(temperature):
        curvature = Curvature(policy, batch, OneProcess(), live)
        for seed in range(2):
            generator = torch.Generator().manual_seed(seed)
            v = torch.randn(flat.numel(), generator=generator, dtype=torch.float64)
            expected = torch.autograd.grad(flat @ v, list(live.values()), retain_graph=True)
            found = curvature.product(v)
            exact = {"rtol": 1e-9, "atol": 1e-12}
            if way == "segments":  # the CPU's kernel keeps its normalizers in float32
                exact = {"rtol": 1e-5, "atol": 1e-7}
            whole = torch.cat([each.flatten() for each in expected])
            torch.testing.assert_close(found, whole, **exact)
            assert v @ found > 0


def test_conjugate_gradients_solve_in_as_many_steps_as_there_are_dimensions():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    a, b = root @ root.T + torch.eye(6), torch.arange(1.0, 7.0, dtype=torch.float64)
    x, residual = conjugate_gradient(a.mv, b, 6, 0.0)
    torch.testing.assert_close(a @ x, b)
    assert residual < 1e-9
    asked = []

    def counted(v):
        asked.append(v)
        return a @ v

    x, residual = conjugate_gradient(counted, b, 6, 0.5)
    assert residual <= 0.5
    assert residual == pytest.approx(((a @ x - b).norm() / b.norm()).item())
    assert len(asked) < 6


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("delta", [1e-4, 1e-2])
def test_a_step_gains_within_the_region(delta, temperature):
    """Gain and KL are measured anew, through the model's own logits."""
    groups = random_groups(3, answers=4)
    learner = region(groups, delta=delta, temperature=temperature, cg_steps=4)
    batch = collate(groups)
    with torch.no_grad():
        before = all_log_probs(learner.policy, batch, temperature)
    told = learner.step(0.0)
    with torch.no_grad():
        after = all_log_probs(learner.policy, batch, temperature)
    kl = (before.exp() * (before - after)).sum(-1).mean().item()
    assert told["kl"] == pytest.approx(kl, rel=1e-2, abs=1e-7)
    assert 0.1 * delta < kl <= delta
    layout = lay_out(batch)

    def surrogate(logp):
        picked = torch.zeros(batch.tokens.numel())
        picked[layout.slot] = logp.gather(1, layout.target[:, None]).squeeze(1)
        old = torch.zeros(batch.tokens.numel())
        old[layout.slot] = before.gather(1, layout.target[:, None]).squeeze(1)
        loss = learner.objective.loss(picked.view(batch.size), batch.add(old=old.view(batch.size)))
        return -loss.terms.sum().item() / batch.count("token")

    gain = surrogate(after) - surrogate(before)
    assert gain > 0
    assert told["gain"] == pytest.approx(gain, rel=1e-2, abs=1e-6)
    assert told["step_fraction"] > 0


def test_a_step_does_not_depend_on_how_the_batch_is_cut():
    groups = random_groups(4, answers=4)
    found = []
    for micro_tokens in (10**6, 15):
        learner = region(groups, micro_tokens=micro_tokens, cg_steps=3)
        told = learner.step(0.0)
        found.append((told, torch.cat([w.detach().flatten() for w in learner.weights.values()])))
    (one, a), (other, b) = found
    assert one == pytest.approx(other, rel=1e-3, abs=1e-7)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("refused", ["no gain", "too far"])
def test_where_nothing_is_accepted_the_weights_are_as_they_were(monkeypatch, refused):
    learner = region(random_groups(3, answers=4), tries=3, cg_steps=2)
    before, seen = copies(learner), []
    if refused == "no gain":
        monkeypatch.setattr(TrustRegion, "_surrogate", lambda *_: 0.0)
    measure = Curvature.measure

    def watched(self):
        seen.append(copies(learner))
        found = measure(self)
        far = refused == "too far" and 1 < len(seen) < 5
        return found._replace(kl=1.0) if far else found

    monkeypatch.setattr(Curvature, "measure", watched)
    told = learner.step(0.0)
    assert len(seen) == 5  # π_old, three lengths, and what is left
    assert all(any(not torch.equal(w, before[n]) for n, w in each.items()) for each in seen[1:4])
    assert (told["step_fraction"], told["gain"], told["kl"]) == (0.0, 0.0, 0.0)
    assert told["cg_residual"] > 0
    assert all(torch.equal(weight, before[name]) for name, weight in learner.weights.items())


def test_a_refused_step_is_shortened(monkeypatch):
    """The first length that is tried is refused, and the second starts from the old weights."""
    groups = random_groups(3, answers=4)
    whole, half = (region(groups, cg_steps=3, tries=2) for _ in range(2))
    first, second = copies(whole), copies(half)
    assert whole.step(0.0)["step_fraction"] == 1.0
    measure, asked = Curvature.measure, []

    def stricter(self):
        asked.append(self)
        found = measure(self)
        return found._replace(kl=1.0) if len(asked) == 2 else found  # the one before is of π_old

    monkeypatch.setattr(Curvature, "measure", stricter)
    assert half.step(0.0)["step_fraction"] == 0.5
    for name in first:
        long, short = (x.weights[name] - y[name] for x, y in ((whole, first), (half, second)))
        torch.testing.assert_close(short, long / 2, rtol=1e-3, atol=1e-6)


def test_groups_that_are_alike_move_nothing():
    learner = region(random_groups(3, answers=1))
    before = copies(learner)
    assert set(learner.step(0.0).values()) == {0.0}
    assert all(torch.equal(weight, before[name]) for name, weight in learner.weights.items())


def test_a_kl_that_is_larger_than_delta_stops_the_run(monkeypatch):
    learner = region(random_groups(3, answers=4), cg_steps=1)

    def leave(self, method, curvature, direction):
        next(iter(self.weights.values())).data.add_(0.5)
        return {}

    monkeypatch.setattr(TrustRegion, "_search", leave)
    with pytest.raises(RunError, match=r"KL after the step is .* δ 0.01"):
        learner.step(0.0)


def test_frozen_weights_stay():
    """As with adapters: only what requires a gradient has a part in the curvature and the step."""
    groups = random_groups(3, answers=4)
    policy = tiny_policy()
    for name, weight in policy.model.named_parameters():
        weight.requires_grad_("norm" in name)
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    learner = TrustRegion(policy, TRPO(name="trpo", cg_steps=3), OneProcess())
    learner.differentiate(collate(groups))
    assert learner.step(0.0)["gain"] > 0
    moved = {n for n, p in policy.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == set(learner.weights) != set(before)
