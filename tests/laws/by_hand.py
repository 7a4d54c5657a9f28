"""Every method's loss again, by loops over prompts, answers and tokens."""

from __future__ import annotations

import math


def plain_by_hand(objective, values, logp, batch):
    answers = [answer for own in values for answer in own]
    tokens = [x for answer in answers for x in answer]
    dynamic = getattr(objective, "form", "") == "dynamic"
    total = sum(-math.exp(x) if dynamic else -x for x in tokens)
    return total / (len(answers) if objective.unit == "answer" else len(tokens))


def reward_by_hand(objective, values, logp, batch):
    total = 0.0
    for own in values:
        r = [answer[-1] if answer else 0.0 for answer in own]
        pairs = [math.log1p(math.exp(x - r[0])) + objective.center * (x + r[0]) ** 2 for x in r[1:]]
        total += sum(pairs) / max(len(pairs), 1)
    return total / len(values)


def dpo_by_hand(objective, values, logp, batch):
    beta, smooth = objective.beta, objective.label_smoothing

    def cost(t):
        return {
            "logistic": lambda: math.log1p(math.exp(t)),
            "hinge": lambda: max(0.0, 1 + t),
            "squared_hinge": lambda: max(0.0, 1 + t) ** 2,
            "exponential": lambda: math.exp(t),
            "sigmoid": lambda: 1 / (1 + math.exp(-t)),
            "ipo": lambda: (t / beta + 1 / (2 * beta)) ** 2,
        }[objective.form]()

    total = 0.0
    for b, own in enumerate(values):
        s = [sum(answer) for answer in own]
        if objective.reference != "none":
            s = [x - ref for x, ref in zip(s, batch["logp_reference"][b].tolist(), strict=False)]
        if objective.score == "mean_log_likelihood":
            s = [x / max(len(answer), 1) for x, answer in zip(s, own, strict=True)]
        t = [objective.margin - beta * (s[0] - x) for x in s[1:]]
        total += sum((1 - smooth) * cost(x) + smooth * cost(-x) for x in t) / max(len(t), 1)
        total -= objective.sft * sum(own[0]) / max(len(own[0]), 1)
    return total / len(values)


def dft_by_hand(objective, values, logp, batch):
    total, gamma, tau = 0.0, objective.gamma, objective.tau
    for b, own in enumerate(values):
        lengths = [max(len(a), 1) if "mean" in objective.score else 1 for a in own]
        s = [sum(answer) / n for answer, n in zip(own, lengths, strict=True)]
        p = [0.0] * len(s)
        if objective.denominator != "none":
            p = batch[f"logp_{objective.denominator}"][b].tolist()
        g = [math.exp(x / tau - log_p) for x, log_p in zip(s[1:], p[1:], strict=False)]
        total -= s[0]
        if g:
            fresh, before = sum(g) / len(g), batch["carry"][b].exp().item()
            if math.isnan(before):
                before = fresh if objective.u_init == "batch" else 1.0
            total += tau * math.log((1 - gamma) * before + gamma * fresh)
    return total / len(values)


def known(batch, name, b):
    """A per-token column of one prompt: of each answer, the values of its learnt tokens."""
    return [
        [x for x, learnt in zip(row, mask, strict=True) if learnt]
        for row, mask, there in zip(
            batch[name][b].tolist(), batch.mask[b].tolist(), batch.present[b].tolist(), strict=True
        )
        if there
    ]


def limited(x, low, high):
    return min(
        max(x, -math.inf if low is None else 1 - low), math.inf if high is None else 1 + high
    )


def mean(values):
    return sum(values) / max(len(values), 1)


