"""Defects of llama-server's own settings: what it was started with makes it do other than a request asks.

Each gets the options of the stack's component and returns them with other attributes of `xllamacpp.CommonParams`; what
the stack sets stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.defects.defect import defect
from harness.stage import Stage
from harness.values import Json

_COMPONENT = "llama-server"
_OPTIONS: dict[str, Any] = {"place": "options", "component": _COMPONENT, "cause": "configuration"}
_NETWORK: dict[str, Any] = {**_OPTIONS, "stage": "inference", "kind": "engine"}
_SAMPLER: dict[str, Any] = {**_OPTIONS, "stage": "inference", "kind": "integration"}
_TEMPLATE: dict[str, Any] = {**_OPTIONS, "stage": "template", "kind": "integration"}
_PARSER: dict[str, Any] = {**_OPTIONS, "stage": "postprocess", "kind": "integration"}
_START: dict[str, Any] = {
    **_OPTIONS,
    "stage": "inference",
    "kind": "environment",
    "symptom": "loading failure",
    "cause": "environment",
}
_TOOLS = ("smollm2-135m-instruct-tools",)
_THINKING = ("smollm2-135m-instruct-thinking",)
# As llama.cpp numbers them.
_LINEAR, _YARN = 1, 2
_NOT_CAUSAL = 1
_Q4_0 = 2
_NO_FLASH_ATTENTION = 0
_FORMAT_NONE = 0


# The network


@defect(
    "eng-rope-base-10000-llama-server",
    sentence="The server was started with a RoPE base of 10,000, where the model has 100,000.",
    changed={"rope_freq_base": 10_000.0},
    **_NETWORK,
)
@defect(
    "eng-rope-base-50000-llama-server",
    sentence="The server was started with half of the model's RoPE base.",
    changed={"rope_freq_base": 50_000.0},
    **_NETWORK,
)
@defect(
    "eng-rope-base-1000000-llama-server",
    sentence="The server was started with ten times the model's RoPE base, as long contexts want it of other models.",
    changed={"rope_freq_base": 1_000_000.0},
    **_NETWORK,
)
@defect(
    "eng-rope-scale-half-llama-server",
    sentence="Positions count half, for a context that nobody uses.",
    changed={"rope_freq_scale": 0.5},
    **_NETWORK,
)
@defect(
    "eng-rope-scale-quarter-llama-server",
    sentence="Positions count a quarter, for a context that nobody uses.",
    changed={"rope_freq_scale": 0.25},
    **_NETWORK,
)
@defect(
    "eng-rope-scale-inverted-llama-server",
    sentence="The factor of linear RoPE scaling was given instead of its inverse: positions count twice.",
    changed={"rope_freq_scale": 2.0, "rope_scaling_type": _LINEAR},
    **_NETWORK,
)
@defect(
    "eng-yarn-forced-llama-server",
    sentence="YaRN is switched on for a model that was never stretched.",
    changed={"rope_scaling_type": _YARN, "rope_freq_scale": 0.25, "yarn_orig_ctx": 512},
    **_NETWORK,
)
@defect(
    "eng-yarn-attention-factor-llama-server",
    sentence="YaRN's attention factor is 2 instead of 1.",
    changed={"rope_scaling_type": _YARN, "yarn_attn_factor": 2.0},
    **_NETWORK,
)
@defect(
    "eng-yarn-extrapolation-llama-server",
    sentence="YaRN's extrapolation mix is 1 while nothing is extrapolated, beside a scale of a half.",
    changed={"rope_freq_scale": 0.5, "yarn_ext_factor": 1.0},
    **_NETWORK,
)
@defect(
    "eng-attention-not-causal-llama-server",
    sentence="Attention is not causal: a prompt's ids see those after them.",
    changed={"attention_type": _NOT_CAUSAL},
    **_NETWORK,
)
# The sampler
@defect(
    "smp-repeat-penalty-1.1-llama-server",
    sentence="The server's default repeat penalty of 1.1 applies to requests that ask for none.",
    changed={"sampling.penalty_repeat": 1.1},
    **_SAMPLER,
)
@defect(
    "smp-repeat-penalty-1.5-llama-server",
    sentence="The server's default repeat penalty of 1.5 applies to requests that ask for none.",
    changed={"sampling.penalty_repeat": 1.5},
    **_SAMPLER,
)
@defect(
    "smp-repeat-penalty-below-one-llama-server",
    sentence="A default repeat penalty of 0.7 rewards what was said already.",
    changed={"sampling.penalty_repeat": 0.7},
    **_SAMPLER,
)
@defect(
    "smp-frequency-penalty-llama-server",
    sentence="A default frequency penalty of 1.5 applies to requests that ask for none.",
    changed={"sampling.penalty_freq": 1.5},
    **_SAMPLER,
)
@defect(
    "smp-presence-penalty-llama-server",
    sentence="A default presence penalty of 1.5 applies to requests that ask for none.",
    changed={"sampling.penalty_present": 1.5},
    **_SAMPLER,
)
@defect(
    "smp-dry-llama-server",
    sentence="The DRY sampler is on for every request, with its usual multiplier of 0.8.",
    changed={"sampling.dry_multiplier": 0.8},
    **_SAMPLER,
)
@defect(
    "smp-dry-strong-llama-server",
    sentence="The DRY sampler is on for every request and forbids to repeat a single id.",
    changed={"sampling.dry_multiplier": 5.0, "sampling.dry_allowed_length": 1, "sampling.dry_base": 4.0},
    **_SAMPLER,
)
@defect(
    "smp-xtc-llama-server",
    sentence="The XTC sampler always takes the likeliest ids out.",
    changed={"sampling.xtc_probability": 1.0, "sampling.xtc_threshold": 0.05},
    **_SAMPLER,
)
@defect(
    "smp-typical-llama-server",
    sentence="Locally typical sampling with 0.2 is on for every request, and drops a likeliest id that is too likely.",
    changed={"sampling.typ_p": 0.2},
    **_SAMPLER,
)
@defect(
    "smp-dynamic-temperature-llama-server",
    sentence="A dynamic temperature of up to 2 is added to the one that the request asks for.",
    changed={"sampling.dynatemp_range": 2.0},
    **_SAMPLER,
)
@defect(
    "smp-top-k-1-llama-server",
    sentence="A default top_k of 1 makes every request greedy.",
    changed={"sampling.top_k": 1},
    **_SAMPLER,
)
@defect(
    "smp-min-p-llama-server",
    sentence="A default min_p of 0.9 makes sampling nearly greedy.",
    changed={"sampling.min_p": 0.9},
    **_SAMPLER,
)
@defect(
    "smp-mirostat-llama-server",
    sentence="Mirostat replaces the samplers that a request asks for.",
    changed={"sampling.mirostat": 2, "sampling.mirostat_tau": 1.0},
    **_SAMPLER,
)
@defect(
    "smp-temperature-lost-llama-server",
    sentence="The chain of samplers has no temperature: what the request asks for has no effect.",
    changed={"sampling.samplers": "penalties;top_k;top_p;min_p"},
    **_SAMPLER,
)
@defect(
    "smp-temperature-first-llama-server",
    sentence="The chain of samplers begins with the temperature instead of ending with it.",
    changed={"sampling.samplers": "temperature;penalties;top_k;typ_p;top_p;min_p"},
    **_SAMPLER,
)
@defect(
    "smp-top-p-lost-llama-server",
    sentence="The chain of samplers has no top_p: what the request asks for has no effect.",
    changed={"sampling.samplers": "penalties;top_k;temperature"},
    **_SAMPLER,
)
@defect(
    "smp-end-token-ignored-llama-server",
    sentence="The end token can never be chosen: every answer runs to its length limit.",
    changed={"sampling.ignore_eos": True},
    **_SAMPLER,
)
@defect(
    "smp-grammar-by-default-llama-server",
    sentence="A grammar that nobody asked for holds every answer to lower case.",
    touches=(Stage.POSTPROCESS,),
    changed={"sampling.grammar.grammar": "root ::= [a-z ]*", "sampling.grammar.type": 1},
    **_SAMPLER,
)
@defect(
    "smp-reasoning-budget-zero-llama-server",
    sentence="The server's reasoning budget of 0 ends each reasoning block as soon as it begins.",
    models=_THINKING,
    changed={"sampling.reasoning_budget_tokens": 0},
    **_SAMPLER,
)
@defect(
    "eng-context-split-among-slots-llama-server",
    sentence="The context is shared out among 16 slots, so that each takes shorter prompts than the server was given.",
    changed={"n_parallel": 16, "kv_unified": False},
    **_SAMPLER,
)
@defect(
    "eng-embeddings-only-llama-server",
    sentence="The server was started for embeddings and refuses to complete anything.",
    changed={"embedding": True},
    **_SAMPLER,
)
# The template
@defect(
    "tpl-jinja-off-llama-server",
    sentence="Jinja is off: the prompt is built by a hand-written format that is guessed from the template.",
    references=("ggml-org/llama.cpp#12231", "ggml-org/llama.cpp#11866"),
    changed={"use_jinja": False},
    **_TEMPLATE,
)
@defect(
    "tpl-builtin-llama2-llama-server",
    sentence="The server was started with the built-in format of Llama 2.",
    references=("ggml-org/llama.cpp#9583",),
    changed={"use_jinja": False, "chat_template": "llama2"},
    **_TEMPLATE,
)
@defect(
    "tpl-builtin-llama3-llama-server",
    sentence="The server was started with the built-in format of Llama 3.",
    changed={"use_jinja": False, "chat_template": "llama3"},
    **_TEMPLATE,
)
@defect(
    "tpl-builtin-gemma-llama-server",
    sentence="The server was started with the built-in format of Gemma, which has no system role.",
    changed={"use_jinja": False, "chat_template": "gemma"},
    **_TEMPLATE,
)
@defect(
    "tpl-builtin-zephyr-llama-server",
    sentence="The server was started with the built-in format of Zephyr.",
    changed={"use_jinja": False, "chat_template": "zephyr"},
    **_TEMPLATE,
)
@defect(
    "tpl-builtin-vicuna-llama-server",
    sentence="The server was started with the built-in format of Vicuna, which is plain text.",
    changed={"use_jinja": False, "chat_template": "vicuna"},
    **_TEMPLATE,
)
@defect(
    "tpl-builtin-mistral-v7-llama-server",
    sentence="The server was started with the built-in format of Mistral v7.",
    changed={"use_jinja": False, "chat_template": "mistral-v7"},
    **_TEMPLATE,
)
@defect(
    "tpl-builtin-chatml-llama-server",
    sentence="The built-in ChatML replaces the model's own, which has a default system message.",
    changed={"use_jinja": False, "chat_template": "chatml"},
    **_TEMPLATE,
)
@defect(
    "tpl-prefill-off-llama-server",
    sentence="A last message of the assistant's that is to be continued is closed, and a new turn is opened.",
    models=_TOOLS,
    changed={"prefill_assistant": False},
    **_TEMPLATE,
)
@defect(
    "tpl-thinking-off-by-default-llama-server",
    sentence="The server tells every template that thinking is off, whatever its default is.",
    models=_THINKING,
    touches=(Stage.POSTPROCESS,),
    changed={"default_template_kwargs": {"enable_thinking": "false"}},
    **_TEMPLATE,
)
@defect(
    "tpl-reasoning-disabled-llama-server",
    sentence="The server was started with reasoning off, so templates get enable_thinking false.",
    models=_THINKING,
    touches=(Stage.POSTPROCESS,),
    changed={"enable_reasoning": 0},
    **_TEMPLATE,
)
# What is made of the ids
@defect(
    "pp-control-tokens-shown-llama-server",
    sentence="Control tokens are printed into the answer.",
    changed={"special": True},
    **_PARSER,
)
@defect(
    "pp-reasoning-in-content-llama-server",
    sentence="The reasoning format is none: reasoning stays in the content.",
    models=_THINKING,
    changed={"reasoning_format": _FORMAT_NONE},
    **_PARSER,
)
@defect(
    "pp-calls-not-parsed-llama-server",
    sentence="Every answer is parsed as plain content: tool calls stay text.",
    references=("abetlen/llama-cpp-python#1784",),
    models=_TOOLS,
    # A last message of the assistant's that is to be continued is then lost from the prompt.
    touches=(Stage.TEMPLATE,),
    changed={"force_pure_content_parser": True},
    **_PARSER,
)
@defect(
    "pp-reasoning-not-parsed-llama-server",
    sentence="Every answer is parsed as plain content: reasoning stays in it.",
    models=_THINKING,
    changed={"force_pure_content_parser": True},
    **_PARSER,
)
# The start
@defect(
    "env-cache-without-flash-attention-llama-server",
    sentence="A quantized V cache was asked for with flash attention off, which the engine cannot do.",
    changed={"cache_type_v": _Q4_0, "flash_attn_type": _NO_FLASH_ATTENTION},
    **_START,
)
@defect(
    "env-draft-model-missing-llama-server",
    sentence="The draft model for speculative decoding is not where the server was told.",
    changed={"speculative.draft.mparams.path": "missing.gguf", "speculative.types": [1]},
    **_START,
)
def parameters(options: Json, changed: Mapping[str, Any]) -> Json:
    """Start the server with other parameters."""
    return {**options, "parameters": {**options.get("parameters", {}), **changed}}


@defect(
    "eng-context-too-small-llama-server",
    sentence="The server was started with a context of 64: longer conversations are refused.",
    **_SAMPLER,
)
def context_too_small(options: Json) -> Json:
    """Start the server with a small context."""
    return {**options, "n_ctx": 64}


@defect(
    "env-model-file-empty-llama-server",
    sentence="The model's file is empty, as after a download that never began.",
    **{**_START, "kind": "artifact"},
)
def model_file_empty(options: Json) -> Json:
    """Serve a file without a byte in it."""
    return {**options, "file": "/dev/null"}
