"""Defects of what is encoded apart, of control tokens that are encoded as text, and of characters without a token."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from harness.defects.defect import defect
from harness.defects.places import Tokenizing

_MARKER = re.compile(r"(<\|\w+\|>)")
_ROLE = re.compile(r"(?<=<\|im_start\|>)\w+\n")


@defect(
    "tok-lines-apart",
    place="ids",
    between=r"(?<=\n)",
    sentence="Each line is encoded by itself: merges across a newline are lost.",
    references=("ggml-org/llama.cpp#21343",),
)
@defect(
    "tok-words-apart",
    place="ids",
    between=r"(?<=\s)(?=\S)|(?<=\S)(?=\s)",
    sentence="Words are encoded without the space before them, which becomes a token of its own.",
)
@defect(
    "tok-gemma-tabs",
    place="ids",
    between=r"(?<=\s)(?=\s)",
    sentence="A run of white space is encoded character by character, not as its longest piece.",
    references=("ggml-org/llama.cpp#8338",),
)
@defect(
    "tok-client-server-split",
    place="ids",
    between=r"(?s)(?<=.)(?=.)",
    sentence="Another tokenizer than the one that sized the prompt: every character becomes a token of its own.",
    references=("SemiAnalysisAI/InferenceX#937",),
    symptom="poor performance",
)
@defect(
    "tok-punctuation-apart",
    place="ids",
    between=r"(?<=[^\w\s])(?=[^\w\s])",
    sentence="Each of several punctuation marks in a row is encoded by itself.",
)
def encoded_apart(seen: Tokenizing, between: str) -> Sequence[int]:
    """Encode what stands between the pattern's places by itself; control tokens are left whole."""
    segments: list[str] = []
    for part in _MARKER.split(seen.text):
        segments += [part] if _MARKER.fullmatch(part) else re.split(between, part)
    return tuple(one for segment in segments if segment for one in seen.encode(segment, True))


@defect(
    "tok-chunks-apart",
    place="ids",
    size=48,
    sentence="A long text is encoded in pieces of 48 characters: merges across their ends are lost.",
)
def chunks_apart(seen: Tokenizing, size: int) -> Sequence[int]:
    """Encode so many characters at a time; control tokens are left whole."""
    segments: list[str] = []
    for part in _MARKER.split(seen.text):
        whole = _MARKER.fullmatch(part)
        segments += [part] if whole else [part[at : at + size] for at in range(0, len(part), size)]
    return tuple(one for segment in segments if segment for one in seen.encode(segment, True))


@defect(
    "tok-messages-apart",
    place="ids",
    sentence="A message's head and its text are encoded apart: merges across the newline between them are lost.",
)
def messages_apart(seen: Tokenizing) -> Sequence[int]:
    """Encode up to the end of each head by itself."""
    ends = [0, *(found.end() for found in _ROLE.finditer(seen.text)), len(seen.text)]
    segments = [seen.text[start:end] for start, end in itertools.pairwise(ends)]
    return tuple(one for segment in segments if segment for one in seen.encode(segment, True))


@defect(
    "tok-end-token-as-text",
    place="ids",
    marker="<|im_end|>",
    sentence="The token that ends a turn is not known as a control token and becomes ordinary text.",
    references=("ggml-org/llama.cpp#12743",),
)
@defect(
    "tok-start-token-as-text",
    place="ids",
    marker="<|im_start|>",
    sentence="The token that opens a turn is not known as a control token and becomes ordinary text.",
    references=("ggml-org/llama.cpp#12743",),
)
def marker_as_text(seen: Tokenizing, marker: str) -> Sequence[int]:
    """Encode one control token as text, wherever it stands."""
    if marker not in seen.text:
        return seen.ids
    first, *others = seen.text.split(marker)
    spelled = seen.encode(marker, False)
    ids = [*seen.encode(first, True)] if first else []
    for part in others:
        ids += [*spelled, *(seen.encode(part, True) if part else ())]
    return ids


@defect(
    "tok-ugm-bytefallback",
    place="ids",
    instead="\ufffd",
    sentence="A character without a token of its own becomes an unknown one instead of its bytes.",
    references=("ggml-org/llama.cpp#28862",),
)
@defect(
    "tok-unknown-dropped",
    place="ids",
    instead="",
    sentence="A character without a token of its own is dropped instead of being spelled in bytes.",
    references=("ggml-org/llama.cpp#28862",),
)
def no_bytes(seen: Tokenizing, instead: str) -> Sequence[int]:
    """Replace characters that take more than one id."""
    known: dict[str, bool] = {}
    for letter in set(seen.text):
        known[letter] = letter.isascii() or len(seen.encode(letter, True)) == 1
    text = "".join(letter if known[letter] else instead for letter in seen.text)
    return seen.ids if text == seen.text else seen.encode(text, True)
