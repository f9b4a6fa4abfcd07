"""The tokenizer and pre-tokenizer names that llama.cpp knows.

Facts read in `src/llama-vocab.cpp` of ggml-org/llama.cpp@0c1e57098, the version in llama-cpp-python 0.3.36.
"""

from __future__ import annotations

ENGINE_VERSION = "0c1e57098 (llama-cpp-python 0.3.36)"

# Values of tokenizer.ggml.model; any other is refused.
TOKENIZERS = frozenset(
    {"bert", "gemma4", "gpt2", "hybriddna", "llama", "no_vocab", "none", "plamo2", "rwkv", "t5", "test", "whitespace"}
)

# Byte-pair encoders. All of them need merges.
BPE_TOKENIZERS = frozenset({"gpt2", "hybriddna", "whitespace", "gemma4"})
# The exception: it tokenizes in its own way.
PRE_TOKENIZERS_WITHOUT_MERGES = frozenset({"kimi-k2"})
# Encoders whose tokens are ranked by score.
SCORED_TOKENIZERS = frozenset({"llama", "t5"})

_PRE_TOKENIZER_NAMES = """
a.x-4.0 afmoe bailingmoe bailingmoe2 bloom chameleon chatglm-bpe codeshell cohere2moe command-r dbrx deepseek-coder
deepseek-llm deepseek-r1-qwen deepseek-v3 exaone exaone-moe exaone4 f2llmv2 falcon falcon-h1 falcon3 gemma4 gigachat
glm4 glm5 gpt-2 gpt-4o gpt3-finnish granite-docling granite-embed-multi-311m granite-embed-multi-97m grok-2 hunyuan
hunyuan-dense hy_v4 jais jais-2 jina-de jina-es jina-v1-en jina-v2-code jina-v2-de jina-v2-es jina-v5-nano joyai-llm
kanana2 kimi-k2 kormo laguna lfm2 llada-moe llama-bpe llama-v3 llama3 llama4 megrez mellum mellum2 midm-2.0
minerva-7b minicpm5 minimax-m2 modern-bert mpt olmo phi-2 pixtral poro-chat qwen2 qwen35 refact roberta-bpe
sarvam-moe seed-coder smaug-bpe smollm solar-open spark2_5 stablelm2 starcoder superbpe talkie tekken tiny_aya
trillion ufakzeka viking whitespace youtu
"""
# Values of tokenizer.ggml.pre besides "default"; any other is refused.
PRE_TOKENIZERS = frozenset(_PRE_TOKENIZER_NAMES.split())

# What happens where tokenizer.ggml.add_bos_token is absent.
_TOKENIZERS_ADDING_BOS = frozenset({"llama", "bert"})
_PRE_TOKENIZERS_ADDING_BOS = frozenset(
    {
        *("chameleon", "falcon-h1", "falcon3", "gemma4", "granite-embed-multi-311m", "jina-v5-nano", "lfm2"),
        *("llama-bpe", "llama-v3", "llama3", "midm-2.0", "pixtral", "tekken"),
    }
)

# The ids taken where tokenizer.ggml.bos_token_id and eos_token_id are absent.
DEFAULT_BOS = {"llama": 1, "bert": 101, "gpt2": 11, "hybriddna": 11, "whitespace": 11, "plamo2": 1}
DEFAULT_EOS = {"llama": 2, "gpt2": 11, "hybriddna": 11, "whitespace": 11, "t5": 1, "plamo2": 2}


def adds_bos_by_default(tokenizer: str, pre_tokenizer: str) -> bool:
    """Return whether a BOS is prepended where the file does not say."""
    if tokenizer in BPE_TOKENIZERS:
        return tokenizer == "gemma4" or pre_tokenizer in _PRE_TOKENIZERS_ADDING_BOS
    return tokenizer in _TOKENIZERS_ADDING_BOS
