"""Frozen weights in 4 bits: a model of its own, the same in training, evaluation and on disk."""

from __future__ import annotations

import importlib.util
import json
import logging

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig

from ftkit.core.batch import collate
from ftkit.core.errors import UserError
from ftkit.model.config import LoraConfig, ModelConfig
from ftkit.model.fingerprint import model_fingerprint, reference_fingerprint
from ftkit.model.load import load_policy, load_scorer
from ftkit.model.quantize import FILE, check_installed, dequantized, form_of, loading
from ftkit.model.reader import bare
from ftkit.model.reference import adapters_off, is_base_of, load_reference
from ftkit.model.save import save_model
from ftkit.samplers.network import Network, network
from tests.tiny import SIZES, random_groups

LORA = LoraConfig(r=2, alpha=4.0)
HERE = importlib.util.find_spec("bitsandbytes") is not None
in_4_bits = pytest.mark.skipif(not HERE, reason="the extra `quantize` is not installed")
DTYPES = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])


def load(tokenizer, path, *, trainable=True, **config):
    values = {"path": str(path), **config}
    return load_policy(ModelConfig(**values), tokenizer, micro_tokens=1000, trainable=trainable)


def moved(policy):
    """Adapters some way from where they began."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, p in policy.model.named_parameters():
            if "lora_B" in name:
                p.normal_()
    return policy


@pytest.fixture
def qlora(tokenizer, base):
    return moved(load(tokenizer, base, quantize="nf4", lora=LORA))


@pytest.fixture
def batch():
    return collate(random_groups(1))


# before anything is loaded


def test_without_bitsandbytes_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"model.quantize: nf4.*pip install 'ftkit\[quantize\]'"):
        check_installed(ModelConfig(path="no/such", quantize="nf4", lora=LORA))
    check_installed(ModelConfig(path="no/such"))


def test_what_transformers_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    config = ModelConfig(path="x", quantize="nf4", dtype="bfloat16")
    found, cpu = AutoConfig.for_model("qwen2"), torch.device("cpu")
    told = loading(config, found, cpu, "model.path x")
    settings = told["quantization_config"]
    assert settings.load_in_4bit and settings.bnb_4bit_quant_type == "nf4"
    assert settings.bnb_4bit_use_double_quant
    assert settings.bnb_4bit_compute_dtype == torch.bfloat16
    assert told["device_map"] == {"": "cpu"}
    assert "device_map" not in loading(config, found, torch.device("cuda"), "model.path x")
    assert loading(ModelConfig(path="x"), found, cpu, "model.path x") == {}
    found.quantization_config = {"quant_method": "gptq"}
    with pytest.raises(UserError, match=r"model.path x: its weights are quantized already"):
        loading(config, found, cpu, "model.path x")


# in memory


@in_4_bits
@DTYPES
def test_linear_layers_alone_are_in_4_bits(tokenizer, base, dtype):
    policy = load(tokenizer, base, quantize="nf4", lora=LORA, dtype=dtype)
    plain = load(tokenizer, base, lora=LORA, dtype=dtype)
    whole = dict(plain.model.named_parameters())
    for name, p in policy.model.named_parameters():
        if ".layers." in name and name.endswith("base_layer.weight"):
            assert p.dtype == torch.uint8 and p.numel() == whole[name].numel() / 2
        else:  # embeddings, head, norms, biases and adapters
            assert p.dtype == whole[name].dtype and p.shape == whole[name].shape
        assert p.requires_grad == (".lora_" in name)
    assert type(bare(policy.model).get_output_embeddings()) is torch.nn.Linear
    assert policy.way == "segments"


@in_4_bits
@DTYPES
def test_it_is_one_function_and_another_one_than_in_16_bits(tokenizer, base, batch, dtype):
    policy = load(tokenizer, base, quantize="nf4", lora=LORA, dtype=dtype)
    values = policy.forward(batch)
    assert torch.equal(policy.forward(batch), values)
    policy.model.eval()
    assert torch.equal(policy.without_graph(batch), values)
    assert torch.equal(policy.model.train() and policy.forward(batch), values)
    apart = (load(tokenizer, base, dtype=dtype).without_graph(batch) - values).abs()
    assert 1e-3 < apart[batch.mask].mean() < 0.1


@in_4_bits
def test_cpus_of_another_kind_pack_nothing(qlora):
    """bitsandbytes' packed weights are for inference alone: no gradient passes them."""
    layers = [m for m in qlora.model.modules() if hasattr(m, "support_avx512bf16_for_cpu")]
    assert len(layers) == 14 and not any(m.support_avx512bf16_for_cpu for m in layers)


