"""A vocabulary of 270 ids: every byte, some merges, and two control tokens."""

from __future__ import annotations

from harness.models.vocabulary import Vocabulary, from_tiktoken
from harness.models.vocabulary.pre_tokenizers import LLAMA_3

LONGER = (b"he", b"ll", b"hell", b"hello", b" w", b"or", b" wor", b"ld", b" world", b"aa", b"aaa", b"\xc3\xa9")
RANKS = {piece: rank for rank, piece in enumerate([*(bytes([byte]) for byte in range(256)), *LONGER])}
SPECIAL = {"<s>": 268, "<end>": 269}


def tiny(pattern: str = LLAMA_3, *, nfc: bool = False) -> Vocabulary:
    return from_tiktoken(RANKS, SPECIAL, pattern, nfc=nfc, bos=268, eos=269, adds_bos=True)
