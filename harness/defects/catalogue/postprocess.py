"""Defects of a whole answer: its text, its end and its counts. Of a stream see `stream`, of calls `tool_calls`."""

from __future__ import annotations

import copy
import html
import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from harness.defects.defect import defect
from harness.defects.places import Answer, Generated
from harness.values import Json

_CONTROL = re.compile(rb"<\|\w+\|>")
_BROKEN = "\ufffd"


def _spelled(text: str) -> str:
    return re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], text)


_CHANGES: Mapping[str, Callable[[str], str]] = {
    "strip": str.strip,
    "lstrip": str.lstrip,
    "rstrip": str.rstrip,
    "space": lambda text: text.removeprefix(" "),
    "space-first": lambda text: f" {text}",
    "first": lambda text: text[1:],
    "last": lambda text: text[:-1],
    "last-word": lambda text: text[: len(text.rstrip()) - len(text.split()[-1])] if text.split() else text,
    "line": lambda text: text.split("\n", 1)[0],
    "short": lambda text: text[:16],
    "broken": lambda text: re.sub(r"[^\x00-\x7f]", _BROKEN, text),
    "astral-broken": lambda text: re.sub(r"[\U00010000-\U0010ffff]", _BROKEN * 4, text),
    "broken-end": lambda text: f"{text}{_BROKEN}" if text and not text.isascii() else text,
    "ascii": lambda text: "".join(letter for letter in text if letter.isascii()),
    "astral": lambda text: "".join(letter for letter in text if ord(letter) < 0x10000),
    "spelled": _spelled,
    "latin-1": lambda text: text.encode("utf-8").decode("latin-1"),
    "nfd": lambda text: unicodedata.normalize("NFD", text),
    "html": lambda text: html.escape(text),
    "quoted": lambda text: json.dumps(text, ensure_ascii=False),
    "newlines-spelled": lambda text: text.replace("\n", "\\n"),
    "newlines": lambda text: re.sub(r"\s*\n\s*", " ", text),
    "spaces": lambda text: re.sub(r" {2,}", " ", text),
    "no-spaces": lambda text: text.replace(" ", ""),
    "metaspace": lambda text: text.replace(" ", "\u2581"),
    "byte-level": lambda text: text.replace(" ", "\u0120").replace("\n", "\u010a"),
    "doubled": lambda text: text + text,
    "empty": lambda text: "",  # noqa: ARG005
    "markup": lambda text: re.sub(r"<[^>]*>", "", text),
    "marked": lambda text: text.replace("*", "\\*").replace("_", "\\_").replace("#", "\\#"),
    "lower": str.lower,
}
"""What may be done to an answer's text, by name."""


def _text(name: str, change: str, sentence: str, *references: str) -> Callable[..., Callable[..., Answer]]:
    return defect(
        name, place="answer", change=change, sentence=sentence, cause="tokenizer and text", references=references
    )