@in_4_bits
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_the_same_values_in_plain_layers(
    tokenizer, base, batch, checkpointing
):
    options = {"quantize": "nf4", "lora": LORA, "checkpointing": checkpointing}
    policy = moved(load(tokenizer, base, **options))
    policy.forward(batch).sum().backward()
    found = {n: p.grad for n, p in policy.model.named_parameters() if p.grad is not None}
    assert found and all(".lora_" in name and grad.any() for name, grad in found.items())
    values = policy.without_graph(batch)
    policy.model.zero_grad()
    policy.model = dequantized(policy.model)
    assert {n for n, p in policy.model.named_parameters() if p.requires_grad} == found.keys()
    torch.testing.assert_close(policy.without_graph(batch), values, rtol=1e-5, atol=1e-5)
    policy.forward(batch).sum().backward()
    for name, p in policy.model.named_parameters():
        if name in found:
            torch.testing.assert_close(p.grad, found[name], rtol=1e-3, atol=1e-5)
    assert form_of(policy.model) == "nf4"


@in_4_bits
def test_adapters_of_a_scorer_and_its_head(tokenizer, base, batch, tmp_path):
    config = ModelConfig(path=base, quantize="nf4", lora=LORA)
    scorer = moved(load_scorer(config, tokenizer, micro_tokens=1000))
    assert {p.dtype for p in scorer.model.parameters() if p.requires_grad} == {torch.float32}
    save_model(scorer, tmp_path / "run", [1])
    saved = ModelConfig(path=str(tmp_path / "run"))
    again = load_scorer(saved, tokenizer, micro_tokens=1000, trainable=False)
    assert form_of(again.model) == "nf4"
    assert torch.equal(again.without_graph(batch), scorer.without_graph(batch))


@in_4_bits
def test_our_decode_loop_calls_such_layers_as_modules(tokenizer, base):
    plain = load(tokenizer, base, quantize="nf4", trainable=False)
    parts = network(plain.model, 9)
    assert isinstance(parts, Network)
    assert parts.layers[0].q is plain.model.model.layers[0].self_attn.q_proj
    assert not isinstance(parts.head, torch.nn.Module)


@in_4_bits
def test_layers_of_another_kind_are_refused(tokenizer, tmp_path):
    config = ModelConfig(init={"architecture": "gpt2", **SIZES["gpt2"]})
    save_model(load_policy(config, tokenizer, micro_tokens=9), tmp_path / "gpt2", [1])
    with pytest.raises(UserError, match="GPT2LMHeadModel has not torch's linear layers"):
        load(tokenizer, tmp_path / "gpt2", quantize="nf4", lora=LORA)


@in_4_bits
def test_where_most_weights_are_not_in_4_bits_it_is_told(tokenizer, base, tmp_path, caplog):
    inside, outside = 4 * 16 * 16 + 3 * 16 * 8, 2 * 50 * 16 + 3 * 16
    sizes = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1}
    config = ModelConfig(init={"architecture": "llama", **SIZES["llama"], **sizes})
    save_model(load_policy(config, tokenizer, micro_tokens=9), tmp_path / "small", [1])
    with caplog.at_level(logging.WARNING, "ftkit"):
        load(tokenizer, base, quantize="nf4", trainable=False)
        assert "in 4 bits" not in caplog.text
        load(tokenizer, tmp_path / "small", quantize="nf4", trainable=False)
    share = inside / (inside + outside)
    assert f"only {100 * share:.0f} % of the weights are in 4 bits" in caplog.text


