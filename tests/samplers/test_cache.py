from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import MistralConfig, Qwen2Config
from transformers.cache_utils import DynamicSlidingWindowLayer

from ftkit.samplers.cache import RowsLayer, new_cache

SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 5}


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 2**32)), min_size=1, max_size=6))
def test_it_is_concatenation_and_indexing(steps):
    """Whatever is appended, and whichever rows are repeated, reordered and dropped in between."""
    layer, rows = RowsLayer(), 3
    keys = values = torch.empty(rows, 2, 0, 4)
    for count, seed in steps:
        generator = torch.Generator().manual_seed(seed)
        new = torch.randn(2, rows, 2, count, 4, generator=generator)
        keys, values = torch.cat((keys, new[0]), 2), torch.cat((values, new[1]), 2)
        found = layer.update(new[0], new[1])
        assert torch.equal(found[0], keys)
        assert torch.equal(found[1], values)
        assert layer.get_seq_length() == keys.shape[2]
        size = int(torch.randint(1, 6, (), generator=generator))
        index = torch.randint(rows, (size,), generator=generator)
        layer.reorder_cache(index)
        keys, values, rows = keys[index], values[index], size


def test_a_token_is_written_in_place():
    layer = RowsLayer()
    layer.update(torch.zeros(2, 1, 10, 4), torch.zeros(2, 1, 10, 4))
    place = layer.keys.data_ptr()
    for _ in range(20):
        layer.update(torch.ones(2, 1, 1, 4), torch.ones(2, 1, 1, 4))
    assert layer.keys.data_ptr() == place


def test_windows_stay_windows():
    assert [type(layer) for layer in new_cache(Qwen2Config(**SIZES)).layers] == [RowsLayer] * 2
    layers = new_cache(MistralConfig(**SIZES, sliding_window=4)).layers
    assert [type(layer) for layer in layers] == [DynamicSlidingWindowLayer] * 2
