"""What a body holds: the closed form of a layer, and what a real pass holds on this CPU."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from ftkit.core.batch import collate
from ftkit.core.errors import UserError
from ftkit.core.group import Answer, Group
from ftkit.model import attention
from ftkit.model.layout import lay_out
from ftkit.model.policy import Policy
from ftkit.model.reader import bare
from ftkit.plan.body import Passing, held
from ftkit.plan.live import Live

D, F, H, KV, SIZE, LAYERS = 64, 176, 4, 2, 16, 3
VALUES = {
    "hidden_size": D,
    "intermediate_size": F,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": H,
    "num_key_value_heads": KV,
    "vocab_size": 50,
}
N, M = 600, 400
WHOLE = Passing(N, M, N, N)


def model_of(architecture="llama", device="meta", dtype=torch.float32, lora=False, **values):
    config = AutoConfig.for_model(architecture, **{**VALUES, **values})
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).train()
        if lora:
            own = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
            model = get_peft_model(model, own)
    return model


def checkpointed(model):
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


NORMS, ATTENDED, MLP = 2 * (3 * D + 1), 2 * H * SIZE + 2 * KV * SIZE + H, 4 * F
"""Numbers of a token that autograd keeps of a layer of Llama's: the input of both norms, one over
its root mean square, their product, that times the weight; q, k, v, what is attended to, and the
log-normalizer of each head; the gate before and after its activation, what it is multiplied by,
the product."""


def kept(layers):
    """Bytes, of which the first norm's input is none, as nothing before it is trained."""
    of_last_norm, angles = 2 * D + 1, 2 * SIZE
    each = layers * (NORMS + ATTENDED + MLP) - (D + 1) + of_last_norm + angles
    return 4 * (N * each + M * D) + 8 * M  # the states that are read, and which they are


@pytest.mark.parametrize("layers", [1, 3, 6, 7, 20])
def test_a_layer_keeps_what_its_equations_say(layers):
    found = held(model_of(num_hidden_layers=layers), WHOLE, fused=True, segments=True)
    assert found.saved == kept(layers)
    assert found.cached == 4 * N * layers * 2 * KV * SIZE


def test_checkpointing_keeps_the_input_of_each_layer():
    found = held(checkpointed(model_of()), WHOLE, fused=True, segments=True)
    of_last_norm, angles, positions, mask = 2 * D + 1, 2 * SIZE, 8 * N, 1
    inputs = 4 * (N * (LAYERS * D + of_last_norm + angles) + M * D) + positions + mask
    assert found.saved == inputs + 8 * M
    assert found.work > kept(2) - kept(1)  # one layer's, again


def test_copies_for_each_head_where_the_kernel_wants_them():
    fused, copied = (
        held(model_of(), WHOLE, fused=fused, segments=True).saved for fused in (True, False)
    )
    more = 4 * N * LAYERS * 2 * (H - KV) * SIZE
    assert copied - fused == more
    prefixes = held(model_of(), Passing(N, M, N, 2 * N), fused=False, segments=True).saved
    assert prefixes - copied == 4 * N * LAYERS * 2 * H * SIZE


def groups(answers):
    """Rows of several lengths."""
    draw = torch.Generator().manual_seed(0)

    def some(n):
        return tuple(torch.randint(50, (n,), generator=draw).tolist())

    return [
        Group(str(n), some(5 + n), tuple(Answer(some(20 + 3 * n + k)) for k in range(answers)))
        for n in range(12)
    ]


@pytest.mark.parametrize("answers", [1, 3])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"architecture": "qwen2", "num_key_value_heads": 4},
        {"architecture": "qwen3", "head_dim": 32},
        {"dtype": torch.bfloat16},
        {"lora": True},
        {"lora": True, "dtype": torch.bfloat16},
        {"checkpointed": True},
        {"checkpointed": True, "lora": True},
    ],
    ids=str,
)
def test_as_much_is_held_as_in_a_real_pass(values, answers):
    values = dict(values)
    change = checkpointed if values.pop("checkpointed", False) else lambda model: model
    attention.register()
    real = change(model_of(device="cpu", **values))
    bare(real).set_attn_implementation(attention.NAME)
    policy = Policy(real, None, 10**6)
    batch = collate(groups(answers))
    layout = lay_out(batch)
    bare(real).get_input_embeddings().weight.requires_grad_(requires_grad=False)
    for weight in real.parameters():
        if weight.requires_grad:
            weight.register_post_accumulate_grad_hook(lambda w: setattr(w, "grad", None))
    with Live([*real.parameters(), *real.buffers()]) as live:
        states = policy.hidden(batch, layout)
        saved = live.peak = live.now
        states.backward(torch.empty_like(states))
        work = live.peak - saved
    longest = max(segment.length for segment in layout.segments)
    passing = Passing(len(layout.tokens), len(layout.source), longest, len(layout.tokens))
    found = held(change(model_of(**values)), passing, fused=True, segments=True)
    assert found.saved == pytest.approx(saved, rel=0.03)
    assert found.work == pytest.approx(work, rel=0.25, abs=saved * 0.03)


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2", "phi3", "opt", "mixtral"])
def test_other_architectures_are_counted_too(architecture):
    with torch.device("meta"):
        config = AutoConfig.for_model(architecture)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).train()
    rows, stream = (
        held(model, Passing(64, 32, 16, 64), fused=False, segments=segments)
        for segments in (False, True)
    )
    assert rows.saved > 0
    assert stream.saved == pytest.approx(rows.saved, rel=0.02)


def test_an_architecture_that_does_not_run_without_memory_is_said():
    model = model_of()
    model.model.layers[0].forward = lambda x, **_: x * float(x.sum())
    with pytest.raises(UserError, match=r"what a llama model holds cannot be counted.*steps=1"):
        held(model, WHOLE, fused=True, segments=True)