# names and references


@in_4_bits
def test_in_4_bits_it_has_a_name_of_its_own(tokenizer, base):
    whole = model_fingerprint(load(tokenizer, base).model)
    name = model_fingerprint(load(tokenizer, base, quantize="nf4", trainable=False).model)
    assert name != whole
    new = load(tokenizer, base, quantize="nf4", lora=LORA)
    assert reference_fingerprint(new) == name
    assert model_fingerprint(moved(new).model) != name
    halves = load(tokenizer, base, quantize="nf4", trainable=False, dtype="bfloat16")
    assert model_fingerprint(halves.model) not in {name, whole}


@in_4_bits
def test_with_adapters_off_it_is_the_base_in_4_bits(tokenizer, base, batch, qlora):
    like = ModelConfig(path=base, quantize="nf4", lora=LORA)
    reference = load_reference(base, like, tokenizer, 1000)
    assert is_base_of(like, qlora)
    with adapters_off(qlora):
        assert torch.equal(qlora.without_graph(batch), reference.without_graph(batch))
    assert not torch.equal(qlora.without_graph(batch), reference.without_graph(batch))
    assert not any(p.requires_grad for p in reference.model.parameters())


# on disk


@in_4_bits
@DTYPES
def test_what_is_written_is_read_back(tokenizer, base, batch, tmp_path, dtype):
    """The base in 4 bits again, whether the reader's recipe says so or not (LAWS L10)."""
    policy = moved(load(tokenizer, base, quantize="nf4", lora=LORA, dtype=dtype))
    values, folder = policy.without_graph(batch), tmp_path / "run"
    save_model(policy, folder, [1])
    assert json.loads((folder / FILE).read_text()) == {"base": "nf4"}
    assert all(".lora_" in name for name in load_file(folder / "adapter_model.safetensors"))
    again = load(tokenizer, folder, dtype=dtype, trainable=False)
    assert torch.equal(again.without_graph(batch), values)
    further = load(tokenizer, folder, dtype=dtype, quantize="nf4", lora=LORA)
    assert torch.equal(further.without_graph(batch), values)
    assert model_fingerprint(further.model) == model_fingerprint(policy.model)


@in_4_bits
def test_merged_for_training_it_has_the_values_of_4_bits(tokenizer, batch, qlora, tmp_path):
    save_model(qlora, tmp_path / "run", [1])
    merged = load(tokenizer, tmp_path / "run")
    assert all(p.requires_grad and p.is_floating_point() for p in merged.model.parameters())
    values = qlora.without_graph(batch)
    torch.testing.assert_close(merged.without_graph(batch), values, rtol=1e-4, atol=1e-4)
    assert reference_fingerprint(merged) == model_fingerprint(qlora.model)
    save_model(merged, tmp_path / "merged", [1])
    assert not (tmp_path / "merged" / FILE).exists()
    assert "quantization_config" not in (tmp_path / "merged" / "config.json").read_text()
    again = load(tokenizer, tmp_path / "merged", trainable=False)
    assert torch.equal(again.without_graph(batch), merged.without_graph(batch))


@in_4_bits
def test_adapters_stay_on_the_base_that_they_were_trained_on(
    tokenizer, base, qlora, tmp_path, caplog
):
    save_model(qlora, tmp_path / "run", [1])
    with pytest.raises(UserError, match=r"null, and .* a base in nf4; write nf4 to train them"):
        load(tokenizer, tmp_path / "run", lora=LORA)
    save_model(moved(load(tokenizer, base, lora=LORA)), tmp_path / "plain", [1])
    assert not (tmp_path / "plain" / FILE).exists()
    with caplog.at_level(logging.WARNING, "ftkit"):
        load(tokenizer, tmp_path / "plain", lora=LORA)
        assert "nothing says" not in caplog.text
        policy = load(tokenizer, tmp_path / "plain", lora=LORA, quantize="nf4")
    assert "put on a base in nf4, and nothing says that they were trained so" in caplog.text
    assert form_of(policy.model) == "nf4"
