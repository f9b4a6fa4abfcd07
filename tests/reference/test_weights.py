"""Reading weights: what is read, and everything that is refused."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from harness.errors import ModelFileError
from harness.models.families.tiny import write_gguf
from harness.reference import weights
from harness.reference.architectures import ARCHITECTURES
from harness.reference.model_config import ModelConfig
from harness.reference.weights import load_weights

# A head's width is given and is not n_embd / n_head, so that nothing can mistake one for the other.
TINY_KEYS = {
    "llama.block_count": 2,
    "llama.context_length": 2048,
    "llama.embedding_length": 12,
    "llama.feed_forward_length": 10,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.key_length": 6,
    "llama.attention.value_length": 6,
    "llama.attention.layer_norm_rms_epsilon": 1e-3,
    "llama.rope.dimension_count": 6,
    "llama.rope.freq_base": 500.0,
    "llama.vocab_size": 11,
    "tokenizer.ggml.model": "no_vocab",
}
TINY_PARTS = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")


def tiny_shapes(n_embd: int = 12, n_ff: int = 10, q_width: int = 24) -> dict[str, tuple[int, ...]]:
    """Every tensor of the tiny model; other widths than the default have to be in the keys too."""
    layer = [(n_embd,), (q_width, n_embd), (12, n_embd), (12, n_embd), (n_embd, q_width)]
    layer += [(n_embd,), (n_ff, n_embd), (n_ff, n_embd), (n_embd, n_ff)]
    return {
        "token_embd.weight": (11, n_embd),
        "output_norm.weight": (n_embd,),
        "output.weight": (11, n_embd),
        "rope_freqs.weight": (3,),
        **{f"blk.{i}.{part}.weight": shape for i in range(2) for part, shape in zip(TINY_PARTS, layer, strict=True)},
    }


def tiny_tensors(shapes: dict | None = None) -> dict:
    """Random weights large enough that every part of the computation moves the logits."""
    rng = np.random.default_rng(1)
    tensors = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in (shapes or tiny_shapes()).items()}
    return {name: 1 + np.abs(tensor) if tensor.ndim == 1 else tensor for name, tensor in tensors.items()}


def refusal(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        load_weights(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_what_is_read(tmp_path):
    tensors = tiny_tensors()
    model = load_weights(write_gguf(tmp_path / "tiny.gguf", TINY_KEYS, tensors))
    assert model.config == ModelConfig(
        architecture=ARCHITECTURES["llama"],
        n_layer=2,
        n_embd=12,
        n_ff=10,
        n_head=4,
        n_head_kv=2,
        head_dim=6,
        attention_scale=6**-0.5,
        windows=(0, 0),
        rope_dim=6,
        rope_base=500.0,
        rope_scale=1.0,
        rope_base_swa=10000.0,
        rope_attn_factor=1.0,
        n_ctx_orig=2048,
        rms_eps=pytest.approx(1e-3),
        logit_softcap=0.0,
        n_expert=0,
        n_expert_used=0,
        n_vocab=11,
        n_ctx_train=2048,
    )
    np.testing.assert_array_equal(model.token_embd, tensors["token_embd.weight"])
    np.testing.assert_array_equal(model.output, tensors["output.weight"])
    np.testing.assert_array_equal(model.output_norm, tensors["output_norm.weight"])
    np.testing.assert_array_equal(model.rope_factors, tensors["rope_freqs.weight"])
    for i, layer in enumerate(model.layers):
        for part in TINY_PARTS:
            array = getattr(layer, part)
            np.testing.assert_array_equal(array, tensors[f"blk.{i}.{part}.weight"])
            assert type(array) is np.ndarray, "nothing may keep the file mapped"
            assert array.dtype == np.float32
            assert array.flags.c_contiguous
            assert array.flags.owndata


def test_defaults_and_tied_output(tmp_path):
    absent = {"head_count_kv", "key_length", "value_length", "dimension_count", "freq_base"}
    keys = {key: value for key, value in TINY_KEYS.items() if key.rpartition(".")[2] not in absent}
    keys |= {"llama.attention.head_count": 2, "llama.vocab_size": 99, "tokenizer.ggml.tokens": [*"abcdefghijk"]}
    tensors = tiny_tensors(tiny_shapes(q_width=12))
    del tensors["output.weight"], tensors["rope_freqs.weight"]
    model = load_weights(write_gguf(tmp_path / "tiny.gguf", keys, tensors))
    config = model.config
    assert (config.n_head_kv, config.head_dim, config.rope_dim, config.rope_base) == (2, 6, 6, 10000.0)
    assert config.n_vocab == 11, "engines count the entries and do not look at vocab_size"
    assert model.output is model.token_embd
    assert model.rope_factors is None


@pytest.mark.parametrize("type_name", ["F16", "BF16", "Q8_0", "Q4_1", "Q5_0"])
def test_types_are_dequantized_in_pieces(tmp_path, monkeypatch, type_name):
    monkeypatch.setattr(weights, "_CHUNK_ELEMENTS", 100)
    type_ = gguf.GGMLQuantizationType[type_name]
    keys = TINY_KEYS | {"llama.embedding_length": 32}
    tensors = tiny_tensors(tiny_shapes(n_embd=32))
    data = gguf.quants.quantize(np.random.default_rng(3).normal(size=(11, 32)).astype(np.float32), type_)
    norm = gguf.quants.quantize(np.random.default_rng(4).normal(size=32).astype(np.float32), type_)
    tensors |= {"token_embd.weight": (data, type_), "output_norm.weight": (norm, type_)}
    model = load_weights(write_gguf(tmp_path / "tiny.gguf", keys, tensors))
    np.testing.assert_array_equal(model.token_embd, gguf.quants.dequantize(data, type_))
    np.testing.assert_array_equal(model.output_norm, gguf.quants.dequantize(norm, type_))


@pytest.mark.parametrize(
    "key",
    [
        "llama.block_count",
        "llama.context_length",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon",
        "llama.vocab_size",
    ],
)
def test_missing_key(tmp_path, key):
    keys = {name: value for name, value in TINY_KEYS.items() if name != key}
    assert f"lacks the key {key}" in refusal(write_gguf(tmp_path / "tiny.gguf", keys, tiny_tensors()))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.block_count", 0),
        ("llama.block_count", "two"),
        ("llama.block_count", True),
        ("llama.attention.head_count", [4, 4]),
        ("llama.feed_forward_length", [10, 10]),
        ("llama.attention.head_count_kv", 3),
        ("llama.attention.value_length", 4),
        ("llama.rope.dimension_count", 4),
        ("llama.rope.freq_base", 0.0),
        ("llama.rope.freq_base", float("nan")),
        ("llama.attention.layer_norm_rms_epsilon", -0.5),
    ],
)
def test_senseless_value(tmp_path, key, value):
    message = refusal(write_gguf(tmp_path / "tiny.gguf", TINY_KEYS | {key: value}, tiny_tensors()))
    assert f"{key} = {value!r}" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.rope.scaling.type", "linear"),
        ("llama.rope.scaling.type", "yarn"),
        ("llama.rope.scaling.factor", 4.0),
        ("llama.rope.scale_linear", 2.0),
        ("llama.rope.scaling.attn_factor", 1.2),
        ("llama.rope.scaling.yarn_log_multiplier", 0.1),
        ("llama.attention.causal", False),
        ("llama.attention.clamp_kqv", 8.0),
        ("llama.attention.max_alibi_bias", 8.0),
        ("llama.attention.scale", 0.1),
        ("llama.attention.sliding_window_pattern", 6),
        ("llama.attn_logit_softcapping", 50.0),
        ("llama.final_logit_softcapping", 30.0),
        ("llama.logit_scale", 8.0),
        ("llama.embedding_scale", 12.0),
        ("llama.residual_scale", 0.2),
        ("llama.expert_count", 8),
        ("llama.a_key_of_the_future", 1),
    ],
)
def test_declared_computation_that_is_not_implemented(tmp_path, key, value):
    message = refusal(write_gguf(tmp_path / "tiny.gguf", TINY_KEYS | {key: value}, tiny_tensors()))
    assert f"declares {key}" in message


def test_values_that_change_nothing_are_accepted(tmp_path):
    keys = TINY_KEYS | {
        "llama.rope.scaling.type": "none",
        "llama.rope.scaling.factor": 1.0,
        "llama.attention.causal": True,
        "llama.expert_count": 0,
        # What Mistral's first version declares and llama.cpp does not read.
        "llama.attention.sliding_window": 4096,
        "llama.tensor_data_layout": "Meta AI original pth",
        "mradermacher.quantized_by": "somebody",
        "qwen2.logit_scale": 8.0,
        "split.count": 0,
    }
    load_weights(write_gguf(tmp_path / "tiny.gguf", keys, tiny_tensors()))


def test_other_architecture(tmp_path):
    message = refusal(write_gguf(tmp_path / "tiny.gguf", TINY_KEYS, tiny_tensors(), architecture="gpt2"))
    assert "general.architecture 'gpt2'" in message
    assert "knows 'gemma3', 'llama', 'phi3', 'qwen2', 'qwen3', 'qwen3moe'" in message


def test_part_of_a_split_model(tmp_path):
    message = refusal(write_gguf(tmp_path / "tiny.gguf", TINY_KEYS | {"split.count": 3}, tiny_tensors()))
    assert "split.count 3" in message


@pytest.mark.parametrize("name", ["token_embd.weight", "output_norm.weight", "blk.1.ffn_down.weight"])
def test_missing_tensor(tmp_path, name):
    tensors = tiny_tensors()
    del tensors[name]
    assert f"lacks the tensor {name}" in refusal(write_gguf(tmp_path / "tiny.gguf", TINY_KEYS, tensors))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("blk.0.attn_q.weight", (12, 24)),
        ("blk.1.attn_k.weight", (24, 12)),
        ("blk.0.attn_norm.weight", (11,)),
        ("output.weight", (10, 12)),
        ("rope_freqs.weight", (2,)),
        ("token_embd.weight", (12, 12)),
    ],
)
def test_wrong_shape(tmp_path, name, shape):
    tensors = tiny_tensors() | {name: np.ones(shape, dtype=np.float32)}
    message = refusal(write_gguf(tmp_path / "tiny.gguf", TINY_KEYS, tensors))
    assert f"tensor {name} has the shape {shape}" in message
    assert str(tiny_shapes()[name]) in message


@pytest.mark.parametrize(
    "name",
    [
        "blk.0.attn_q.bias",
        "blk.1.ffn_up.bias",
        "output.bias",
        "blk.0.attn_q_norm.weight",
        "blk.0.ffn_gate_inp.weight",
        "blk.0.attn_q.scale",
        "rope_factors_long.weight",
        "blk.2.attn_norm.weight",
    ],
)
def test_tensor_that_is_not_part_of_the_computation(tmp_path, name):
    tensors = tiny_tensors() | {name: np.ones(12, dtype=np.float32)}
    assert f"holds the tensor {name}" in refusal(write_gguf(tmp_path / "tiny.gguf", TINY_KEYS, tensors))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(tmp_path, value):
    tensors = tiny_tensors()
    tensors["blk.1.ffn_up.weight"][9, 11] = value
    message = refusal(write_gguf(tmp_path / "tiny.gguf", TINY_KEYS, tensors))
    assert "blk.1.ffn_up.weight holds values that are not finite" in message


def test_block_scale_that_is_not_finite(tmp_path):
    type_ = gguf.GGMLQuantizationType.Q8_0
    keys = TINY_KEYS | {"llama.feed_forward_length": 32}
    tensors = tiny_tensors(tiny_shapes(n_ff=32))
    data = gguf.quants.quantize(np.zeros((12, 32), dtype=np.float32), type_)
    data[0, :2] = np.frombuffer(np.float16(np.inf).tobytes(), dtype=np.uint8)
    tensors["blk.0.ffn_down.weight"] = (data, type_)
    message = refusal(write_gguf(tmp_path / "tiny.gguf", keys, tensors))
    assert "blk.0.ffn_down.weight holds values that are not finite" in message


def test_type_that_cannot_be_dequantized(tmp_path):
    tensors = tiny_tensors() | {"output_norm.weight": np.ones(12, dtype=np.int32)}
    message = refusal(write_gguf(tmp_path / "tiny.gguf", TINY_KEYS, tensors))
    assert "output_norm.weight has the type I32" in message


def test_no_file(tmp_path):
    assert "no model file" in refusal(tmp_path / "absent.gguf")


def test_not_gguf(tmp_path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"PK\3\4" + bytes(100))
    assert "not a GGUF file" in refusal(path)


@pytest.mark.parametrize("kept", [10, 200, 0.9, 0.999])
def test_truncated(tmp_path, kept):
    path = write_gguf(tmp_path / "tiny.gguf", TINY_KEYS, tiny_tensors())
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(len(content) * kept)])
    assert "truncated" in refusal(path)
