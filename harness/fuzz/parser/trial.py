"""One input of the properties of parsers: a message of the assistant, rendered by its template and parsed again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.fuzz.parser.cutting import grouped, units, words
from harness.fuzz.parser.difference import Given
from harness.parts import Completion, Format, Parser, PartError, Rendering
from harness.values import Json

_TEXTS = ("content", "reasoning_content")
_MARK = "qzx"
Render = Callable[[Rendering], str]


@dataclass(frozen=True)
class Written:
    """What a model would have written to be rendered so.

    Attributes:
        text: The text, up to the marker that ends it.
        end: That marker.
        opening: The end of the prompt, which opened the turn.
        message: The message, without what the template does not render of it.
    """

    text: str
    end: str
    opening: str
    message: Json


def written(
    conversation: Json,
    format: Format,  # noqa: A002 - as elsewhere
    render: Render,
    variables: Mapping[str, Any],
) -> Written | None:
    """Return the last message of a conversation as the completion that the template renders it to.

    Returns:
        None where the template does not render it after the prompt that asks for it.
    """
    *before, last = conversation["messages"]
    if last["role"] != "assistant" or not before:
        return None
    # An empty list of calls is none, whatever a template makes of it.
    last = {name: value for name, value in last.items() if name != "tool_calls" or value}
    variables = {"bos_token": format.bos, "eos_token": format.ends[0], **variables}
    tools = conversation.get("tools") or None
    try:
        prompt = render(Rendering(before, tools, opens=True, variables=variables))
        closed = render(Rendering(before, tools, opens=False, variables=variables))
        text = render(Rendering([*before, last], tools, opens=False, variables=variables))
        marked = render(Rendering([*before, _marked(last)], tools, opens=False, variables=variables))
    except PartError:
        return None
    if not text.startswith(prompt):
        return None
    rest = text[len(prompt) :]
    place, end = max(((rest.rfind(end), end) for end in format.ends), default=(-1, ""))
    if place < 0:
        # Some templates end a turn with the next one's beginning only.
        place, end = len(rest), format.ends[0]
    opening = prompt[len(closed) :] if prompt.startswith(closed) else ""
    return Written(rest[:place], end, opening, _carried(last, marked))


def _marked(message: Json) -> Json:
    """Return a message whose parts are texts that stand nowhere else."""
    marked = {name: _MARK + name if message.get(name) else message.get(name) for name in _TEXTS}
    calls = [
        {**call, "function": {**call["function"], "name": f"{_MARK}call{at}"}}
        for at, call in enumerate(message.get("tool_calls") or ())
    ]
    return {**message, **marked, **({"tool_calls": calls} if calls else {})}


def _carried(message: Json, marked: str) -> Json:
    """Return the parts of a message whose marks a rendered text has."""
    calls = [call for at, call in enumerate(message.get("tool_calls") or ()) if f"{_MARK}call{at}" in marked]
    texts = {name: message[name] for name in _TEXTS if message.get(name) and _MARK + name in marked}
    return {"role": "assistant", **texts, "tool_calls": calls}


class Trial:
    """An input, and what a parser makes of it; each way of asking once.

    Args:
        parser: The parser.
        format: What it is made for.
        conversation: What was asked, the assistant's message last; `messages` and `tools`.
        made: The message as its template renders it.
        sizes: How many least pieces of the text come at once, in one way of cutting it.
        variables: Template variables.
    """

    def __init__(
        self,
        parser: Parser,
        format: Format,  # noqa: A002 - as elsewhere
        conversation: Json,
        made: Written,
        sizes: Sequence[int],
        variables: Mapping[str, Any],
    ) -> None:
        self.parser, self.format, self.text = parser, format, made.text
        self.message = made.message
        self.tools: Sequence[Json] = conversation.get("tools") or ()
        self._conversation, self._made, self._sizes = conversation, made, sizes
        self._variables = variables

    @cached_property
    def whole(self) -> Given:
        """The reply to the text at once."""
        return self._parse(words(self.text, self.format.markers), stream=False)

    @cached_property
    def streamed(self) -> Given:
        """The reply to the text as a stream, cut as a tokenizer would."""
        return self._parse(words(self.text, self.format.markers), stream=True)

    @cached_property
    def cut_otherwise(self) -> Given:
        """The reply to the text as a stream, cut in the sizes of this input."""
        return self._parse(grouped(units(self.text, self.format.markers), self._sizes), stream=True)

    def _parse(self, pieces: Sequence[str], *, stream: bool) -> Given:
        asked = Completion(
            pieces=pieces,
            end=self._made.end,
            tools=self.tools or None,
            messages=self._conversation["messages"][:-1],
            opening=self._made.opening,
            variables=self._variables,
        )
        try:
            return self.parser.parse(asked, stream=stream)
        except PartError as error:
            return error
