"""What is read of the files of each architecture, and what is refused."""

import dataclasses

import numpy as np
import pytest

from harness.reference.weights import load_weights
from tests.reference.test_weights import refusal, write_gguf
from tests.reference.tiny_models import MODELS

TINY = {model.id: model for model in MODELS}


def written(tmp_path, name: str, special: dict | None = None, tensors: dict | None = None):
    """Write a tiny model with other keys (None: without it) and tensors (None: without it)."""
    model = TINY[name]
    keys = dataclasses.replace(model, special=model.special | (special or {})).keys
    changed = model.tensors() | (tensors or {})
    return write_gguf(
        tmp_path / "tiny.gguf",
        {key: value for key, value in keys.items() if value is not None},
        {name: value for name, value in changed.items() if value is not None},
        model.architecture,
    )


@pytest.mark.parametrize("name", TINY)
def test_every_weight_is_read_as_the_file_has_it(tmp_path, name):
    tensors = TINY[name].tensors()
    model = load_weights(written(tmp_path, name))
    fields = {"attn_qkv": ("attn_q", "attn_k", "attn_v"), "ffn_up": ("ffn_gate", "ffn_up")}
    fused = fields if TINY[name].architecture == "phi3" else {}
    read = 0
    for part in (part.removeprefix("blk.1.") for part in tensors if part.startswith("blk.1.")):
        field = part.removesuffix(".weight").removesuffix("_exps").replace(".bias", "_bias")
        arrays = [getattr(model.layers[1], one) for one in fused.get(field, (field,))]
        np.testing.assert_array_equal(np.concatenate(arrays), tensors[f"blk.1.{part}"])
        read += len(arrays)
    assert read == sum(array is not None for array in vars(model.layers[1]).values())


def test_fused_matrices_are_not_copied(tmp_path):
    layer = load_weights(written(tmp_path, "phi3 short")).layers[0]
    assert layer.attn_q.base is layer.attn_k.base is layer.attn_v.base is not None
    assert layer.ffn_gate.base is layer.ffn_up.base is not None
    assert layer.attn_v.flags.c_contiguous


@pytest.mark.parametrize(
    ("special", "windows"),
    [
        ({}, (5, 5, 5, 5, 5, 0, 5)),
        ({"attention.sliding_window_pattern": 3}, (5, 5, 0, 5, 5, 0, 5)),
        ({"attention.sliding_window_pattern": 1}, (0,) * 7),
        ({"attention.sliding_window_pattern": [1, 0, 0, 1, 0, 0, 1, 1]}, (5, 0, 0, 5, 0, 0, 5)),
        ({"attention.sliding_window": 0}, (0,) * 7),
    ],
)
def test_windows_of_gemma3(tmp_path, special, windows):
    assert load_weights(written(tmp_path, "gemma3", special)).config.windows == windows


@pytest.mark.parametrize("name", ["mistral", "phi3 short", "qwen2"])
def test_window_that_llama_cpp_does_not_read(tmp_path, name):
    path = written(tmp_path, name, {"attention.sliding_window": 5})
    assert load_weights(path).config.windows == (0, 0, 0)


