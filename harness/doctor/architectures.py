"""The tensors of each architecture, and the keys that it reads besides those that all have.

Facts read in `src/models/*.cpp` of ggml-org/llama.cpp@0c1e57098. An architecture that is not here is not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from harness.doctor.wanted import Wanted

RMS = "attention.layer_norm_rms_epsilon"
NORM = "attention.layer_norm_epsilon"

_NAMES = """
afmoe apertus arcee arctic arwkv7 baichuan bailingmoe bailingmoe2 bailingmoe3 bert bitnet bloom chameleon chatglm clip
codeshell cogvlm cohere2 cohere2moe command-r dbrx deci deepseek deepseek2 deepseek2-ocr deepseek32 deepseek4 dflash
dots1 dots3note dream eagle3 ernie4_5 ernie4_5-moe eurobert exaone exaone-moe exaone4 falcon falcon-h1 gemma
gemma-embedding gemma2 gemma3 gemma3n gemma4 gemma4-assistant glm-dsa glm4 glm4moe glm5-next gpt-oss gpt2 gptj gptneox
granite granite_swa granitehybrid granitemoe graniteswitch grok grovemoe hrm_text hunyuan-dense hunyuan-moe hunyuan_vl
hy_v3 hy_v4 internlm2 jais jais2 jamba jina-bert-v2 jina-bert-v3 kimi-k3 kimi-linear laguna lfm2 lfm2moe llada
llada-moe llama llama-embed llama4 maincoder mamba mamba2 maple mellum mimo2 minicpm minicpm3 minimax-01 minimax-m2
minimax-m3 mistral3 mistral4 modern-bert mpt muse-glimmer nanbeige nemotron nemotron_h nemotron_h_moe neo-bert
nomic-bert nomic-bert-moe olmo olmo2 olmoe openelm orion paddleocr pangu-embedded phi2 phi3 phimoe plamo plamo2 plamo3
plm pockettts qwen qwen2 qwen2moe qwen2vl qwen3 qwen35 qwen35moe qwen3moe qwen3next qwen3tts qwen3vl qwen3vlmoe
qwen4exp refact rnd1 rwkv6 rwkv6qwen2 rwkv7 seed_oss smallthinker smollm3 spark2_5 stablelm starcoder starcoder2 step35
t5 t5encoder talkie wavtokenizer-dec xverse
"""
# Values of general.architecture; any other is refused.
ENGINE_ARCHITECTURES = frozenset(_NAMES.split())


@dataclass(frozen=True)
class Architecture:
    """What llama.cpp asks of a file of an architecture.

    Attributes:
        tensors: Asks for its tensors.
        keys: The type of each key that it reads besides those that all have, without the architecture's prefix. `!`
            marks one that must be there; `or array` allows an array with a value a layer.
        windows: Whether some of its layers have a sliding window: `always`, `if given` a width, or `never`.
        experts: Whether it must have experts.
        rotates: How much of a head RoPE must turn: `all`, `some`, `a part apart`, which is not as wide as a head, or,
            where it has no RoPE, `none`.
        further_layers: Whether layers that predict further tokens may follow, whose tensors are not known here.
    """

    tensors: Callable[[Wanted], None]
    keys: Mapping[str, str] = field(default_factory=dict)
    windows: Literal["always", "if given", "never"] = "never"
    experts: bool = False
    rotates: Literal["all", "some", "a part apart", "none"] = "all"
    further_layers: bool = False


def _llama(wanted: Wanted) -> None:
    sizes = wanted.sizes
    _tied_ends(wanted)
    _rope_factors(wanted)
    for block in wanted.blocks():
        _llama_attention(wanted, block)
        wanted.may(f"{block}.attn_output.bias", sizes.embedding)
        wanted.norm(f"{block}.ffn_norm")
        if not sizes.experts:
            wanted.gated(block, bias=None)
            continue
        wanted.experts(block, sizes.feed_forward, gate_needed=False)
        if sizes.shared_feed_forward:
            wanted.shared_experts(block, sizes.shared_feed_forward)


def _tied_ends(wanted: Wanted) -> None:
    wanted.embedding()
    wanted.norm("output_norm")
    wanted.output()


def _llama_attention(wanted: Wanted, block: str) -> None:
    sizes = wanted.sizes
    wanted.norm(f"{block}.attn_norm")
    wanted.attention(block, sizes.queries, sizes.keys, sizes.values)
    wanted.matrix(f"{block}.attn_output", sizes.queries, sizes.embedding)


def _square_attention(wanted: Wanted, block: str, *, bias: bool | None = False) -> None:
    """Ask for queries as wide as the embedding, and for keys and values as wide as all values."""
    sizes = wanted.sizes
    wanted.attention(block, sizes.embedding, sizes.values, sizes.values)
    wanted.matrix(f"{block}.attn_output", sizes.embedding, sizes.embedding, bias=bias)


def _fused_attention(wanted: Wanted, block: str, *, bias: bool | None) -> None:
    sizes = wanted.sizes
    wanted.matrix(f"{block}.attn_qkv", sizes.embedding, sizes.embedding + 2 * sizes.values, bias=bias)
    wanted.matrix(f"{block}.attn_output", sizes.embedding, sizes.embedding, bias=bias)


def _rope_factors(wanted: Wanted) -> None:
    """Allow what RoPE's frequencies are divided by; with `longrope` the pair for short and long contexts."""
    names = (
        ("rope_factors_long.weight", "rope_factors_short.weight") if wanted.sizes.longrope else ("rope_freqs.weight",)
    )
    for name in names:
        wanted.may(name, wanted.sizes.rotated // 2)


def _qwen2(wanted: Wanted) -> None:
    _tied_ends(wanted)
    wanted.may("output.bias", wanted.sizes.vocabulary)
    for block in wanted.blocks():
        wanted.norm(f"{block}.attn_norm")
        _square_attention(wanted, block)
        wanted.norm(f"{block}.ffn_norm")
        wanted.gated(block)


def _qwen3_attention(wanted: Wanted, block: str) -> None:
    sizes = wanted.sizes
    wanted.norm(f"{block}.attn_norm")
    wanted.attention(block, sizes.queries, sizes.values, sizes.values)
    wanted.matrix(f"{block}.attn_output", sizes.queries, sizes.embedding)
    wanted.need(f"{block}.attn_q_norm.weight", sizes.key_length)
    wanted.need(f"{block}.attn_k_norm.weight", sizes.key_length)
    wanted.norm(f"{block}.ffn_norm")


def _qwen3(wanted: Wanted) -> None:
    _tied_ends(wanted)
    for block in wanted.blocks():
        _qwen3_attention(wanted, block)
        wanted.gated(block)
    wanted.may("cls.output.weight", wanted.sizes.embedding, wanted.sizes.labels)


def _qwen3moe(wanted: Wanted) -> None:
    _tied_ends(wanted)
    for block in wanted.blocks():
        _qwen3_attention(wanted, block)
        wanted.experts(block, _expert_width(wanted))


def _expert_width(wanted: Wanted) -> int:
    """Return an expert's width, which follows from the whole network's where the file does not say."""
    sizes = wanted.sizes
    return sizes.expert_feed_forward or sizes.feed_forward // (sizes.experts_used or 1)


def _qwen2moe(wanted: Wanted) -> None:
    sizes = wanted.sizes
    wanted.embedding()
    wanted.norm("output_norm")
    wanted.output(needed=True)
    for block in wanted.blocks():
        wanted.norm(f"{block}.attn_norm")
        _square_attention(wanted, block)
        wanted.norm(f"{block}.ffn_norm")
        wanted.experts(block, _expert_width(wanted))
        wanted.need(f"{block}.ffn_gate_inp_shexp.weight", sizes.embedding)
        wanted.shared_experts(block, sizes.shared_feed_forward or sizes.feed_forward)


def _gemma(wanted: Wanted) -> None:
    wanted.embedding()
    wanted.norm("output_norm")
    for block in wanted.blocks():
        _llama_attention(wanted, block)
        wanted.norm(f"{block}.ffn_norm")
        wanted.gated(block)


def _gemma2(wanted: Wanted) -> None:
    _gemma(wanted)
    for block in wanted.blocks():
        wanted.norm(f"{block}.post_attention_norm")
        wanted.norm(f"{block}.post_ffw_norm")


def _gemma3(wanted: Wanted) -> None:
    _gemma2(wanted)
    wanted.output()
    for block in wanted.blocks():
        wanted.need(f"{block}.attn_q_norm.weight", wanted.sizes.key_length)
        wanted.need(f"{block}.attn_k_norm.weight", wanted.sizes.key_length)


def _phi2(wanted: Wanted) -> None:
    sizes = wanted.sizes
    wanted.embedding()
    wanted.norm("output_norm", bias=True)
    wanted.matrix("output", sizes.embedding, sizes.vocabulary, bias=True)
    for block in wanted.blocks():
        wanted.norm(f"{block}.attn_norm", bias=True)
        _square_attention(wanted, block, bias=True)
        wanted.plain(block, bias=True)


def _phi3(wanted: Wanted) -> None:
    sizes = wanted.sizes
    _tied_ends(wanted)
    for name in ("rope_factors_long.weight", "rope_factors_short.weight"):
        wanted.may(name, sizes.rotated // 2)
    for block in wanted.blocks():
        wanted.norm(f"{block}.attn_norm")
        _square_attention(wanted, block)
        wanted.norm(f"{block}.ffn_norm")
        wanted.need(f"{block}.ffn_down.weight", sizes.feed_forward, sizes.embedding)
        wanted.need(f"{block}.ffn_up.weight", sizes.embedding, 2 * sizes.feed_forward)


def _gpt2(wanted: Wanted) -> None:
    sizes = wanted.sizes
    wanted.need("position_embd.weight", sizes.embedding, sizes.context)
    _bloom_like(wanted)


def _bloom_like(wanted: Wanted) -> None:
    wanted.embedding()
    wanted.norm("output_norm", bias=True)
    wanted.output()
    for block in wanted.blocks():
        wanted.norm(f"{block}.attn_norm", bias=True)
        _fused_attention(wanted, block, bias=True)
        wanted.norm(f"{block}.ffn_norm", bias=True)
        wanted.plain(block, bias=True)


def _bloom(wanted: Wanted) -> None:
    wanted.norm("token_embd_norm", bias=True)
    _bloom_like(wanted)


def _gptneox(wanted: Wanted) -> None:
    _bloom_like(wanted)
    wanted.optional.pop("output.weight")
    wanted.output(needed=True)


def _mpt(wanted: Wanted) -> None:
    sizes = wanted.sizes
    wanted.embedding()
    wanted.may("position_embd.weight", sizes.embedding, sizes.context)
    wanted.norm("output_norm", bias=None)
    wanted.output()
    for block in wanted.blocks():
        wanted.norm(f"{block}.attn_norm", bias=None)
        _fused_attention(wanted, block, bias=None)
        wanted.norm(f"{block}.ffn_norm", bias=None)
        wanted.plain(block, bias=None)
        for name in ("attn_q_norm", "attn_k_norm"):
            wanted.may(f"{block}.{name}.weight", sizes.embedding)
            wanted.may(f"{block}.{name}.bias", sizes.embedding)
        wanted.may(f"{block}.ffn.act.scales", sizes.feed_forward)


def _falcon(wanted: Wanted) -> None:
    sizes = wanted.sizes
    wanted.embedding()
    wanted.norm("output_norm", bias=True)
    wanted.output()
    for block in wanted.blocks():
        wanted.norm(f"{block}.attn_norm", bias=True)
        wanted.may(f"{block}.attn_norm_2.weight", sizes.embedding)
        wanted.may(f"{block}.attn_norm_2.bias", sizes.embedding)
        _fused_attention(wanted, block, bias=False)
        wanted.plain(block)


def _stablelm(wanted: Wanted) -> None:
    sizes = wanted.sizes
    wanted.embedding()
    wanted.norm("output_norm", bias=True)
    wanted.output(needed=True)
    for block in wanted.blocks():
        wanted.norm(f"{block}.attn_norm", bias=True)
        _square_attention(wanted, block)
        wanted.may(f"{block}.attn_q_norm.weight", sizes.key_length, sizes.heads)
        wanted.may(f"{block}.attn_k_norm.weight", sizes.key_length, sizes.kv_heads)
        wanted.may(f"{block}.ffn_norm.weight", sizes.embedding)
        wanted.may(f"{block}.ffn_norm.bias", sizes.embedding)
        wanted.gated(block)


def _starcoder2(wanted: Wanted) -> None:
    wanted.embedding()
    wanted.norm("output_norm", bias=True)
    wanted.output()
    for block in wanted.blocks():
        wanted.norm(f"{block}.attn_norm", bias=True)
        _square_attention(wanted, block, bias=True)
        wanted.norm(f"{block}.ffn_norm", bias=True)
        wanted.plain(block, bias=True)


def _nemotron(wanted: Wanted) -> None:
    wanted.embedding()
    wanted.norm("output_norm", bias=True)
    wanted.output(needed=True)
    for block in wanted.blocks():
        wanted.norm(f"{block}.attn_norm", bias=True)
        _square_attention(wanted, block, bias=None)
        wanted.norm(f"{block}.ffn_norm", bias=True)
        wanted.plain(block, bias=None)


def _command_r(wanted: Wanted) -> None:
    sizes = wanted.sizes
    _cohere2(wanted)
    if sizes.layers >= 64:
        for block in wanted.blocks():
            wanted.need(f"{block}.attn_q_norm.weight", sizes.key_length, sizes.heads)
            wanted.need(f"{block}.attn_k_norm.weight", sizes.key_length, sizes.kv_heads)


def _cohere2(wanted: Wanted) -> None:
    wanted.embedding()
    wanted.norm("output_norm")
    for block in wanted.blocks():
        wanted.norm(f"{block}.attn_norm")
        _square_attention(wanted, block)
        wanted.gated(block)


def _olmo(wanted: Wanted) -> None:
    wanted.embedding()
    wanted.output()
    for block in wanted.blocks():
        _square_attention(wanted, block)
        wanted.gated(block)


def _olmo2(wanted: Wanted) -> None:
    sizes = wanted.sizes
    wanted.embedding()
    wanted.norm("output_norm")
    wanted.output(needed=True)
    for block in wanted.blocks():
        _square_attention(wanted, block)
        wanted.norm(f"{block}.attn_q_norm")
        wanted.need(f"{block}.attn_k_norm.weight", sizes.kv_heads * (sizes.embedding // (sizes.heads or 1)))
        wanted.norm(f"{block}.post_attention_norm")
        wanted.gated(block)
        wanted.norm(f"{block}.post_ffw_norm")


def _olmoe(wanted: Wanted) -> None:
    wanted.embedding()
    wanted.norm("output_norm")
    wanted.output(needed=True)
    for block in wanted.blocks():
        wanted.norm(f"{block}.attn_norm")
        _square_attention(wanted, block)
        wanted.norm(f"{block}.attn_q_norm")
        # The loader wants it as wide as the embedding, and computes with it as wide as the keys.
        wanted.need(f"{block}.attn_k_norm.weight", wanted.sizes.values)
        wanted.norm(f"{block}.ffn_norm")
        wanted.experts(block, wanted.sizes.feed_forward)


def _internlm2(wanted: Wanted) -> None:
    wanted.embedding()
    wanted.norm("output_norm")
    wanted.output(needed=True)
    for block in wanted.blocks():
        wanted.norm(f"{block}.attn_norm")
        _square_attention(wanted, block)
        wanted.norm(f"{block}.ffn_norm")
        wanted.gated(block)


def _smollm3(wanted: Wanted) -> None:
    _tied_ends(wanted)
    for block in wanted.blocks():
        _llama_attention(wanted, block)
        wanted.norm(f"{block}.ffn_norm")
        wanted.gated(block)


def _arcee(wanted: Wanted) -> None:
    _tied_ends(wanted)
    wanted.may("rope_freqs.weight", wanted.sizes.rotated // 2)
    for block in wanted.blocks():
        _llama_attention(wanted, block)
        wanted.norm(f"{block}.ffn_norm")
        wanted.plain(block)


def _seed_oss(wanted: Wanted) -> None:
    sizes = wanted.sizes
    _tied_ends(wanted)
    for block in wanted.blocks():
        wanted.norm(f"{block}.attn_norm")
        wanted.attention(block, sizes.queries, sizes.keys, sizes.keys)
        wanted.matrix(f"{block}.attn_output", sizes.queries, sizes.embedding)
        wanted.norm(f"{block}.post_attention_norm")
        wanted.gated(block)


def _ernie(wanted: Wanted) -> None:
    sizes = wanted.sizes
    _tied_ends(wanted)
    for block in wanted.blocks():
        wanted.norm(f"{block}.attn_norm")
        wanted.attention(block, sizes.queries, sizes.values, sizes.values)
        wanted.matrix(f"{block}.attn_output", sizes.queries, sizes.embedding, bias=None)
        wanted.norm(f"{block}.ffn_norm")
        wanted.gated(block)


def _glm4(wanted: Wanted) -> None:
    sizes = wanted.sizes
    _tied_ends(wanted)
    for block in wanted.blocks():
        _llama_attention(wanted, block)
        wanted.norm(f"{block}.post_attention_norm")
        wanted.norm(f"{block}.ffn_norm")
        wanted.need(f"{block}.ffn_down.weight", sizes.feed_forward, sizes.embedding)
        wanted.need(f"{block}.ffn_up.weight", sizes.embedding, 2 * sizes.feed_forward)
        wanted.norm(f"{block}.post_ffw_norm")


def _gpt_oss(wanted: Wanted) -> None:
    sizes = wanted.sizes
    width, experts = sizes.expert_feed_forward, sizes.experts
    queries, keys = sizes.heads * sizes.rotated, sizes.kv_heads * sizes.rotated
    wanted.embedding()
    wanted.norm("output_norm")
    wanted.output(needed=True)
    for block in wanted.blocks():
        wanted.norm(f"{block}.attn_norm")
        wanted.norm(f"{block}.post_attention_norm")
        wanted.attention(block, queries, keys, keys)
        wanted.matrix(f"{block}.attn_output", queries, sizes.embedding, bias=True)
        wanted.need(f"{block}.attn_sinks.weight", sizes.heads)
        wanted.experts(block, width)
        wanted.need(f"{block}.ffn_gate_inp.bias", experts)
        wanted.need(f"{block}.ffn_gate_exps.bias", width, experts)
        wanted.need(f"{block}.ffn_up_exps.bias", width, experts)
        wanted.need(f"{block}.ffn_down_exps.bias", sizes.embedding, experts)


def _phimoe(wanted: Wanted) -> None:
    sizes = wanted.sizes
    wanted.embedding()
    wanted.norm("output_norm", bias=True)
    wanted.matrix("output", sizes.embedding, sizes.vocabulary, bias=True)
    for name in ("rope_factors_long.weight", "rope_factors_short.weight"):
        wanted.may(name, sizes.embedding // (sizes.heads or 1) // 2)
    for block in wanted.blocks():
        wanted.norm(f"{block}.attn_norm", bias=True)
        _square_attention(wanted, block, bias=True)
        wanted.norm(f"{block}.ffn_norm", bias=True)
        wanted.experts(block, sizes.feed_forward)


def _exaone(wanted: Wanted) -> None:
    _smollm3(wanted)
    wanted.may("rope_freqs.weight", wanted.sizes.rotated // 2)


def _orion(wanted: Wanted) -> None:
    wanted.embedding()
    wanted.norm("output_norm", bias=True)
    wanted.output(needed=True)
    for block in wanted.blocks():
        wanted.norm(f"{block}.attn_norm", bias=True)
        _square_attention(wanted, block)
        wanted.norm(f"{block}.ffn_norm", bias=True)
        wanted.gated(block)


def _deepseek(wanted: Wanted) -> None:
    sizes = wanted.sizes
    width = sizes.expert_feed_forward
    _tied_ends(wanted)
    for number, block in enumerate(wanted.blocks()):
        wanted.norm(f"{block}.attn_norm")
        _square_attention(wanted, block)
        wanted.norm(f"{block}.ffn_norm")
        if number < sizes.own.get("leading_dense_block_count", 0):
            wanted.gated(block)
        else:
            wanted.experts(block, width)
            wanted.shared_experts(block, width * sizes.own.get("expert_shared_count", 0))


def _deepseek2(wanted: Wanted) -> None:
    sizes, own = wanted.sizes, wanted.sizes.own
    width = sizes.expert_feed_forward
    # The lite models have these numbers of layers, and no matrix of low rank for queries.
    lite = sizes.layers in (26, 27) or (sizes.layers == 48 and sizes.vocabulary == 128_256)
    rank_q, rank = 0 if lite else own.get("attention.q_lora_rank", 0), own.get("attention.kv_lora_rank", 0)
    key, value = own.get("attention.key_length_mla", 0), own.get("attention.value_length_mla", 0)
    absorbed = bool(key and value)
    if not absorbed:
        key, value = sizes.key_length, sizes.value_length
    still = key - sizes.rotated
    _tied_ends(wanted)
    for number, block in enumerate(wanted.blocks()):
        wanted.norm(f"{block}.attn_norm")
        if rank_q:
            wanted.need(f"{block}.attn_q_a_norm.weight", rank_q)
            wanted.matrix(f"{block}.attn_q_a", sizes.embedding, rank_q)
            wanted.matrix(f"{block}.attn_q_b", rank_q, sizes.heads * key)
        else:
            wanted.matrix(f"{block}.attn_q", sizes.embedding, sizes.heads * key)
        wanted.need(f"{block}.attn_kv_a_norm.weight", rank)
        wanted.matrix(f"{block}.attn_kv_a_mqa", sizes.embedding, rank + sizes.rotated)
        if absorbed:
            wanted.need(f"{block}.attn_k_b.weight", still, rank, sizes.heads)
            wanted.need(f"{block}.attn_v_b.weight", rank, value, sizes.heads)
        else:
            wanted.matrix(f"{block}.attn_kv_b", rank, sizes.heads * (still + value))
        wanted.matrix(f"{block}.attn_output", sizes.heads * value, sizes.embedding)
        wanted.norm(f"{block}.ffn_norm")
        if number < own.get("leading_dense_block_count", 0):
            wanted.gated(block)
            continue
        wanted.experts(block, width)
        _gate_and_up_in_one(wanted, block, width)
        wanted.may(f"{block}.exp_probs_b.bias", sizes.experts)
        wanted.shared_experts(block, width * own.get("expert_shared_count", 0))


def _gate_and_up_in_one(wanted: Wanted, block: str, width: int) -> None:
    """Allow one tensor of the experts' gates and ups in place of two."""
    fused = f"{block}.ffn_gate_up_exps.weight"
    wanted.may(fused, wanted.sizes.embedding, 2 * width, wanted.sizes.experts)
    if fused in wanted.present:
        for name in ("ffn_gate_exps", "ffn_up_exps"):
            del wanted.required[f"{block}.{name}.weight"]


_RMS = {f"!{RMS}": "FLOAT32"}
_NORM = {f"!{NORM}": "FLOAT32"}
_WINDOW = {
    "attention.sliding_window": "UINT32",
    "attention.sliding_window_pattern": "UINT32 or window array",
    "rope.freq_base_swa": "FLOAT32",
}
_EXPERT_WIDTH = {"expert_feed_forward_length": "UINT32 or array"}
_SHARED = {"expert_shared_feed_forward_length": "UINT32"}
_GRANITE = {
    **_RMS,
    "!logit_scale": "FLOAT32",
    **dict.fromkeys(("residual_scale", "embedding_scale", "attention.scale"), "FLOAT32"),
    **_SHARED,
}
_YARN = ("rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "rope.scaling.yarn_log_multiplier")
_DEEPSEEK = {
    "leading_dense_block_count": "UINT32",
    "!expert_feed_forward_length": "UINT32 or array",
    "!expert_shared_count": "UINT32",
    "expert_weights_scale": "FLOAT32",
}
_CAPPED = {"attn_logit_softcapping": "FLOAT32", "final_logit_softcapping": "FLOAT32"}

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(_llama, {**_RMS, "vocab_size": "UINT32"}),
    "mistral3": Architecture(
        _llama, {**_RMS, "attention.temperature_scale": "FLOAT32", **dict.fromkeys(_YARN, "FLOAT32")}
    ),
    "granite": Architecture(_llama, _GRANITE),
    "granitemoe": Architecture(_llama, _GRANITE),
    "minicpm": Architecture(
        _llama, {**_RMS, **dict.fromkeys(("logit_scale", "residual_scale", "embedding_scale"), "FLOAT32")}
    ),
    "refact": Architecture(_llama, _RMS, rotates="none"),
    "qwen2": Architecture(_qwen2, _RMS),
    "qwen3": Architecture(_qwen3, _RMS),
    "qwen3moe": Architecture(_qwen3moe, {**_RMS, **_EXPERT_WIDTH}, experts=True),
    "qwen2moe": Architecture(_qwen2moe, {**_RMS, **_EXPERT_WIDTH, **_SHARED}, experts=True),
    "gemma": Architecture(_gemma, _RMS, rotates="some"),
    "gemma2": Architecture(_gemma2, {**_RMS, **_WINDOW, **_CAPPED}, windows="always", rotates="some"),
    "gemma3": Architecture(
        _gemma3, {**_RMS, **_WINDOW, "final_logit_softcapping": "FLOAT32"}, windows="if given", rotates="some"
    ),
    "phi2": Architecture(_phi2, _NORM, rotates="some"),
    "phi3": Architecture(_phi3, {**_RMS, "attention.sliding_window": "UINT32"}, rotates="some"),
    "phimoe": Architecture(_phimoe, _RMS, experts=True, rotates="some"),
    "gpt2": Architecture(_gpt2, _NORM, rotates="none"),
    "starcoder": Architecture(_gpt2, _NORM, rotates="none"),
    "bloom": Architecture(_bloom, _NORM, rotates="none"),
    "gptneox": Architecture(_gptneox, {**_NORM, "!use_parallel_residual": "BOOL"}, rotates="some"),
    "mpt": Architecture(
        _mpt, {**_NORM, "attention.clamp_kqv": "FLOAT32", "attention.max_alibi_bias": "FLOAT32"}, rotates="none"
    ),
    "falcon": Architecture(_falcon, _NORM),
    "stablelm": Architecture(_stablelm, _NORM, rotates="some"),
    "starcoder2": Architecture(_starcoder2, _NORM),
    "nemotron": Architecture(_nemotron, _NORM, rotates="some"),
    "command-r": Architecture(_command_r, {**_NORM, "logit_scale": "FLOAT32"}, rotates="some"),
    "cohere2": Architecture(
        _cohere2,
        {**_NORM, **_WINDOW, "!logit_scale": "FLOAT32", "!attention.sliding_window": "UINT32"},
        windows="always",
        rotates="some",
    ),
    "olmo": Architecture(_olmo, {**_NORM, "attention.clamp_kqv": "FLOAT32"}),
    "olmo2": Architecture(_olmo2, {**_RMS, **_WINDOW}, windows="if given"),
    "olmoe": Architecture(_olmoe, _RMS, experts=True),
    "internlm2": Architecture(_internlm2, _RMS),
    "baichuan": Architecture(_internlm2, _RMS),
    "xverse": Architecture(_internlm2, _RMS),
    "smollm3": Architecture(_smollm3, _RMS),
    "arcee": Architecture(_arcee, _RMS),
    "seed_oss": Architecture(_seed_oss, _RMS),
    "ernie4_5": Architecture(_ernie, {**_RMS, "rope.dimension_sections": "UINT32 or four"}),
    "glm4": Architecture(
        _glm4, {**_RMS, "rope.dimension_sections": "UINT32 or four"}, rotates="some", further_layers=True
    ),
    "exaone": Architecture(_exaone, _RMS),
    "orion": Architecture(_orion, _NORM),
    "deepseek": Architecture(_deepseek, {**_RMS, **_DEEPSEEK}, experts=True),
    "deepseek2": Architecture(
        _deepseek2,
        {
            **_RMS,
            **_DEEPSEEK,
            "vocab_size": "UINT32",
            "attention.q_lora_rank": "UINT32",
            "!attention.kv_lora_rank": "UINT32",
            **dict.fromkeys(("attention.key_length_mla", "attention.value_length_mla"), "UINT32"),
            "expert_weights_norm": "BOOL",
            "expert_gating_func": "UINT32",
            "rope.scaling.yarn_log_multiplier": "FLOAT32",
            "attention.temperature_scale": "FLOAT32",
            "attention.temperature_length": "UINT32",
        },
        experts=True,
        rotates="a part apart",
        further_layers=True,
    ),
    "gpt-oss": Architecture(
        _gpt_oss,
        {**_RMS, **_WINDOW, "!expert_feed_forward_length": "UINT32 or array", "!attention.sliding_window": "UINT32"},
        windows="always",
        experts=True,
    ),
}
