"""Everything that is wrong is said at once, each with its place and a remedy."""

from __future__ import annotations

import pytest

from ftkit.core.errors import UserError
from ftkit.recipe import load_recipe

BAD = """\
run: 5
seed: yes
learning_rate: 1e-4
method: {name: sft, loss: dynamc, kappa: 1}
data:
  train: [{path: 3}, 5]
  eval: {fraction: 2}
  max_length: '1_000'
  max_seq_length: 3
  overlong: split
model:
  init: {hidden_size: 3}
  dtype: fp16
  revision: 0123
  checkpointing: yes
train:
  learning_rate: fast
  betas: [0.9, 1.5]
  momentum: 0.9
  epochs: 2
  steps: 3
  warmup: -1
  until: {eval.exct: 1, eval.exact_match: high}
  min_lr: [1]
  "weight_decay:0.1":
sample: 5
verify: {name: exactly}
seed: 3
log: [wandb]
checkpoint: {evry: 3}
bogus: 1
"""

EXPECTED = """\
r.yaml:1:6 run: 5 is a number; write text: "5", in quotes
r.yaml:2:7 seed: 'yes' is text; write a whole number of at least 0
r.yaml:3:1 learning_rate: unknown key; write train.lr
r.yaml:4:27 method.loss: 'dynamc' is unknown; write one of nll, dynamic; did you mean 'dynamic'?
r.yaml:4:35 method.kappa: unknown key; the keys here are name, loss, average
r.yaml:6:18 data.train.0.path: 3 is a number; write text: "3", in quotes
r.yaml:6:22 data.train.1: 5 is a number; write a map of path, split, weight, format, columns, \
ask, limit
r.yaml:7:20 data.eval.fraction: 2 is out of range; write a number above 0 and below 1
r.yaml:8:15 data.max_length: '1_000' is text; write a whole number above 1: 1000, without quotes
r.yaml:9:3 data.max_seq_length: unknown key; did you mean 'max_length'?
r.yaml:10:13 data.overlong: only pretrain can split a row; write error, drop or truncate
r.yaml:11:1 model.tokenizer: missing, and model.init brings none; write model.tokenizer: \
a folder or hub name
r.yaml:12:3 model.init.architecture: names no model type; write one, such as qwen2 or llama
r.yaml:13:10 model.dtype: 'fp16' is unknown; write one of float32, bfloat16
r.yaml:14:13 model.revision: 0123 is a number; write text, or null: "0123", in quotes
r.yaml:15:18 model.checkpointing: 'yes' is text; write true or false: true
r.yaml:16:1 train.lr: missing; write a number above 0
r.yaml:17:3 train.learning_rate: unknown key; did you mean 'lr'?
r.yaml:18:16 train.betas.1: 1.5 is out of range; write a number of at least 0 and below 1
r.yaml:19:13 train.momentum: would not be read: a constant of sgd, and the optimizer is adamw; \
remove it
r.yaml:21:10 train.steps: both train.epochs and train.steps; keep one of them
r.yaml:22:11 train.warmup: -1 is out of range; write a number of at least 0
r.yaml:23:3 train.until: nothing is measured before the end; write eval.every: \
the steps between two of them
r.yaml:23:22 train.until.eval.exct: 'eval.exct' is not a measure; write one of \
eval.loss, eval.perplexity, eval.exact_match, eval.exact_match_sampled, eval.reward_accuracy, \
eval.reward_auc, eval.reward_hardest, eval.margin, eval.nll
r.yaml:23:43 train.until.eval.exact_match: 'high' is text; write a number
r.yaml:24:3 train.min_lr: a list of 1; write a number of at least 0 and at most 1
r.yaml:25:3 train.weight_decay:0.1: 'weight_decay:0.1' has no value; \
write a space after the colon: weight_decay: 0.1
r.yaml:26:9 sample: 5 is a number; \
write a map of engine, vllm, temperature, top_k, top_p, max_tokens, answers, logged, system, or null
r.yaml:27:16 verify.name: 'exactly' is unknown; write one of exact, numeric, math, proof, \
python, http, model, format, length; did you mean 'exact'?
r.yaml:28:1: the key 'seed' is already at r.yaml:2:1; remove one
r.yaml:29:7 log.0: 'wandb' is unknown; write one of jsonl, tensorboard
r.yaml:30:14 checkpoint.evry: unknown key; did you mean 'every'?
r.yaml:31:1 bogus: unknown key; the keys here are run, seed, method, data, model, train, \
sample, verify, eval, checkpoint, parallel, log
"""


def faults(*arguments):
    with pytest.raises(UserError) as caught:
        load_recipe(*arguments)
    return [str(fault) for fault in caught.value.faults]


