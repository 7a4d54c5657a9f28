"""What DisCO says of its constraint: figures in closed form, and when it advises."""

from __future__ import annotations

import math

import pytest

from ftkit.objectives import DisCO
from tests.objectives.hand import OLD, RATIOS, REWARDS, value

LOGS = [math.log(r) for own in RATIOS for r in own]
KL = -sum(LOGS) / len(LOGS)
OBJECTIVE = math.sqrt(1 / 2 + (1 / 1 + 1 / 3 + 1 / 2) / 9)
"""The gradient of mean s(y') - s(y): of one right answer of 2 tokens, and wrong ones of 1, 3, 2."""


def figures(ratios=RATIOS, rewards=REWARDS, **constants):
    _, loss, _, _ = value(DisCO(name="disco", **constants), ratios, OLD, rewards)
    found = {name: (float(mean.total), float(mean.count)) for name, mean in loss.metrics.items()}
    return {name: total / count for name, (total, count) in found.items() if count}


@pytest.mark.parametrize("beta", [0.0, 1.0, 500.0])
@pytest.mark.parametrize("delta", [1e-4, 0.05, 0.07])
def test_the_penaltys_share_of_the_gradient(beta, delta):
    """∇ β [KL - δ]_+^2 is -2 β [KL - δ]_+ / N in each of N tokens."""
    found = figures(objective="L1", beta=beta, delta=delta)
    penalty = 2 * beta * max(KL - delta, 0.0) / math.sqrt(len(LOGS))
    assert found["penalty_share"] == pytest.approx(penalty / OBJECTIVE, rel=1e-9, abs=1e-12)
    assert found["constrained"] == (beta > 0 and delta < KL)
    assert found["kl_over_delta"] == pytest.approx(KL / delta, rel=1e-9)


def test_the_noise_is_the_standard_error_of_the_kl():
    variance = sum((-x - KL) ** 2 for x in LOGS) / len(LOGS)
    assert figures()["kl_noise"] == pytest.approx(math.sqrt(variance / len(LOGS)), rel=1e-9)


def test_at_the_old_policy_the_constraint_has_no_share():
    found = figures(ratios=[[1.0] * len(own) for own in RATIOS])
    assert {found[name] for name in ("penalty_share", "constrained", "kl_noise")} == {0.0}


def test_without_a_pair_there_is_no_share():
    assert "penalty_share" not in figures(rewards=[1.0] * 4)


@pytest.mark.parametrize("trust", ["kl", "none"])
def test_other_ways_of_trust_have_no_constraint_to_tell_of(trust):
    assert not {"penalty_share", "constrained", "kl_noise"} & figures(trust=trust).keys()


@pytest.mark.parametrize(
    ("constants", "told", "words"),
    [
        ({}, {}, None),
        ({}, {"penalty_share": 2.0, "kl_noise": 1e-3}, None),  # neither above its bound
        ({}, {"penalty_share": 2.1, "kl_over_delta": 30.0}, "2.1 times the objective's (KL 30 δ)"),
        ({}, {"penalty_share": 2.1, "kl_noise": 1.0}, "Lower train.lr"),
        ({}, {"kl_noise": 1.1e-3}, "standard error of 0.0011: the constraint acts by chance"),
        ({"delta": 1e-3}, {"kl_noise": 1.1e-3}, None),
        ({"delta": 0.0}, {"kl_noise": 1.0}, None),  # it acts always
        ({"trust": "none"}, {"kl_noise": 1.0}, None),
    ],
)
def test_advice(constants, told, words):
    advice = DisCO(name="disco", **constants).advice(told)
    assert (advice is None) == (words is None)
    assert words is None or words in advice


@pytest.mark.parametrize(
    ("constants", "remarks"),
    [
        ({}, 0),
        ({"trust": "clip"}, 1),
        ({"trust": "clip", "score": "likelihood_ratio"}, 0),
        ({"trust": "none"}, 0),
    ],
)
def test_clipping_without_ratios_is_remarked(constants, remarks):
    assert len(DisCO(name="disco", **constants).remarks()) == remarks


def test_clipping_without_ratios_indeed_keeps_nothing_near():
    clip, none = (
        value(DisCO(name="disco", trust=t), RATIOS, OLD, REWARDS) for t in ("clip", "none")
    )
    assert clip[0] == none[0]