def grpo_by_hand(objective, values, logp, batch):
    o, prompts, tokens = objective, [], []
    for b, own in enumerate(values):
        r = batch.reward[b].tolist()[: len(own)]
        freedom = len(r) - 1 if o.advantage == "sample_sigma" else len(r)
        sigma = math.sqrt(sum((x - mean(r)) ** 2 for x in r) / max(freedom, 1))
        of_answers = []
        for k, answer in enumerate(own):
            a = 0.0 if sigma == 0 else (r[k] - mean(r)) / (1 if o.advantage == "none" else sigma)
            a = 0.0 if o.truncated == "mask" and batch.truncated[b, k] else a
            old, ref = known(batch, "old", b)[k], known(batch, "reference", b)[k]
            sequence = math.exp(mean(answer) - mean(old))
            gains = []
            for x, before, frozen in zip(answer, old, ref, strict=True):
                each = math.exp(x - before)
                rho = sequence if o.ratio == "sequence" else each
                cut = limited(rho, o.clip_low, o.clip_high)
                d = frozen - x
                k3 = math.exp(d) - 1 - d
                kl = {"ratio_k3": each * k3, "ratio_k1": -each * d, "k1": -d, "k2": d * d / 2}
                gain = {"clip": min(rho * a, cut * a), "cispo": cut * a * x, "reinforce": a * x}
                total = gain[o.surrogate] - o.entropy * each * x - o.beta * kl.get(o.kl, k3)
                gains.append(total)
            tokens += gains
            of_answers.append(mean(gains) if o.length == "answer" else sum(gains) / o.constant)
        prompts.append(mean(of_answers))
    return -mean(tokens if o.length == "token" else prompts)


def ppo_by_hand(objective, values, logp, batch):
    o, gains = objective, []
    for b, own in enumerate(values):
        names = ("old", "advantage", "reference")
        for answer, old, advantage, ref in zip(
            own, *(known(batch, name, b) for name in names), strict=True
        ):
            for x, before, a, frozen in zip(answer, old, advantage, ref, strict=True):
                rho, d = math.exp(x - before), frozen - x
                kl = rho * (math.exp(d) - 1 - d) if o.kl_in == "loss" else 0.0
                gains.append(min(rho * a, limited(rho, o.clip, o.clip) * a) - o.beta * kl)
    return -mean(gains)


def trpo_by_hand(objective, values, logp, batch):
    gains = []
    for b, own in enumerate(values):
        r = batch.reward[b].tolist()[: len(own)]
        freedom = len(r) - 1 if objective.advantage == "sample_sigma" else len(r)
        sigma = math.sqrt(sum((x - mean(r)) ** 2 for x in r) / max(freedom, 1))
        sigma = 1.0 if objective.advantage == "none" or sigma == 0 else sigma
        for k, (answer, old) in enumerate(zip(own, known(batch, "old", b), strict=True)):
            pairs = zip(answer, old, strict=True)
            gains += [math.exp(x - before) * (r[k] - mean(r)) / sigma for x, before in pairs]
    return -mean(gains)


def disco_by_hand(objective, values, logp, batch):
    o, of_prompts, gaps = objective, [], []
    cost = {
        "identity": lambda t: t,
        "logistic": lambda t: math.log1p(math.exp(t)),
        "hinge": lambda t: max(0.0, 1 + t),
        "squared_hinge": lambda t: max(0.0, 1 + t) ** 2,
    }[o.surrogate]
    for b, own in enumerate(values):
        right, wrong = [], []
        for answer, old, r in zip(
            own, known(batch, "old", b), batch.reward[b].tolist(), strict=False
        ):
            gaps += [before - x for x, before in zip(answer, old, strict=True)]
            rho = [math.exp(x - before) for x, before in zip(answer, old, strict=True)]
            cut = o.clip if o.trust == "clip" else None
            up, down = ([limited(x, *lim) for x in rho] for lim in ((None, cut), (cut, None)))
            ratios = o.score == "likelihood_ratio"
            (right if r else wrong).append(mean((up if r else down) if ratios else answer))
        costs = [[cost(w - y) for w in wrong] for y in right]
        if right and wrong and o.objective == "L1":
            of_prompts.append(mean([mean(row) for row in costs]))
        elif right and wrong:
            tops = [o.tau * math.log(mean([math.exp(c / o.tau) for c in row])) for row in costs]
            of_prompts.append(mean(tops))
    kl = mean([g if o.kl == "k1" else math.exp(-g) - 1 + g for g in gaps])
    hinge = {"constraint": o.beta * max(0.0, kl - o.delta) ** 2, "kl": o.beta * kl}
    return mean(of_prompts) + hinge.get(o.trust, 0.0)


BY_HAND = {
    "pretrain": plain_by_hand,
    "sft": plain_by_hand,
    "reward": reward_by_hand,
    "dpo": dpo_by_hand,
    "dft": dft_by_hand,
    "grpo": grpo_by_hand,
    "ppo": ppo_by_hand,
    "trpo": trpo_by_hand,
    "disco": disco_by_hand,
}
