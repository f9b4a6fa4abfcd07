"""The reference of the parsers as a part: for formats with hermes calls."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from harness.parts import Completion, Format, PartError
from harness.reference.parse import parse
from harness.values import Reply

_OTHER_CALLS = ("<function=", "<arg_key>")
"""What stands between the same tags in other formats."""


class ReferenceParser:
    """Parses whole texts; it streams none.

    Args:
        format: The format.
    """

    name = "reference"
    streams = False

    def __init__(self, format: Format) -> None:  # noqa: A002 - the name that every parser has for it
        source = format.template
        self._hermes = "<tool_call>" in source and not any(other in source for other in _OTHER_CALLS)
        self._reasoning = "</think>" in format.template

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """There is nothing to end."""

    def version(self) -> str:
        """Return which rules it goes by."""
        return "rules of harness.reference.parse 1"

    def parse(self, asked: Completion, *, stream: bool) -> Reply:
        """Return the reply.

        Raises:
            PartError: of kind `unsupported`: a stream, or another format.
        """
        if stream or not self._hermes:
            raise PartError("unsupported", "the reference parses whole texts with hermes calls")
        found = parse(asked.text, calls=bool(asked.tools), reasoning=self._reasoning, prompt=asked.opening)
        return Reply(content=found.content, reasoning=found.reasoning, tool_calls=found.calls or None)
