"""The child's side: with which settings a `llama_cpp.Llama` has loaded its model."""

from __future__ import annotations

import inspect
from typing import Any, Final

import llama_cpp
from llama_cpp import llama_cpp as low_level

from harness import settings as names
from harness.components.llama_cpp_python._library import type_name
from harness.settings import SAMPLING, Scalar

OWN_FORMAT: Final = "chat_template.default"
"""What the binding calls the format that the file's template makes."""
SAMPLERS: Final = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")


def in_force(llm: Any, given_template: str | None) -> dict[str, Scalar]:
    """Return settings by their names.

    Args:
        llm: The `Llama`.
        given_template: The template that it is given in the stead of the file's.
    """
    model, context = llm.model, llm.context_params
    architecture = llm.metadata.get("general.architecture", "")
    found: dict[str, Scalar] = {
        names.SLOT: llm.n_ctx(),
        names.TRAINED: low_level.llama_model_n_ctx_train(model),
        names.VOCABULARY: llm.n_vocab(),
        names.WEIGHTS: low_level.llama_model_n_params(model),
        names.SIZE: low_level.llama_model_size(model),
        names.BOS: _text(llm, llm.token_bos()),
        names.EOS: _text(llm, llm.token_eos()),
        names.CACHE_K: type_name(context.type_k),
        names.CACHE_V: type_name(context.type_v),
        names.FLASH: context.flash_attn_type == low_level.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        names.LAYERS: 0 if not low_level.llama_supports_gpu_offload() else llm.model_params.n_gpu_layers,
    }
    base = context.rope_freq_base or llm.metadata.get(f"{architecture}.rope.freq_base")
    if base is not None:
        found[names.ROPE_BASE] = float(base)
    found[names.ROPE_SCALE] = context.rope_freq_scale or low_level.llama_model_rope_freq_scale_train(model)
    template = _template(llm, given_template)
    if template is not None:
        found[names.TEMPLATE] = template
    parameters = inspect.signature(llama_cpp.Llama.create_chat_completion).parameters
    for name in SAMPLERS:
        default = parameters[name].default if name in parameters else None
        if isinstance(default, int | float):
            found[f"{SAMPLING}{name}"] = default
    return found


def _template(llm: Any, given: str | None) -> str | None:
    """Return the template in force; None where the binding renders by a format of its own that it took it for."""
    if given is not None:
        return given
    own = llm.metadata.get("tokenizer.chat_template")
    if llm.chat_handler is not None:
        return None
    if llm.chat_format == OWN_FORMAT:
        return None if own is None else str(own)
    # Without a template it has a format of its own, by name.
    return str(llm.chat_format) if own is None else None


def _text(llm: Any, token: int) -> str:
    return str(llm.detokenize([token], special=True).decode("utf-8", "replace")) if token >= 0 else ""
