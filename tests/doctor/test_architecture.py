from __future__ import annotations

import numpy as np
import pytest

from tests.doctor.models import METADATA, check, tensors, weights, write


def under(architecture):
    """The healthy hyper-parameters under another prefix."""
    moved = {
        key.replace("llama.", f"{architecture}.", 1): value
        for key, value in METADATA.items()
        if key.startswith("llama.")
    }
    return {**dict.fromkeys((key for key in METADATA if key.startswith("llama.")), None), **moved}


@pytest.mark.parametrize(
    ("name", "changes", "status", "found"),
    [
        ("architecture", {"general.architecture": None}, "bad", "general.architecture is missing"),
        ("architecture", {"general.architecture": "lama"}, "bad", "'lama' is unknown to llama.cpp"),
        ("architecture", {"general.architecture": 5}, "bad", "'general.architecture' is 5 (int), not a text"),
        ("hyper-parameters", {"llama.context_length": None}, "bad", "'llama.context_length' is missing"),
        ("hyper-parameters", {"llama.context_length": 0}, "bad", "'llama.context_length' is 0"),
        ("hyper-parameters", {"llama.context_length": -1}, "bad", "'llama.context_length' is -1"),
        ("hyper-parameters", {"llama.embedding_length": "32"}, "bad", "is '32' (str), not an integer"),
        ("hyper-parameters", {"llama.block_count": True}, "bad", "is True (bool), not an integer"),
        ("hyper-parameters", {"general.type": "mmproj"}, "unobserved", "general.type"),
        ("layers", {"llama.block_count": 3}, "bad", "block_count is 3, but there is no tensor blk.2.*"),
        ("layers", {"llama.block_count": 2**63}, "bad", f"block_count is {2**63}, but there is no tensor blk.2.*"),
        ("layers", {"llama.block_count": 1}, "bad", "block_count is 1, but there are tensors of layer 1"),
        ("layers", {"llama.block_count": None}, "unobserved", "does not declare block_count"),
        ("layers", {"split.count": 2}, "unobserved", "one shard"),
        (
            "embedding",
            {"llama.embedding_length": 64},
            "bad",
            "embedding_length is 64, but token_embd.weight has rows of 32",
        ),
        ("embedding", {"llama.embedding_length": None}, "ok", "8 rows of 32"),
        ("embedding", {"tokenizer.ggml.tokens": ["a", "b"]}, "bad", "2 tokens, but token_embd.weight has 8 rows"),
        ("attention heads", {"llama.attention.head_count_kv": 3}, "bad", "4 heads cannot share 3 key-value heads"),
        ("attention heads", {"llama.attention.head_count_kv": -2}, "bad", "4 heads cannot share -2"),
        ("attention heads", {"llama.attention.head_count": 5}, "bad", "embedding_length 32 is no multiple of 5 heads"),
        (
            "attention heads",
            {"llama.attention.head_count": 0},
            "bad",
            "head_count is 0, but there are attention tensors",
        ),
        ("attention heads", {"llama.attention.head_count": [4, 3]}, "bad", "3 heads cannot share 2"),
        (
            "attention heads",
            {"llama.attention.head_count": [4, 4], "llama.attention.head_count_kv": [2, 2, 2]},
            "bad",
            "2 entries",
        ),
        (
            "attention heads",
            {"llama.attention.head_count": [4, 4], "llama.attention.head_count_kv": [0, 2]},
            "ok",
            "4 heads",
        ),
        ("attention heads", {"llama.attention.head_count": ["x"]}, "bad", "head_count[0]' is 'x' (str)"),
        ("attention heads", {"llama.attention.head_count": 6, "llama.attention.key_length": 8}, "ok", "6 heads"),
        ("attention heads", {"llama.attention.head_count_kv": None}, "ok", "4 heads, 4 key-value heads"),
        ("attention heads", {"llama.attention.head_count": [4, 4]}, "ok", "4 heads, 2 key-value heads"),
        (
            "attention heads",
            {"llama.attention.head_count": -4, "llama.attention.head_count_kv": -2},
            "bad",
            "-4 heads cannot share -2",
        ),
        ("attention heads", {"llama.attention.head_count": None}, "unobserved", "does not declare"),
        ("rope", {"llama.rope.freq_base": None}, "warning", "the engine silently takes 10000"),
        ("rope", {"llama.rope.freq_base": None, "llama.rope.dimension_count": None}, "ok", "without rotary embeddings"),
        ("rope", {"llama.rope.dimension_count": None}, "ok", "base 10000"),
        ("rope", {"llama.rope.freq_base": 0.0}, "bad", "rope.freq_base is 0"),
        ("rope", {"llama.rope.freq_base": -1.0}, "bad", "rope.freq_base is -1"),
        ("rope", {"llama.rope.freq_base": float("nan")}, "bad", "is nan (float), not a finite number"),
        ("rope", {"llama.rope.freq_base": float("inf")}, "bad", "is inf (float), not a finite number"),
        ("rope", {"llama.rope.freq_base": 1.0}, "warning", "rope.freq_base is 1, far from"),
        ("rope", {"llama.rope.dimension_count": 7}, "bad", "rope.dimension_count is 7"),
        ("rope", {"llama.rope.dimension_count": 0}, "bad", "rope.dimension_count is 0"),
        ("rope", {"llama.rope.scaling.type": "lineal"}, "bad", "rope.scaling.type is 'lineal'"),
        ("rope", {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}, "ok", "yarn scaling by 4"),
        ("rope", {"llama.rope.scaling.factor": 0.0}, "bad", "rope.scaling.factor is 0"),
        ("rope", {"llama.rope.scaling.original_context_length": 0}, "bad", "original_context_length is 0"),
        ("norm epsilon", {"llama.attention.layer_norm_rms_epsilon": 0.0}, "bad", "layer_norm_rms_epsilon is 0"),
        ("norm epsilon", {"llama.attention.layer_norm_rms_epsilon": 0.1}, "bad", "layer_norm_rms_epsilon is 0.1"),
        ("norm epsilon", {"llama.attention.layer_norm_rms_epsilon": 1e-12}, "ok", "1e-12"),
        ("norm epsilon", {"llama.attention.layer_norm_rms_epsilon": None}, "bad", "there are norm tensors, but no"),
        (
            "norm epsilon",
            {"llama.attention.layer_norm_rms_epsilon": None, "llama.attention.layer_norm_epsilon": 1e-6},
            "ok",
            "1e-06",
        ),
    ],
)
def test_metadata(tmp_path, name, changes, status, found):
    judged = check(write(tmp_path / "m.gguf", changes), name)
    assert (judged.status, found in judged.found) == (status, True), judged
    assert bool(judged.advice) == (status in ("bad", "warning"))


