"""Defects of llama-cpp-python's detokenizing and of its stop strings. Each is called with the child's `Engine`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.defects.defect import defect
from harness.stage import Stage

_COMPONENT = "llama-cpp-python"


def _detokenizing(engine: Any, edit: Callable[[bytes, Sequence[int]], bytes]) -> None:
    real = engine.llm.detokenize

    def detokenize(tokens: Sequence[int], prev_tokens: Any = None, special: bool = False) -> bytes:
        return edit(real(tokens, prev_tokens=prev_tokens, special=special), tokens)

    engine.llm.detokenize = detokenize


@defect(
    "pp-detokenized-special",
    stage=Stage.POSTPROCESS,
    kind="integration",
    component=_COMPONENT,
    sentence="The detokenizer is called with special=True: control tokens that the model generated are shown.",
    cause="API usage",
)
def special_shown(engine: Any) -> None:
    """Ask for the text of control tokens."""
    real = engine.llm.detokenize
    engine.llm.detokenize = lambda tokens, prev_tokens=None, special=True: real(  # noqa: ARG005
        tokens, prev_tokens=prev_tokens, special=True
    )


@defect(
    "tok-detok-first-char",
    stage=Stage.POSTPROCESS,
    kind="integration",
    component=_COMPONENT,
    sentence="The detokenizer drops the first byte of what it is given, be it a space or not.",
    references=("abetlen/llama-cpp-python#1375",),
    cause="tokenizer and text",
)
def first_byte_dropped(engine: Any) -> None:
    """Cut the first byte of every text."""
    _detokenizing(engine, lambda text, tokens: text[1:])  # noqa: ARG005


@defect(
    "pp-detokenized-stripped",
    stage=Stage.POSTPROCESS,
    kind="integration",
    component=_COMPONENT,
    sentence="The detokenizer strips the space that every text that it is given begins with.",
    cause="tokenizer and text",
)
def space_dropped(engine: Any) -> None:
    """Cut the first space of every text."""
    _detokenizing(engine, lambda text, tokens: text.removeprefix(b" "))  # noqa: ARG005


@defect(
    "tok-utf8-split",
    stage=Stage.POSTPROCESS,
    kind="integration",
    component=_COMPONENT,
    errors="ignore",
    sentence="The detokenizer decodes each token by itself: what is no whole character in it is lost.",
    references=("abetlen/llama-cpp-python#372", "abetlen/llama-cpp-python#118"),
    cause="tokenizer and text",
)
@defect(
    "tok-utf8-split-replaced",
    stage=Stage.POSTPROCESS,
    kind="integration",
    component=_COMPONENT,
    errors="replace",
    sentence="The detokenizer decodes each token by itself: what is no whole character in it becomes U+FFFD.",
    references=("ggml-org/llama.cpp#2231",),
    cause="tokenizer and text",
)
def decoded_apart(engine: Any, errors: str) -> None:
    """Decode id by id."""
    real = engine.llm.detokenize

    def detokenize(tokens: Sequence[int], prev_tokens: Any = None, special: bool = False) -> bytes:
        pieces = [real([one], prev_tokens=prev_tokens, special=special) for one in tokens]
        return "".join(piece.decode("utf-8", errors=errors) for piece in pieces).encode("utf-8")

    engine.llm.detokenize = detokenize


@defect(
    "pp-stop-not-passed",
    stage=Stage.POSTPROCESS,
    kind="integration",
    component=_COMPONENT,
    stop=None,
    sentence="The caller's stop strings do not reach the completion call.",
    references=("vllm-project/vllm#57052",),
    cause="API usage",
)
@defect(
    "pp-stop-first-letter",
    stage=Stage.POSTPROCESS,
    kind="integration",
    component=_COMPONENT,
    stop=1,
    sentence="A stop string is read as a list of letters: the first one ends the answer.",
    cause="API usage",
)
def stops_changed(engine: Any, stop: int | None) -> None:
    """Give the completion call no stop string, or so many characters of each."""
    real = engine._create_completion

    def create(**asked: Any) -> Any:
        given = asked.get("stop") or []
        short = [] if stop is None else [one[:stop] for one in ([given] if isinstance(given, str) else given)]
        return real(**{**asked, "stop": short})

    engine._create_completion = create
