"""Defects between the prompt's text and the ids that the engine is fed."""

from __future__ import annotations

from collections.abc import Sequence

from harness.faults.defect import defect
from harness.faults.places import Tokenizing


@defect(
    "tok-parse-special-ignored",
    place="ids",
    sentence="The tokenizer is called without parse_special: control tokens become ordinary text.",
    cause="API usage",
    references=("ggml-org/llama.cpp#26309", "ggml-org/llama.cpp#12743"),
)
def parse_special_ignored(seen: Tokenizing) -> Sequence[int]:
    """Tokenize the prompt as plain text."""
    return seen.encode(seen.text, False)


@defect(
    "tok-double-bos",
    place="ids",
    sentence="A BOS is put before a prompt that has one already, or needs none.",
    cause="API usage",
    references=("abetlen/llama-cpp-python#1501", "ggml-org/llama.cpp#7332"),
)
def double_bos(seen: Tokenizing) -> Sequence[int]:
    """Put the BOS before the ids."""
    return seen.ids if seen.bos is None else (seen.bos, *seen.ids)