def test_all_faults_come_at_once_in_the_order_of_their_lines(write):
    assert faults(write(BAD)) == EXPECTED.splitlines()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("lr: .inf", "r.yaml:9:7 train.lr: .inf is out of range; write a number above 0"),
        ("lr: true", "r.yaml:9:7 train.lr: true is a boolean; write a number above 0"),
        ("lr:", "r.yaml:9:6 train.lr: null, which is no value; write a number above 0"),
        (
            "lr: '1e-4'",
            "r.yaml:9:7 train.lr: '1e-4' is text; write a number above 0: 1e-4, wi",
        ),
        ("lr: 0", "r.yaml:9:7 train.lr: 0 is out of range; write a number above 0"),
        ("lr: {a: 1}", "r.yaml:9:3 train.lr: a map of 1; write a number above 0"),
        ("lr: 1\n  steps: 2.5", "r.yaml:10:10 train.steps: 2.5 is a number; write a whole number"),
        ("lr: 1\n  betas: [0.9]", "r.yaml:10:3 train.betas.1: missing; write a number of at least"),
        ("lr: 1\n  betas: [0, 0, 0]", "r.yaml:10:3 train.betas: a list of 3; write a list of 2"),
        (
            "lr: 1\n  betas: 0.9",
            "r.yaml:10:10 train.betas: 0.9 is a number; write a list of 2, ea",
        ),
        ("{lr:1}", "r.yaml:8:9 train.lr:1: 'lr:1' has no value; write a space after the colon"),
    ],
)
def test_a_wrong_value(write, valid, change, message):
    text = valid.replace("train:\n  lr: 1e-4", f"train:\n  {change}")
    if change.startswith("{"):
        text = valid.replace("train:\n  lr: 1e-4", f"train: {change}")
    assert any(fault.startswith(message) for fault in faults(write(text))), faults("r.yaml")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            "sft",
            "r.yaml:2:9 method: 'sft' is text; write {name: pretrain} or {name: sft} or "
            "{name: reward} or {name: dpo} or {name: dft}",
        ),
        (
            "",
            "r.yaml:2:8 method: null, which is no value; write {name: pretrain} or {name: sft} or "
            "{name: reward} or {name: dpo} or {name: dft}",
        ),
        (
            "{}",
            "r.yaml:2:1 method.name: missing; write {name: pretrain} or {name: sft} or "
            "{name: reward} or {name: dpo} or {name: dft}",
        ),
        (
            "{name: stf}",
            "r.yaml:2:16 method.name: 'stf' is unknown; write one of pretrain, sft, reward, dpo",
        ),
        ("{name: dfo, tau: 1}", "r.yaml:2:16 method.name: 'dfo' is unknown; write one of pretrain"),
        ("{name: 3}", "r.yaml:2:16 method.name: 3 is unknown; write one of pretrain, sft"),
        ("{name: [sft]}", "r.yaml:2:10 method.name: a list is unknown; write one of pretrain, sft"),
        (
            "{name: sft, form: nll}",
            "r.yaml:2:21 method.form: unknown key; the keys here are name",
        ),
        ("{name: sft, lss: nll}", "r.yaml:2:21 method.lss: unknown key; did you mean 'loss'?"),
    ],
)
def test_a_wrong_method_is_one_fault(write, valid, method, message):
    (fault,) = faults(write(valid.replace("method: {name: sft}", f"method: {method}")))
    assert fault.startswith(message)


def test_a_constant_of_another_method_is_called_so(write, valid):
    text = valid.replace("{name: sft}", "{name: pretrain, loss: nll}")
    (fault,) = faults(write(text))
    assert fault == (
        "r.yaml:2:26 method.loss: no constant of 'pretrain'; remove it, or take another method"
    )


@pytest.mark.parametrize(
    ("key", "written", "message"),
    [
        (
            "train",
            "5",
            "r.yaml:4:10 data.train: 5 is a number; write text or a list, each a m",
        ),
        (
            "train",
            "{path: a}",
            "r.yaml:4:3 data.train: a map of 1; write text or a list, each a",
        ),
        ("train", "[]", "r.yaml:4:3 data.train: an empty list; write a path, or at least one set"),
        ("eval", "5", "r.yaml:5:9 data.eval: 5 is a number; write text or a map of path, split,"),
        ("eval", "{fraction: 2}", "r.yaml:5:20 data.eval.fraction: 2 is out of range; write a"),
        ("eval", "{pth: a}", "r.yaml:5:3 data.eval.path: missing; write text"),
        ("eval", "{path: a, weight: 2}", "r.yaml:5:27 data.eval.weight: would not be read: held"),
    ],
)
def test_a_value_that_may_be_of_several_kinds_has_the_faults_of_one(
    write, valid, key, written, message
):
    before = "train: rows.jsonl" if key == "train" else "eval: held-out.jsonl"
    found = faults(write(valid.replace(before, f"{key}: {written}")))
    assert found[0].startswith(message)
    assert len(found) == 1 + ("pth" in written)


def test_faults_of_the_file_of_what_it_extends_and_of_the_command_line_come_together(write, valid):
    write(valid.replace("lr:", "lrr:"), "base.yaml")
    name = write("extends: base.yaml\nseed: x\nseed: y\n")
    assert faults(name, ["log=[x]", "nothing"]) == [
        "base.yaml:8:1 train.lr: missing; write a number above 0",
        "base.yaml:9:3 train.lrr: unknown key; did you mean 'lr'?",
        "command line: 'nothing' is no KEY=VALUE; write it as in train.lr=1e-4",
        "command line log.0: 'x' is unknown; write one of jsonl, tensorboard",
        "r.yaml:2:7 seed: 'x' is text; write a whole number of at least 0",
        "r.yaml:3:1: the key 'seed' is already at r.yaml:2:1; remove one",
    ]


def test_an_empty_map_lacks_every_section(write):
    assert faults(write("seed: 1\n")) == [
        "r.yaml:1:1 run: missing; write text",
        "r.yaml:1:1 method: missing; write {name: pretrain} or {name: sft} or "
        "{name: reward} or {name: dpo} or {name: dft} or {name: grpo} or {name: ppo} or "
        "{name: trpo} or {name: disco}",
        "r.yaml:1:1 data: missing; write a map of train, eval, pool, max_length, overlong, "
        "template",
        "r.yaml:1:1 model: missing; write a map of path, init, tokenizer, revision, dtype, "
        "attention, checkpointing, lora, quantize, trust_remote_code",
        "r.yaml:1:1 train: missing; write a map of prompts, updates, rollout_epochs, "
        "micro_tokens, epochs, steps, optimizer, lr, schedule, warmup, min_lr, max_grad_norm, "
        "weight_decay, betas, eps, "
        "momentum, matmul, threads, until",
    ]