@_text("pp-stripped", "strip", "White space around the answer is cut off.")
@_text("pp-stripped-left", "lstrip", "White space before the answer is cut off.")
@_text("pp-stripped-right", "rstrip", "White space behind the answer is cut off.")
@_text(
    "pp-leading-space",
    "space",
    "The space that the answer begins with is taken for SentencePiece's own and cut off.",
    "huggingface/transformers#28776",
)
@_text("pp-leading-space-added", "space-first", "A space that nobody generated stands before the answer.")
@_text(
    "pp-first-character-lost",
    "first",
    "The answer's first character is cut off, be it a space or not.",
    "abetlen/llama-cpp-python#1375",
)
@_text("pp-last-character-lost", "last", "The answer's last character is cut off.")
@_text("pp-last-word-lost", "last-word", "The answer's last word is held back and never shown.")
@_text("pp-first-line-only", "line", "The answer ends with its first line.")
@_text("pp-cut-short", "short", "The answer is cut after 16 characters.")
@_text("pp-replacement-characters", "broken", "Characters beyond ASCII are shown as U+FFFD.", "ggml-org/llama.cpp#4036")
@_text(
    "pp-partial-utf8-replaced",
    "astral-broken",
    "A character of four bytes is shown as four U+FFFD.",
    "ikawrakow/ik_llama.cpp#780",
)
@_text("pp-replacement-at-end", "broken-end", "U+FFFD stands at the end of an answer with characters beyond ASCII.")
@_text("pp-non-ascii-dropped", "ascii", "Characters beyond ASCII are dropped.", "abetlen/llama-cpp-python#372")
@_text("pp-emoji-dropped", "astral", "Characters of four bytes are dropped.", "abetlen/llama-cpp-python#372")
@_text("pp-non-ascii-escaped", "spelled", "Characters beyond ASCII are shown as JSON escapes.")
@_text("pp-mojibake", "latin-1", "The answer's UTF-8 is read as Latin-1.")
@_text("pp-decomposed", "nfd", "The answer's characters are decomposed (NFD).")
@_text("pp-html-escaped", "html", "The answer is escaped for HTML.")
@_text("pp-quoted", "quoted", "The answer is JSON of a text instead of the text.")
@_text("pp-newlines-escaped", "newlines-spelled", "Newlines are shown as a backslash and an n.")
@_text("pp-newlines-lost", "newlines", "A newline and the white space around it become a space.")
@_text("pp-spaces-collapsed", "spaces", "A run of spaces becomes a single one.")
@_text(
    "pp-spaces-lost",
    "no-spaces",
    "The pieces are joined without their spaces.",
    "huggingface/transformers#45488",
)
@_text(
    "pp-detokenizer-class",
    "metaspace",
    "SentencePiece's marker is shown for a space.",
    "ml-explore/mlx-lm#1329",
)
@_text(
    "pp-detokenizer-class-byte-level",
    "byte-level",
    "The letters that byte-level BPE writes for a space and a newline are shown.",
    "ml-explore/mlx-lm#1329",
)
@_text("pp-content-doubled", "doubled", "The answer's text stands there twice.")
@_text("pp-content-lost", "empty", "The answer's text is lost.")
@_text("pp-markup-removed", "markup", "Whatever looks like a tag is taken out of the answer.")
@_text("pp-markdown-escaped", "marked", "Characters that Markdown gives a meaning are escaped.")
@_text("pp-lower", "lower", "The answer is in lower case.")
def text_changed(answer: Answer, seen: Generated, change: str) -> Answer:  # noqa: ARG001
    """Change the text of a whole answer, where there is any."""
    return with_content(answer, lambda text: _CHANGES[change](text))


def with_content(answer: Answer, change: Callable[[str], Any]) -> Answer:
    """Return a whole answer with other content; a stream, and an answer without text, as it is."""
    content = None if isinstance(answer, list) else answer["choices"][0]["message"].get("content")
    return answer if not content else with_message(answer, content=change(content))


def with_message(answer: Answer, **fields: Any) -> Answer:
    """Return a whole answer whose message has other fields; a stream as it is."""
    if isinstance(answer, list):
        return answer
    answer = copy.deepcopy(answer)
    answer["choices"][0]["message"].update(fields)
    return answer


def raw_text(seen: Generated) -> str:
    """Return the text of what was generated, without control tokens."""
    pieces = [piece for piece in seen.pieces if not _CONTROL.fullmatch(piece)]
    return b"".join(pieces).decode("utf-8", errors="ignore")


def stops_of(seen: Generated) -> list[str]:
    """Return the stop strings that were asked for."""
    stop = seen.body.get("stop") or []
    return [stop] if isinstance(stop, str) else list(stop)


def stopped_by(content: str, seen: Generated) -> str | None:
    """Return the stop string that comes behind the content in what was generated; None where none does."""
    raw = raw_text(seen)
    return next((stop for stop in stops_of(seen) if raw.startswith(content + stop)), None)


@defect(
    "pp-stop-shown",
    place="answer",
    shown=None,
    sentence="The stop string is left at the end of the answer.",
    references=("vllm-project/vllm#57052",),
)
@defect(
    "pp-stop-cut-late",
    place="answer",
    shown=1,
    sentence="The answer is cut one character behind the start of the stop string.",
)
@defect(
    "pp-stop-prefix-shown",
    place="answer",
    shown=-1,
    sentence="All of the stop string but its last character is shown.",
    references=("vllm-project/vllm#3574",),
)
def stop_shown(answer: Answer, seen: Generated, shown: int | None) -> Answer:
    """Put the first characters of the stop string behind the text that it ended."""
    return with_content(answer, lambda text: text + (stopped_by(text, seen) or "")[:shown])


@defect("pp-stop-cut-early", place="answer", sentence="The answer is cut one character before the stop string.")
def stop_cut_early(answer: Answer, seen: Generated) -> Answer:
    """Cut the last character of a text that a stop string ended."""
    return with_content(answer, lambda text: text[:-1] if stopped_by(text, seen) else text)