def test_width_of_an_expert_that_is_not_declared(tmp_path):
    path = written(tmp_path, "qwen3moe", {"expert_feed_forward_length": None, "feed_forward_length": 72})
    assert load_weights(path).config.n_ff == 24


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("qwen2", "blk.0.attn_k.bias"),
        ("qwen3", "blk.1.attn_q_norm.weight"),
        ("qwen3moe", "blk.0.ffn_gate_inp.weight"),
        ("gemma3", "blk.6.post_ffw_norm.weight"),
        ("phi3 short", "blk.2.attn_qkv.weight"),
    ],
)
def test_missing_tensor(tmp_path, name, tensor):
    assert f"lacks the tensor {tensor}" in refusal(written(tmp_path, name, tensors={tensor: None}))


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("qwen2", "blk.0.attn_q_norm.weight"),
        ("qwen2", "output.bias"),
        ("qwen3", "blk.0.attn_q.bias"),
        ("qwen3", "rope_freqs.weight"),
        ("qwen3moe", "blk.0.exp_probs_b.bias"),
        ("qwen3moe", "blk.0.ffn_up_shexp.weight"),
        ("gemma3", "rope_factors_long.weight"),
        ("gemma3", "dense_2.weight"),
        ("phi3 short", "blk.0.ffn_gate.weight"),
        ("phi3 short", "rope_freqs.weight"),
    ],
)
def test_tensor_of_another_architecture(tmp_path, name, tensor):
    message = refusal(written(tmp_path, name, tensors={tensor: np.ones(8, dtype=np.float32)}))
    assert f"holds the tensor {tensor}" in message


@pytest.mark.parametrize(
    ("name", "tensor", "shape"),
    [
        ("qwen2", "blk.0.attn_q.bias", (24,)),
        ("qwen3", "blk.0.attn_k_norm.weight", (32,)),
        ("qwen3moe", "blk.1.ffn_down_exps.weight", (8, 24, 48)),
        ("phi3 short", "blk.0.ffn_up.weight", (40, 48)),
        ("phi3 long", "rope_factors_long.weight", (6,)),
    ],
)
def test_wrong_shape(tmp_path, name, tensor, shape):
    message = refusal(written(tmp_path, name, tensors={tensor: np.ones(shape, dtype=np.float32)}))
    assert f"tensor {tensor} has the shape {shape}" in message


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("gemma3", "attention.sliding_window", [5] * 7),
        ("gemma3", "attention.sliding_window_pattern", 0),
        ("gemma3", "attention.sliding_window_pattern", [True] * 6),
        ("gemma3", "attention.sliding_window_pattern", [2] * 7),
        ("gemma3", "final_logit_softcapping", -1.0),
        ("gemma3", "rope.dimension_count", 8),
        ("gemma3", "rope.freq_base_swa", 0.0),
        ("gemma3", "rope.scaling.factor", 0.0),
        ("gemma3", "rope.scaling.type", "yarn"),
        ("phi3 short", "rope.dimension_count", 7),
        ("phi3 short", "rope.dimension_count", 14),
        ("phi3 short", "rope.scaling.attn_factor", 0.0),
        ("phi3 short", "rope.scaling.original_context_length", 0),
        ("qwen2", "rope.dimension_count", 8),
        ("qwen3moe", "expert_count", 0),
        ("qwen3moe", "expert_used_count", 9),
    ],
)
def test_senseless_value(tmp_path, name, key, value):
    message = refusal(written(tmp_path, name, {key: value}))
    assert f"{TINY[name].architecture}.{key} = {value!r}" in message


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("gemma3", "attn_logit_softcapping", 50.0),
        ("gemma3", "attention.key_length_swa", 32),
        ("phi3 short", "rope.scaling.type", "yarn"),
        ("phi3 short", "rope.scaling.factor", 4.0),
        ("phi3 short", "expert_count", 16),
        ("qwen2", "pooling_type", 1),
        ("qwen2", "rope.scaling.original_context_length", 32768),
        ("qwen3", "rope.scaling.type", "yarn"),
        ("qwen3", "rope.freq_base_swa", 10000.0),
        ("qwen3moe", "expert_weights_scale", 2.5),
        ("qwen3moe", "expert_group_count", 2),
    ],
)
def test_declared_computation_that_is_not_implemented(tmp_path, name, key, value):
    message = refusal(written(tmp_path, name, {key: value}))
    architecture = TINY[name].architecture
    assert f"declares {architecture}.{key}" in message
    assert f"the reference implementation of {architecture}" in message


def test_experts_that_are_not_counted(tmp_path):
    assert "lacks the key qwen3moe.expert_count" in refusal(written(tmp_path, "qwen3moe", {"expert_count": None}))