@pytest.mark.parametrize(
    ("name", "changes", "status", "found"),
    [
        ("layers", dict.fromkeys(name for name in tensors() if "blk.0" in name), "bad", "no tensor blk.0.*"),
        ("layers", {f"blk.{'9' * 40}.x": np.ones(4, np.float32)}, "ok", "2, all present"),
        ("embedding", {"token_embd.weight": None}, "bad", "there is no tensor token_embd.weight"),
        ("embedding", {"token_embd.weight": np.ones(32, np.float32)}, "bad", "the shape [32], not two dimensions"),
        ("embedding", {"token_embd.weight": weights(8)[None]}, "ok", "8 rows of 32"),
        ("embedding", {"token_embd.weight": weights(9)}, "bad", "8 tokens, but token_embd.weight has 9 rows"),
    ],
)
def test_weights(tmp_path, name, changes, status, found):
    judged = check(write(tmp_path / "m.gguf", tensor_changes=changes), name)
    assert (judged.status, found in judged.found) == (status, True), judged


def test_a_state_space_model_needs_neither_heads_nor_rope(tmp_path):
    changes = {
        **under("mamba"),
        "general.architecture": "mamba",
        **dict.fromkeys(["mamba.attention.head_count", "mamba.attention.head_count_kv"]),
        **dict.fromkeys(["mamba.rope.freq_base", "mamba.rope.dimension_count"]),
    }
    path = write(tmp_path / "m.gguf", changes)
    assert check(path, "attention heads").status == "unobserved"
    assert check(path, "rope").status == "ok"
    without_attention = dict.fromkeys(name for name in tensors() if "attn" in name)
    path = write(tmp_path / "m.gguf", {**changes, "mamba.attention.head_count": 0}, without_attention)
    assert check(path, "attention heads").status == "ok"


def test_the_embedding_may_be_in_another_shard(tmp_path):
    path = write(tmp_path / "m.gguf", {"split.count": 2}, {"token_embd.weight": None})
    assert check(path, "embedding").status == "unobserved"


def test_without_norm_tensors_no_epsilon_is_missed(tmp_path):
    norms = [name for name in tensors() if "norm" in name]
    path = write(tmp_path / "m.gguf", {"llama.attention.layer_norm_rms_epsilon": None}, dict.fromkeys(norms))
    assert check(path, "norm epsilon").status == "unobserved"


def test_a_projector_has_hyper_parameters_of_its_own(tmp_path):
    path = write(tmp_path / "m.gguf", {"general.type": "mmproj"}, {"token_embd.weight": None})
    for name in ("hyper-parameters", "embedding", "attention heads", "rope", "norm epsilon"):
        assert check(path, name).status == "unobserved", name


def test_a_vocabulary_alone_needs_no_hyper_parameters(tmp_path):
    nothing = dict.fromkeys(key for key in METADATA if key.startswith("llama."))
    path = write(tmp_path / "m.gguf", nothing, dict.fromkeys(tensors()))
    assert check(path, "hyper-parameters").status == "unobserved"
    assert check(path, "keys").status == "ok"


def test_a_vocabulary_without_tensors_leaves_them_unobserved(tmp_path):
    path = write(tmp_path / "m.gguf", tensor_changes=dict.fromkeys(tensors()))
    for name in ("layers", "embedding", "tensor layout", "quantization", "tensor values", "zero tensors"):
        assert check(path, name).status == "unobserved", name
