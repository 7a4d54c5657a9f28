"""Loading: what segments do not know goes by rows, what cannot be loaded is told."""

from __future__ import annotations

import huggingface_hub
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from ftkit.core.batch import collate
from ftkit.core.errors import UserError
from ftkit.model.config import LoraConfig, ModelConfig
from ftkit.model.load import load_policy
from ftkit.model.policy import causal_lm
from tests.tiny import SIZES, VOCABULARY, gradient, random_groups

QWEN = {"architecture": "qwen2", **SIZES["qwen2"]}
LAYERS = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
PLAIN = {key: value for key, value in LAYERS.items() if key != "head_dim"}


@pytest.fixture(scope="module")
def tokenizer():
    words = {f"<{i}>": i for i in range(VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<0>")),
        eos_token="<1>",
        pad_token="<2>",
    )


def load(tokenizer, **config):
    return load_policy(ModelConfig(**config), tokenizer, micro_tokens=1000)


@pytest.mark.parametrize(
    ("init", "reason"),
    [
        ({"architecture": "mistral", **LAYERS, "sliding_window": 4}, "sliding_window"),
        ({"architecture": "gemma2", **LAYERS, "sliding_window": 4}, "sliding"),
        ({"architecture": "granite", **PLAIN, "logits_scaling": 7.0}, "differ by"),
        (
            {
                "architecture": "cohere",
                **PLAIN,
                "logit_scale": 0.3,
            },
            "differ by",
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else v["architecture"],
)
def test_what_segments_do_not_know_goes_by_rows(tokenizer, caplog, init, reason):
    """The numbers are the model's own, and the reason is said."""
    policy = load(tokenizer, init=init)
    assert policy.way == "rows"
    assert reason in caplog.text
    group = random_groups(1, prompts=1, answers=1)[0]
    batch = collate([group])
    ids = torch.tensor([[*group.prompt, *group.answers[0].tokens]])
    logp = policy.model(ids).logits.log_softmax(-1)[0]
    p = len(group.prompt)
    for t in batch.mask[0, 0].nonzero().flatten().tolist():
        found = policy.log_probs(batch)[0, 0, t]
        assert found.item() == pytest.approx(logp[p + t - 1, ids[0, p + t]].item(), abs=1e-5)
    with pytest.raises(UserError, match=r"model\.attention"):
        load(tokenizer, init=init, attention="segments")


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama", "gpt2", "gpt_neox", "phi3"])
def test_common_architectures_go_by_segments(tokenizer, architecture):
    size = SIZES.get(architecture, PLAIN)
    if architecture == "gpt_neox":
        size = {k: v for k, v in size.items() if k != "num_key_value_heads"}
    assert load(tokenizer, init={"architecture": architecture, **size}).way == "segments"


def test_rows_where_they_are_asked_for(tokenizer):
    assert load(tokenizer, init=QWEN, attention="rows").way == "rows"


def test_random_weights_are_seeded(tokenizer):
    def weights(seed):
        policy = load_policy(ModelConfig(init=QWEN), tokenizer, micro_tokens=1, seed=seed)
        return torch.cat([p.detach().flatten() for p in policy.model.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_new_adapters_change_nothing_yet(tokenizer, tmp_path):
    """PITFALLS 22, 23: at step 0 the policy is its base, and every adapter gets a gradient."""
    base = load(tokenizer, init=QWEN)
    base.model.save_pretrained(tmp_path)
    policy = load(tokenizer, path=str(tmp_path), lora=LoraConfig(r=2), checkpointing=True)
    batch = collate(random_groups(1))
    assert torch.equal(policy.log_probs(batch), base.log_probs(batch))
    policy.forward(batch).sum().backward()
    trained = {n for n, p in policy.model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    lora_b = [p.grad for n, p in policy.model.named_parameters() if "lora_B" in n]
    assert all(g.abs().max() > 0 for g in lora_b)


def test_adapters_on_disk_are_part_of_the_model(tokenizer, tmp_path):
    base = load(tokenizer, init=QWEN)
    base.model.save_pretrained(tmp_path / "base")
    policy = load(tokenizer, path=str(tmp_path / "base"), lora=LoraConfig(r=2))
    with torch.no_grad():
        for name, p in policy.model.named_parameters():
            if "lora_B" in name:
                p.normal_()
    policy.model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    batch = collate(random_groups(1))
    expected = policy.log_probs(batch)
    config = ModelConfig(path=str(tmp_path / "adapter"))
    as_is = load_policy(config, tokenizer, micro_tokens=1000, trainable=False)
    assert torch.equal(as_is.log_probs(batch), expected)
    merged = load_policy(config, tokenizer, micro_tokens=1000)
    torch.testing.assert_close(merged.log_probs(batch), expected, atol=1e-5, rtol=1e-4)
    merged.forward(batch).sum().backward()
    assert len(gradient(causal_lm(merged.model))) > 10_000


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"init": {**QWEN, "architecture": "qwen22"}}, r"no model type.*qwen2"),
        ({"init": {**QWEN, "hiden_size": 3}}, r"hiden_size.*did you mean 'hidden_size'"),
        ({"init": {**QWEN, "num_attention_heads": 5}}, "cannot read a batch"),
        ({"init": {**QWEN, "vocab_size": 3}}, "50 tokens, the model only 3"),
        ({"init": QWEN, "lora": LoraConfig()}, r"model\.lora"),
        ({"path": "nowhere/at-all"}, "no model can be loaded"),
    ],
)
def test_what_cannot_be_loaded(tokenizer, monkeypatch, config, says):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=says):
        load(tokenizer, **config)


def test_a_folder_without_a_model(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        load(tokenizer, path=str(tmp_path))


def test_weights_of_another_shape_are_refused(tokenizer, tmp_path):
    from safetensors.torch import load_file, save_file

    load(tokenizer, init=QWEN).model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(n for n in weights if "q_proj.weight" in n)
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="1 weights are missing"):
        load(tokenizer, path=str(tmp_path))


def test_names_that_lora_does_not_find(tokenizer, tmp_path):
    load(tokenizer, init=QWEN).model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"model\.lora\.targets"):
        load(tokenizer, path=str(tmp_path), lora=LoraConfig(targets=["nothing"]))
