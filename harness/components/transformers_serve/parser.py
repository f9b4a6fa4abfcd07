"""The parser of `transformers serve` as a part, in this process; it needs no torch.

Source: transformers, `cli/serving/utils.py`: the response templates that it falls back to where a tokenizer has none,
and how it turns what the parser tells into chunks.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from types import TracebackType
from typing import Any, ClassVar, Self

from harness.errors import MissingPackageError
from harness.parts import Completion, Format, PartError
from harness.process.owner import is_the_parts, the_parts_own
from harness.process.upstream import private
from harness.values import Json, Reply
from harness.wire.chat import reply_of

_PACKAGE = "transformers"
_CHATML = "<|im_start|>"
_TYPES: tuple[tuple[set[str], set[str], str], ...] = (
    ({"<|turn>", "<|tool_call>"}, set(), "gemma4"),
    ({_CHATML, "<tool_call>", "<function=", "<think>"}, set(), "qwen3_5"),
    ({_CHATML, "<tool_call>"}, {"<function=", "<arg_key>"}, "qwen3"),
)
"""What a chat template writes and what it does not, and a type of models whose does so."""


class TransformersParser:
    """What `transformers serve` makes of a text, where it has a response template for such models.

    Args:
        format: The format.

    Raises:
        MissingPackageError: transformers is not installed.
    """

    name = "transformers"
    streams = True
    requires: ClassVar[tuple[str, str]] = ("transformers", "transformers")

    def __init__(self, format: Format) -> None:  # noqa: A002 - the name that every parser has for it
        try:
            from transformers.cli.serving import utils
            from transformers.utils.chat_parsing import response_parser
        except ImportError as error:
            raise MissingPackageError("the parser 'transformers'", "transformers", "transformers") from error
        self._serve: Any = utils
        self._library: Any = response_parser
        kind = next((name for has, lacks, name in _TYPES if _writes(format.template, has, lacks)), None)
        known = private(utils, "_RESPONSE_TEMPLATE_FALLBACKS", _PACKAGE).items()
        self._template: Json | None = next((one for names, one in known if kind in names), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """There is nothing to end."""

    def version(self) -> str:
        """Return the version of transformers."""
        return f"transformers {importlib.metadata.version('transformers')}"

    def parse(self, asked: Completion, *, stream: bool) -> Reply:
        """Return the reply.

        Raises:
            PartError: it raised, or has no response template for such models.
        """
        if self._template is None:
            raise PartError("unsupported", "it has no response template for such models")
        try:
            return self._streamed(asked) if stream else self._whole(asked)
        except Exception as error:
            if not is_the_parts(error):
                raise
            message = str(error).strip().splitlines()
            raise PartError("error", message[0] if message else "", type(error).__name__) from error

    def _whole(self, asked: Completion) -> Reply:
        text = asked.text + (asked.end or "")
        tools = list(asked.tools or ()) or None
        parse = private(self._library, "parse_response", _PACKAGE)
        normalize = private(self._serve, "_normalize_tool_call", _PACKAGE)
        with the_parts_own():
            message = parse(text, self._template, prefix=asked.opening, tools=tools)
            calls = [normalize(call) for call in message.get("tool_calls") or ()]
        return Reply(
            content=message.get("content", ""),
            reasoning=message.get("reasoning_content"),
            tool_calls=tuple(_function(call) for call in calls) or None,
        )

    def _streamed(self, asked: Completion) -> Reply:
        deltas = [{"choices": [{"delta": delta}]} for delta in self._deltas(asked)]
        return reply_of(deltas)

    def _deltas(self, asked: Completion) -> Iterator[Json]:
        """Yield the deltas: a call comes in one, once it is complete."""
        tools = list(asked.tools or ()) or None
        make = private(self._library, "ResponseParser", _PACKAGE)
        chunks_of = private(self._serve, "response_events_to_chunks", _PACKAGE)
        with the_parts_own():
            parser = make(self._template, prefix=asked.opening, tools=tools)
            events = [parser.initial_events, *map(parser.feed, [*asked.pieces, asked.end or ""]), parser.finalize()[1]]
            chunks = [chunk for told in events for chunk in chunks_of(told)]
        index = 0
        for chunk in chunks:
            if isinstance(chunk, self._serve.ToolCall):
                yield {"tool_calls": [{"index": index, **_function(chunk)}]}
                index += 1
            elif isinstance(chunk, self._serve.ReasoningText):
                yield {"reasoning_content": str(chunk)}
            else:
                yield {"content": chunk}


def _writes(template: str, has: set[str], lacks: set[str]) -> bool:
    return all(text in template for text in has) and not any(text in template for text in lacks)


def _function(call: Any) -> Json:
    return {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