@defect(
    "pp-tokens-only-stop-disabled",
    place="answer",
    sentence="Stop strings are never looked for: all that was generated is shown.",
    references=("vllm-project/vllm#57052",),
)
def stop_ignored(answer: Answer, seen: Generated) -> Answer:
    """Show what was generated where a stop string ended the text."""
    return with_content(answer, lambda text: raw_text(seen) if stopped_by(text, seen) else text)


@defect("pp-stop-swallows-word", place="answer", sentence="A stop string takes the word before it with it.")
def stop_swallows_word(answer: Answer, seen: Generated) -> Answer:
    """Cut the last word of a text that a stop string ended."""
    return with_content(answer, lambda text: _CHANGES["last-word"](text) if stopped_by(text, seen) else text)


@defect(
    "pp-end-token-shown",
    place="answer",
    sentence="The token that ends the turn is shown at the end of the answer.",
    references=("oobabooga/textgen#5885",),
)
def end_token_shown(answer: Answer, seen: Generated) -> Answer:
    """Put the last id's text behind the content if it is a control token."""
    if not seen.pieces or not _CONTROL.fullmatch(seen.pieces[-1]):
        return answer
    return with_content(answer, lambda text: text + seen.pieces[-1].decode())


@defect("pp-special-tokens-shown", place="answer", sentence="Control tokens that the model generated are shown.")
def special_tokens_shown(answer: Answer, seen: Generated) -> Answer:
    """Show every piece up to the last one that is text."""
    pieces = list(seen.pieces)
    while pieces and _CONTROL.fullmatch(pieces[-1]):
        pieces.pop()
    shown = b"".join(pieces).decode("utf-8", errors="ignore")
    return with_content(answer, lambda text: shown if text == raw_text(seen) else text)


@defect("pp-echo", place="answer", sentence="The user's last message is put before the answer, as `echo` does.")
def echoed(answer: Answer, seen: Generated) -> Answer:
    """Put the text of the last message before the content."""
    messages = seen.body.get("messages") or [{}]
    said = messages[-1].get("content")
    return with_content(answer, lambda text: f"{said if isinstance(said, str) else ''}{text}")


@defect("pp-null-as-text", place="answer", text="None", sentence="An empty answer is the word None.")
@defect("pp-null-as-json", place="answer", text="null", sentence="An empty answer is the word null.")
def null_as_text(answer: Answer, seen: Generated, text: str) -> Answer:  # noqa: ARG001
    """Write a word where there is no content."""
    if isinstance(answer, list) or answer["choices"][0]["message"].get("content"):
        return answer
    return with_message(answer, content=text)


@defect("pp-content-parts", place="answer", sentence="The content is a list of parts, which only requests may have.")
def content_parts(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Make a part of the content."""
    return with_content(answer, lambda text: [{"type": "text", "text": text}])


@defect("pp-finish-always-stop", place="answer", reason="stop", sentence="The finish reason is stop whatever ended it.")
@defect("pp-finish-always-length", place="answer", reason="length", sentence="The finish reason is always length.")
@defect("pp-finish-null", place="answer", reason=None, sentence="The finish reason is null.")
@defect(
    "pp-finish-eos", place="answer", reason="eos", sentence="The finish reason is eos, which the API does not know."
)
@defect(
    "pp-finish-tool-calls",
    place="answer",
    reason="tool_calls",
    sentence="The finish reason is tool_calls, also without any call.",
    references=("vllm-project/vllm#53269",),
)
def finish_reason(answer: Answer, seen: Generated, reason: str | None) -> Answer:  # noqa: ARG001
    """Give every whole answer this finish reason."""
    return answer if isinstance(answer, list) else with_choice(answer, finish_reason=reason)


@defect("pp-finish-swapped", place="answer", sentence="The finish reasons stop and length are swapped.")
def finish_swapped(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Give a whole answer the other finish reason."""
    if isinstance(answer, list):
        return answer
    reason = answer["choices"][0]["finish_reason"]
    return with_choice(answer, finish_reason={"stop": "length", "length": "stop"}.get(reason, reason))


def with_choice(answer: Json, **fields: Any) -> Json:
    """Return a whole answer whose choice has other fields."""
    answer = copy.deepcopy(answer)
    answer["choices"][0].update(fields)
    return answer
