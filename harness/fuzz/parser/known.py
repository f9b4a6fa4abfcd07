"""What the parser of llama.cpp's server is known to get wrong: the shortest text of each, and one call that tries it.

Seen with llama.cpp of xllamacpp 2026.10.11549, over the chat route, with a tool declared.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import unknown_name
from harness.fuzz.parser.cutting import words
from harness.fuzz.parser.difference import Given, difference
from harness.fuzz.parser.fixtures import format_of
from harness.parts import Completion, PartError, make
from harness.values import Reply

_TOOLS = (
    {
        "type": "function",
        "function": {"name": "find", "parameters": {"type": "object", "properties": {"x": {"type": "string"}}}},
    },
)
_QWEN, _LLAMA, _GPT = "Qwen/Qwen3-4B-Instruct-2507", "meta-llama/Llama-3.3-70B-Instruct", "openai/gpt-oss-20b"


@dataclass(frozen=True)
class Known:
    """Something known.

    Attributes:
        name: Its name.
        sentence: What goes wrong.
        model: The model of the fixtures whose template shows it.
        text: What the model writes.
        due: The reply that it must give.
        ended: Whether the model ended it; it was cut off otherwise.
    """

    name: str
    sentence: str
    model: str
    text: str
    due: Reply
    ended: bool = True


def _called(arguments: str, content: str | None = None) -> Reply:
    call = {"type": "function", "function": {"name": "find", "arguments": arguments}}
    return Reply(content=content, tool_calls=(call,))


KNOWN = {
    one.name: one
    for one in (
        Known(
            "end-lost",
            "the end of a complete answer is lost where a call could begin so",
            _QWEN,
            "a <",
            Reply(content="a <"),
        ),
        Known(
            "end-lost-word",
            "the end of a complete answer is lost where a call could begin so, be it several characters",
            _QWEN,
            "a<tool",
            Reply(content="a<tool"),
        ),
        Known(
            "no-newline",
            "a call without white space in its tags is left in the content",
            _QWEN,
            '<tool_call>{"name": "find", "arguments": {}}</tool_call>',
            _called("{}"),
        ),
        Known(
            "cut-off-call",
            "a call that was cut off in its arguments is given as a call, with arguments that are no JSON",
            _QWEN,
            '<tool_call>\n{"name": "find", "arguments": {"x',
            Reply(content=None),
            ended=False,
        ),
        Known("json-answer", "an answer that is a JSON object is an HTTP error", _LLAMA, "{}", Reply(content="{}")),
        Known(
            "arguments-key",
            "a call with the key `arguments` instead of `parameters` is an HTTP error",
            _LLAMA,
            '{"name": "find", "arguments": {}}',
            _called("{}"),
        ),
        Known(
            "header-in-content",
            "the header of an answer that ends in what could begin a marker is left in the content",
            _GPT,
            "<|channel|>final<|message|><",
            Reply(content="<"),
        ),
    )
}
"""By name."""


def reproduce(name: str, parser: str = "harness.components.llama_server.parser:LlamaServerParser") -> tuple[Given, str]:
    """Try something known, on the whole text.

    Args:
        name: Its name.
        parser: The import path of the parser's class.

    Returns:
        What the parser gave, and how that differs from what is due; empty where it does not.

    Raises:
        UserError: nothing of that name is known, or there is no template of the model.
        ImportError: what the parser needs is not installed.
    """
    if name not in KNOWN:
        raise unknown_name("known defect", name, KNOWN)
    known = KNOWN[name]
    made = format_of(known.model)
    assert made is not None, "the templates of these models are at hand"
    pieces = words(known.text, made.markers)
    asked = Completion(pieces, made.ends[0] if known.ended else None, _TOOLS)
    given: Given
    with make(parser, format=made) as opened:
        try:
            given = opened.parse(asked, stream=False)
        except PartError as error:
            given = error
    return given, difference(known.due, given)
