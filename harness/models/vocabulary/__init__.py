"""A vocabulary as a value, read from and written to the formats in which models carry one."""

from __future__ import annotations

from harness.models.vocabulary.read import from_gguf, from_tekken, from_tiktoken, from_tokenizer_json
from harness.models.vocabulary.value import Kind, Vocabulary
from harness.models.vocabulary.write import gguf_keys, tokenizer_json, write_gguf

__all__ = [
    "Kind",
    "Vocabulary",
    "from_gguf",
    "from_tekken",
    "from_tiktoken",
    "from_tokenizer_json",
    "gguf_keys",
    "tokenizer_json",
    "write_gguf",
]
