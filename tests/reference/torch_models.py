"""The tiny models in transformers, with random weights, and their conversion to GGUF as convert_hf_to_gguf does it."""

from __future__ import annotations

import gguf
import numpy as np
import torch
import transformers

from tests.reference.tiny_models import N_VOCAB, TinyModel

_CLASSES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    "qwen3moe": (transformers.Qwen3MoeConfig, transformers.Qwen3MoeForCausalLM),
    "gemma3": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM),
    "phi3": (transformers.Phi3Config, transformers.Phi3ForCausalLM),
}


def torch_model(model: TinyModel) -> torch.nn.Module:
    """Build the model in float32, every parameter random and large enough to move the logits."""
    kind = "mistral" if model.id == "mistral" else model.architecture
    make_config, make_model = _CLASSES[kind]
    config = make_config(
        vocab_size=N_VOCAB,
        num_hidden_layers=model.number("block_count"),
        max_position_embeddings=model.number("context_length"),
        hidden_size=model.number("embedding_length"),
        intermediate_size=model.number("feed_forward_length"),
        num_attention_heads=model.number("attention.head_count"),
        num_key_value_heads=model.number("attention.head_count_kv"),
        rms_norm_eps=model.number("attention.layer_norm_rms_epsilon"),
        tie_word_embeddings="output.weight" not in model.extra,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
        **({"head_dim": model.special["attention.key_length"]} if "attention.key_length" in model.special else {}),
        **_SPECIAL[kind](model),
    )
    config._attn_implementation = "eager"
    torch.manual_seed(3)
    made = make_model(config).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.normal_(0.0, 0.3)
            if name.endswith("norm.weight") and model.architecture != "gemma3":
                parameter.add_(1.0)
    return made


def _llama(model: TinyModel) -> dict:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return {"rope_parameters": scaling | {"original_max_position_embeddings": 64} | _theta(model)}


def _mistral(model: TinyModel) -> dict:
    # What the file says of a window llama.cpp does not read.
    return {"rope_parameters": {"rope_type": "default"} | _theta(model), "sliding_window": None}


def _qwen(model: TinyModel) -> dict:
    return {"rope_parameters": {"rope_type": "default"} | _theta(model)}


def _qwen3moe(model: TinyModel) -> dict:
    return _qwen(model) | {
        "num_experts": model.special["expert_count"],
        "num_experts_per_tok": model.special["expert_used_count"],
        "moe_intermediate_size": model.special["expert_feed_forward_length"],
        "norm_topk_prob": True,
    }


def _gemma3(model: TinyModel) -> dict:
    n_layer = model.number("block_count")
    default = [(i + 1) % 6 != 0 for i in range(n_layer)]
    local = model.special.get("attention.sliding_window_pattern", default)
    windowed = "attention.sliding_window" in model.special
    everywhere = {"rope_type": "default"} | _theta(model)
    if "rope.scaling.factor" in model.special:
        everywhere |= {"rope_type": "linear", "factor": model.special["rope.scaling.factor"]}
    swa_theta = model.special.get("rope.freq_base_swa", 10000.0)
    heads = model.number("attention.head_count")
    return {
        "layer_types": ["sliding_attention" if windowed and local[i] else "full_attention" for i in range(n_layer)],
        "sliding_window": model.special.get("attention.sliding_window", 4096),
        "rope_parameters": {
            "full_attention": everywhere,
            "sliding_attention": {"rope_type": "default", "rope_theta": swa_theta},
        },
        "query_pre_attn_scalar": model.number("embedding_length") // heads
        if n_layer == 62
        else model.special["attention.key_length"],
        "final_logit_softcapping": model.special.get("final_logit_softcapping"),
    }


def _phi3(model: TinyModel) -> dict:
    if "rope.dimension_count" not in model.special:
        return {"rope_parameters": {"rope_type": "default"} | _theta(model)}
    rng = np.random.default_rng(2)
    head_dim = model.number("embedding_length") // model.number("attention.head_count")
    original = model.special["rope.scaling.original_context_length"]
    scaling = {
        "rope_type": "longrope",
        "partial_rotary_factor": model.special["rope.dimension_count"] / head_dim,
        "original_max_position_embeddings": original,
        "factor": model.number("context_length") / original,
        "attention_factor": model.special["rope.scaling.attn_factor"],
        "long_factor": rng.uniform(1, 8, 4).tolist(),
        "short_factor": rng.uniform(1, 2, 4).tolist(),
    }
    # As with Mistral, llama.cpp disables the window that the file declares.
    return {
        "rope_parameters": scaling | _theta(model),
        "original_max_position_embeddings": original,
        "sliding_window": None,
    }


def _theta(model: TinyModel) -> dict:
    return {"rope_theta": model.number("rope.freq_base")}


_SPECIAL = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen,
    "qwen3": _qwen,
    "qwen3moe": _qwen3moe,
    "gemma3": _gemma3,
    "phi3": _phi3,
}


def converted(model: TinyModel, made: torch.nn.Module) -> dict[str, np.ndarray]:
    """Return the weights under GGUF's names, changed as llama.cpp's `conversion/<architecture>.py` changes them."""
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == model.architecture)
    names = gguf.get_tensor_name_map(architecture, model.number("block_count"))
    tensors: dict[str, np.ndarray] = {}
    for name, parameter in made.named_parameters():
        for part, value in _changed(model, name, parameter.detach().numpy()).items():
            tensors[names.get_name(part, try_suffixes=(".weight", ".bias"))] = np.ascontiguousarray(value)
    return tensors | _rope_factors(model, made)


def _changed(model: TinyModel, name: str, value: np.ndarray) -> dict[str, np.ndarray]:
    if model.architecture == "llama" and ("q_proj" in name or "k_proj" in name):
        heads = model.number("attention.head_count" if "q_proj" in name else "attention.head_count_kv")
        # The halves of each head's rows, which rotate together in transformers, become neighbours.
        return {name: value.reshape(heads, 2, -1, value.shape[-1]).swapaxes(1, 2).reshape(value.shape)}
    if model.architecture == "gemma3" and name.endswith("norm.weight"):
        return {name: value + 1}
    if name.endswith("experts.gate_up_proj"):
        gate, up = np.split(value, 2, axis=1)
        base = name.removesuffix("gate_up_proj")
        return {f"{base}gate_proj.weight": gate, f"{base}up_proj.weight": up}
    return {f"{name}.weight" if name.endswith("experts.down_proj") else name: value}


def _rope_factors(model: TinyModel, made: torch.nn.Module) -> dict[str, np.ndarray]:
    if "rope_freqs.weight" in model.extra:
        frequencies = made.model.rotary_emb.inv_freq.double().numpy()
        unscaled = model.number("rope.freq_base") ** (-np.arange(len(frequencies)) / len(frequencies))
        return {"rope_freqs.weight": (unscaled / frequencies).astype(np.float32)}
    scaling = made.config.rope_parameters
    kinds = [kind for kind in ("long", "short") if f"{kind}_factor" in scaling]
    return {f"rope_factors_{kind}.weight": np.float32(scaling[f"{kind}_factor"]) for kind in kinds}
