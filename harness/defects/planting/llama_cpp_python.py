"""Planting in llama-cpp-python, in the component's child process: each boundary of its real chat path."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from harness.defects.defect import Place
from harness.defects.places import Generated, Tokenizing, planted
from harness.process.owner import from_the_part, our_own, the_parts_own
from harness.process.upstream import private


def plant(engine: Any, place: str, function: str, arguments: Mapping[str, Any]) -> None:
    """Plant a defect in the child's `Engine`.

    Args:
        engine: What the child serves.
        place: Where; see `Place`.
        function: The defect's function, as `module:function`.
        arguments: Keywords for it.
    """
    _PLACES[Place(place)](engine, planted(function, arguments))


def _request(engine: Any, edit: Callable[..., Any]) -> None:
    """Change what the chat handler gives its formatter."""
    real = engine.formatter

    @_around(real)
    @our_own()
    def formatter(**given: Any) -> Any:
        own = {name: given.get(name) for name in ("messages", "tools", "tool_choice")}
        edited = edit(own)
        with the_parts_own():
            return real(**{**given, **edited})

    engine.formatter = formatter


def _environment(engine: Any, edit: Callable[..., Any]) -> None:
    """Change the environment of the formatter, and have its template compiled anew."""
    formatter = engine.formatter
    while hasattr(formatter, "__wrapped__"):
        formatter = formatter.__wrapped__
    environment = private(formatter, "_environment.environment", "llama_cpp")
    edit(environment)
    formatter._environment = environment.from_string(formatter.template)


def _prompt(engine: Any, edit: Callable[..., Any]) -> None:
    """Change the text that the formatter gives back."""
    real = engine.formatter

    @_around(real)
    @our_own()
    def formatter(**given: Any) -> Any:
        with the_parts_own():
            response = real(**given)
        return dataclasses.replace(response, prompt=edit(response.prompt))

    engine.formatter = formatter


def _ids(engine: Any, edit: Callable[..., Any]) -> None:
    """Change the ids that `Llama.tokenize` gives."""
    real = engine.tokenize
    bos, eos = engine.llm.token_bos(), engine.llm.token_eos()

    @our_own()
    def tokenize(text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        with the_parts_own():
            ids = tuple(real(text, add_bos, special))
        seen = Tokenizing(
            text=text.decode("utf-8", errors="replace"),
            ids=ids,
            encode=lambda text, parsed: real(text.encode("utf-8"), False, parsed),
            bos=None if bos == -1 else bos,
            eos=None if eos == -1 else eos,
        )
        return [int(one) for one in edit(seen)]

    engine.tokenize = tokenize


def _answer(engine: Any, edit: Callable[..., Any]) -> None:
    """Change what `create_chat_completion` gives back."""
    real = engine.llm.create_chat_completion

    @our_own()
    def create(**body: Any) -> Any:
        with the_parts_own():
            answer = real(**body)
        if isinstance(answer, dict):
            return edit(answer, _generated(engine, body))
        return _streamed(engine, answer, body, edit)

    engine.llm.create_chat_completion = create


def _streamed(
    engine: Any, chunks: Iterator[Any], body: Mapping[str, Any], edit: Callable[..., Any]
) -> Iterator[dict[str, Any]]:
    with our_own():
        whole = list(from_the_part(chunks))
        yield from edit(whole, _generated(engine, body))


def _generated(engine: Any, body: Mapping[str, Any]) -> Generated:
    plan = engine.plan
    ids = plan.ids if plan.scripted is None else plan.scripted
    detokenize = private(engine.llm, "_model.detokenize", "llama_cpp")
    return Generated(pieces=tuple(detokenize([one], special=True) for one in ids), body=body)


def _around(formatter: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a wrapper name what it wraps, for a defect planted deeper."""

    def name(wrapper: Callable[..., Any]) -> Callable[..., Any]:
        wrapper.__wrapped__ = formatter  # type: ignore[attr-defined]
        return wrapper

    return name


_PLACES: Mapping[Place, Callable[[Any, Callable[..., Any]], Any]] = {
    Place.REQUEST: _request,
    Place.ENVIRONMENT: _environment,
    Place.PROMPT: _prompt,
    Place.IDS: _ids,
    Place.ANSWER: _answer,
    Place.PART: lambda engine, edit: edit(engine),
}
