"""Loading: what segments do not know goes by rows, what cannot be loaded is told."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ftkit.core.batch import collate
from ftkit.core.errors import UserError
from ftkit.model import weights
from ftkit.model.config import LoraConfig, ModelConfig
from ftkit.model.load import check_positions, load_policy
from ftkit.model.reader import bare
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
GPTJ = {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 64}
PLAIN = {key: value for key, value in LAYERS.items() if key != "head_dim"}


def load(tokenizer, **config):
    return load_policy(ModelConfig(**config), tokenizer, micro_tokens=1000)


OTHERS = {
    "mistral": ({**LAYERS, "sliding_window": 4}, "rows", "sliding_window"),
    "gemma2": ({**LAYERS, "sliding_window": 4}, "logits", "sliding"),
    "granite": ({**PLAIN, "logits_scaling": 7.0}, "logits", "logits_scaling"),
    "cohere": ({**PLAIN, "logit_scale": 0.3}, "logits", "logit_scale"),
    "phi": (PLAIN, "logits", "its head has a bias"),
    "bloom": ({"hidden_size": 32, "n_layer": 2, "n_head": 4}, "rows", "ValueError"),
    "gptj": (GPTJ, "logits", "its head has a bias"),
    "codegen": (GPTJ, "logits", "its head has a bias"),
    "mpt": ({"d_model": 32, "n_layers": 2, "n_heads": 4}, "rows", "differ by"),
}
"""Architecture: (configuration, the way it goes, why not by segments)."""


@pytest.mark.parametrize("architecture", OTHERS)
def test_what_segments_do_not_know_goes_its_own_way(tokenizer, caplog, architecture):
    """The numbers are those of the model as transformers loads it, and the reason is said."""
    values, way, reason = OTHERS[architecture]
    init = {"architecture": architecture, **values}
    policy = load(tokenizer, init=init)
    assert policy.way == way
    assert reason in caplog.text
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        architecture, **values, vocab_size=VOCABULARY, eos_token_id=1, pad_token_id=2
    )
    native = AutoModelForCausalLM.from_config(config).eval()
    native.load_state_dict(policy.model.state_dict())
    batch = collate(random_groups(1))
    found = policy.without_graph(batch)
    for b, k, t in batch.mask.nonzero().tolist():
        ids = torch.cat((batch.prompts[b], batch.tokens[b, k, : t + 1]))[None]
        expected = native(ids).logits[0, -2].log_softmax(-1)[ids[0, -1]]
        assert found[b, k, t].item() == pytest.approx(expected.item(), abs=1e-4)
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
    assert torch.equal(policy.without_graph(batch), base.without_graph(batch))
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
    expected = policy.without_graph(batch)
    config = ModelConfig(path=str(tmp_path / "adapter"))
    as_is = load_policy(config, tokenizer, micro_tokens=1000, trainable=False)
    assert torch.equal(as_is.without_graph(batch), expected)
    merged = load_policy(config, tokenizer, micro_tokens=1000)
    torch.testing.assert_close(merged.without_graph(batch), expected, atol=1e-5, rtol=1e-4)
    merged.forward(batch).sum().backward()
    assert len(gradient(bare(merged.model))) > 10_000


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


def test_adapters_are_trained_further(tokenizer, tmp_path):
    """A second run on a folder of adapters goes on with them, and refuses others."""
    load(tokenizer, init=QWEN).model.save_pretrained(tmp_path / "base")
    first = load(tokenizer, path=str(tmp_path / "base"), lora=LoraConfig(r=2, alpha=4.0))
    with torch.no_grad():
        for name, p in first.model.named_parameters():
            if "lora_B" in name:
                p.normal_()
    first.model.save_pretrained(tmp_path / "one", save_embedding_layers=False)
    again = load(tokenizer, path=str(tmp_path / "one"), lora=LoraConfig(r=2, alpha=4.0))
    batch = collate(random_groups(1))
    assert torch.equal(again.without_graph(batch), first.without_graph(batch))
    assert all("lora_" in n for n, p in again.model.named_parameters() if p.requires_grad)
    again.forward(batch).sum().backward()
    assert gradient(again.model).abs().max() > 0
    with pytest.raises(UserError, match=r"model\.lora\.r: is 3.*with 2"):
        load(tokenizer, path=str(tmp_path / "one"), lora=LoraConfig(r=3, alpha=4.0))


def test_an_adapter_on_the_head_is_learnt(tokenizer, tmp_path):
    values = {**QWEN, "tie_word_embeddings": False}
    load(tokenizer, init=values).model.save_pretrained(tmp_path)
    policy = load(tokenizer, path=str(tmp_path), lora=LoraConfig(r=2, targets=["lm_head"]))
    assert policy.way == "logits"
    policy.forward(collate(random_groups(1))).sum().backward()
    assert gradient(policy.model).abs().max() > 0


@pytest.mark.parametrize("damage", ["truncated", "resized"])
def test_a_damaged_folder_is_told(tokenizer, tmp_path, damage):
    load(tokenizer, init=QWEN).model.save_pretrained(tmp_path)
    if damage == "truncated":
        (tmp_path / "model.safetensors").write_bytes(b"xx")
    else:
        file = tmp_path / "config.json"
        file.write_text(file.read_text().replace('"hidden_size": 32', '"hidden_size": 64'))
    with pytest.raises(UserError, match="no model can be loaded"):
        load(tokenizer, path=str(tmp_path))


def test_rows_longer_than_learned_positions_are_refused(tokenizer, caplog):
    gpt2 = load(tokenizer, init={"architecture": "gpt2", **SIZES["gpt2"]}).model
    check_positions(gpt2, 128)
    with pytest.raises(UserError, match="up to 129 tokens, and the model knows 128"):
        check_positions(gpt2, 129)
    rotary = load(tokenizer, init={**QWEN, "max_position_embeddings": 64}).model
    check_positions(rotary, 65)
    assert "extrapolates" in caplog.text


def test_rslora_scales_by_the_root_of_the_rank(tokenizer, tmp_path):
    load(tokenizer, init=QWEN).model.save_pretrained(tmp_path)

    def scale(rslora):
        lora = LoraConfig(r=4, alpha=8.0, rslora=rslora, targets=["q_proj"])
        model = load(tokenizer, path=str(tmp_path), lora=lora).model
        return {m.scaling["default"] for m in model.modules() if hasattr(m, "lora_A")}

    assert scale(False) == {8.0 / 4}
    assert scale(True) == {8.0 / 4**0.5}


def test_revision_and_remote_code_are_asked_for_as_the_recipe_says(tokenizer, monkeypatch):
    asked = {}

    def find(path, **options):
        asked.update(found=(path, options["revision"], options["trust_remote_code"]))
        return AutoConfig.for_model("qwen2")

    def refuse(path, **options):
        asked.update(options, path=path)
        raise OSError("not here")

    monkeypatch.setattr(weights.AutoConfig, "from_pretrained", find)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    with pytest.raises(UserError, match="not here"):
        load(tokenizer, path="org/name", revision="abc", trust_remote_code=True)
    assert (asked["path"], asked["revision"], asked["trust_remote_code"]) == (
        "org/name",
        "abc",
        True,
    )
    assert asked["found"] == ("org/name", "abc", True)


def mapped_from(path):
    """The addresses at which a file is mapped."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    spans = [line.split()[0].split("-") for line in lines if line.endswith(str(path))]
    return [range(int(start, 16), int(end, 16)) for start, end in spans]


@pytest.mark.parametrize(("dtype", "mapped"), [("float32", True), ("bfloat16", False)])
def test_weights_on_the_host_are_mapped_where_they_are_stored_so(tokenizer, base, dtype, mapped):
    """So that processes which share them do not each need a copy (docs/cluster.md)."""
    config = ModelConfig(path=base, dtype=dtype)
    policy = load_policy(config, tokenizer, micro_tokens=9, device=torch.device("cpu"))
    places = mapped_from(Path(base) / "model.safetensors")
    found = {any(w.data_ptr() in place for place in places) for w in policy.model.parameters()}
    assert found == {mapped}
