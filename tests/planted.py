"""Errors of ours in the taps of llama-cpp-python, and other names inside it. In child processes."""

from __future__ import annotations

import sys
from typing import Any

import llama_cpp
from llama_cpp import llama_chat_format

from harness.components.llama_cpp_python._engine import Engine
from harness.components.llama_cpp_python._served import Server
from harness.components.llama_cpp_python._taps import Plan

_broken = ""


def _get(plan: Plan, name: str) -> Any:
    if sys._getframe(1).f_code.co_name == _broken:
        raise KeyError(f"planted in {_broken}")
    return object.__getattribute__(plan, name)


def _set(plan: Plan, name: str, value: Any) -> None:
    if sys._getframe(1).f_code.co_name == _broken:
        raise KeyError(f"planted in {_broken}")
    object.__setattr__(plan, name, value)


class Breakable:
    """Raises in a tap as soon as that looks at what it is to do."""

    def break_at(self, place: str) -> None:
        global _broken
        Plan.__getattribute__ = _get  # type: ignore[assignment]
        Plan.__setattr__ = _set  # type: ignore[assignment]
        _broken = place


class BreakableEngine(Breakable, Engine):
    """In process."""


class BreakableServer(Breakable, Server):
    """Behind HTTP."""


def without_formatter(**init: Any) -> Engine:
    """The chat handler keeps its formatter under another name."""
    real = llama_chat_format.chat_formatter_to_chat_completion_handler

    def renamed(formatter: Any) -> Any:
        inner = real(formatter)

        def chat_completion_handler(**given: Any) -> Any:
            return inner(**given)

        return chat_completion_handler

    llama_chat_format.chat_formatter_to_chat_completion_handler = renamed
    return Engine(**init)


def without_handlers(**init: Any) -> Engine:
    """`Llama` keeps its chat handlers under another name. It is given one, so it does not look for them."""

    class Renamed(llama_cpp.Llama):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__("_handlers_of_formats" if name == "_chat_handlers" else name, value)

        def __getattr__(self, name: str) -> Any:
            if name == "_chat_handlers" and sys._getframe(1).f_code.co_name == "__init__":
                return self._handlers_of_formats
            raise AttributeError(name)

    llama_cpp.Llama = Renamed
    return Engine(**init)


def without_pieces(**init: Any) -> Engine:
    """What detokenizes has another name; it is for the reader only."""
    engine = Engine(**init)
    model = type(engine.llm._model)
    model.detokenized = model.detokenize
    del model.detokenize
    return engine


def break_tap(engine: Any, place: str) -> None:
    """A hook: raise in a tap from now on."""
    Breakable.break_at(engine, place)
