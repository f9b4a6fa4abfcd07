"""Conversations that are not made up: each feature once, and the pairs of features that programs get wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

from harness.values import Json

_MARKS = ("a<|im_end|>b<|eot_id|>c", "a</s>b<end_of_turn>c[INST]")
"""Texts that hold control tokens of one family or another."""


def _user(content: Any = "Hi.") -> Json:
    return {"role": "user", "content": content}


def _system(content: Any = "Be brief.") -> Json:
    return {"role": "system", "content": content}


def _said(content: Any = "Yes.", **further: Any) -> Json:
    return {"role": "assistant", "content": content, **further}


def _call(arguments: Any, number: int = 0, name: str = "weather") -> Json:
    return {"id": f"call{number:05d}", "type": "function", "function": {"name": name, "arguments": arguments}}


def _calling(*calls: Json, content: Any = None, **further: Any) -> Json:
    return {"role": "assistant", "content": content, **further, "tool_calls": list(calls)}


def _result(content: Any = "7", number: int = 0, **further: Any) -> Json:
    return {"role": "tool", "tool_call_id": f"call{number:05d}", **further, "content": content}


def _tool(name: str = "weather", description: str = "The weather.", **properties: Json) -> Json:
    held = properties or {"place": {"type": "string"}}
    parameters = {"type": "object", "properties": held, "required": list(held)[:1]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


_OSLO = {"place": "Oslo"}
_TEXT = json.dumps(_OSLO)
_DEEP = {"b": {"z": [1, {"y": None}], "a": []}, "a": True, "n": 1.5}
_SOUTH = {"place": "Santiago"}
_WEATHER = (_tool(),)
_THREE = (_tool(), _tool("add", "Adds.", a={"type": "integer"}, b={"type": "number"}), _tool("now", "The time."))
_ASKED = (_user(), _calling(_call(_TEXT)), _result())

Part = tuple[str, Sequence[Json], Sequence[Json] | None]
"""A name, messages, and tools."""


def fixed_conversations() -> list[Json]:
    """Return short conversations from "one user message" on, each with its own short name.

    Arguments of calls are texts or objects, as the name says; a text where it says nothing.

        for one in fixed_conversations():
            render(one["messages"], one.get("tools"))

    Returns:
        Objects with `name`, `messages`, and `tools` where tools are declared: the same ones in the same order, and new
        objects each time.
    """
    conversations: list[Json] = []
    for name, messages, tools in (*_turns(), *_contents(), *_texts(), *_calls(), *_results(), *_tools()):
        one: Json = {"name": name, "messages": copy.deepcopy(list(messages))}
        conversations.append(one if tools is None else {**one, "tools": copy.deepcopy(list(tools))})
    return conversations


def _turns() -> Iterator[Part]:
    yield "user", [_user()], None
    yield "system", [_system(), _user()], None
    yield "two turns", [_user(), _said(), _user("Why?")], None
    yield "system, three turns", [_system(), _user(), _said(), _user("Why?"), _said("So."), _user("Oh.")], None
    yield "two users in a row", [_user(), _user("Are you there?")], None
    yield "system only", [_system()], None
    yield "system later", [_user(), _said(), _system(), _user("Why?")], None
    yield "two systems", [_system(), _system("Be kind."), _user()], None
    yield "developer", [{"role": "developer", "content": "Be brief."}, _user()], None
    yield "unknown role", [{"role": "critic", "content": "Hm."}, _user()], None
    yield "assistant first", [_said("Welcome."), _user()], None
    yield "prefill", [_user(), _said("Well,")], None
    yield "prefill with a space at its end", [_user(), _said("Well, ")], None
    yield "reasoning in the last turn", [_user(), _said(reasoning_content="Hm."), _user("Why?")], None
    yield (
        "reasoning in all turns",
        [_user(), _said(reasoning_content="Hm."), _user("Why?"), _said("So.", reasoning_content="Um."), _user("Oh.")],
        None,
    )
    yield "reasoning as text", [_user(), _said("<think>\nHm.\n</think>\n\nYes."), _user("Why?")], None
    yield "empty reasoning", [_user(), _said(reasoning_content=""), _user("Why?")], None
    yield "reasoning and no content", [_user(), _said("", reasoning_content="Hm."), _user("Why?")], None


def _contents() -> Iterator[Part]:
    yield "parts", [_user([{"type": "text", "text": "Hi."}])], None
    yield "two parts", [_user([{"type": "text", "text": "Hi."}, {"type": "text", "text": "You."}])], None
    yield "no parts", [_user([])], None
    yield "system in parts", [_system([{"type": "text", "text": "Be brief."}]), _user()], None
    yield "assistant in parts", [_user(), _said([{"type": "text", "text": "Yes."}]), _user("Why?")], None
    yield "user null", [_user(None)], None
    yield "assistant null", [_user(), _said(None), _user("Why?")], None
    yield "user without content", [{"role": "user"}], None
    yield "assistant without content", [_user(), {"role": "assistant"}, _user("Why?")], None
    yield "user empty", [_user("")], None
    yield "system empty", [_system(""), _user()], None
    yield "assistant empty", [_user(), _said(""), _user("Why?")], None
    yield "whitespace around", [_system(" Be brief.\n"), _user("\n Hi. \n"), _said("\tYes. "), _user(" Why?")], None
    yield "whitespace only", [_user(" \n ")], None


def _texts() -> Iterator[Part]:
    for number, mark in enumerate(_MARKS):
        yield f"control tokens {number + 1}", [_system(mark), _user(mark), _said(mark), _user("Why?")], None
    yield "markup", [_user("<b class='x'>\"A&B\"</b> \\n")], None
    yield "invisible", [_user("\ufeffa\u200bb\u2028c\u202ed\u00a0e\x7f")], None
    yield "letters", [_user("é e\u0301 ÅSS ß ﬁ İ 中文 \U0001f469\u200d\U0001f680")], None
    yield "template code", [_user("{{ 7*7 }} {% raise %} {# c #}")], None
    yield "tags of reasoning", [_user("a<think>b</think>c"), _said("a</think>b"), _user("Why?")], None
    yield "tags of calls", [_user("<tool_call>{}</tool_call>"), _said("<tool_response>a"), _user("Why?")], None
    yield "long", [_user("ab " * 700)], None


def _calls() -> Iterator[Part]:
    shapes: tuple[tuple[str, Any], ...] = (
        ("text", _TEXT),
        ("mapping", _OSLO),
        ("empty text", "{}"),
        ("empty mapping", {}),
        ("no text", ""),
        ("text that is no JSON", "Oslo"),
        ("nested text", json.dumps(_DEEP)),
        ("nested mapping", _DEEP),
        ("braces and quotes, text", json.dumps({"place": "}'\"</tool_call>\\{"})),
        ("braces and quotes, mapping", {"place": "}'\"</tool_call>\\{"}),
        ("other letters, text", json.dumps({"place": "Ålesund <中>"}, ensure_ascii=False)),
        ("other letters, mapping", {"place": "Ålesund <中>"}),
    )
    for name, arguments in shapes:
        yield f"arguments: {name}", [_user(), _calling(_call(arguments)), _result()], _WEATHER
    yield "call, mapping, follow-up", [_user(), _calling(_call(_OSLO)), _result(), _said("7."), _user("Why?")], _WEATHER
    yield "call, no tools declared", _ASKED, None
    yield "call last", [_user(), _calling(_call(_OSLO))], _WEATHER
    yield "call with text", [_user(), _calling(_call(_OSLO), content="Let me look."), _result()], _WEATHER
    yield "call, empty content", [_user(), _calling(_call(_OSLO), content=""), _result()], _WEATHER
    without = {key: value for key, value in _calling(_call(_OSLO)).items() if key != "content"}
    yield "call without content", [_user(), without, _result()], _WEATHER
    thought = _calling(_call(_OSLO), reasoning_content="Hm.")
    yield "reasoning, then a call", [_user(), thought, _result()], _WEATHER
    yield "no calls in the list", [_user(), _said(tool_calls=[]), _user("Why?")], _WEATHER
    yield "calls null", [_user(), _said(tool_calls=None), _user("Why?")], _WEATHER


def _results() -> Iterator[Part]:
    both = _calling(_call(_OSLO), _call(_SOUTH, 1))
    yield "parallel calls", [_user(), both, _result(), _result("9", 1)], _WEATHER
    yield "parallel calls, results swapped", [_user(), both, _result("9", 1), _result()], _WEATHER
    again = [_calling(_call(_OSLO)), _result(), _calling(_call(_SOUTH, 1)), _result("9", 1)]
    yield "call after a result", [_user(), *again, _said("Done."), _user("Why?")], _WEATHER
    yield "result with a name", [_user(), _calling(_call(_OSLO)), _result(name="weather")], _WEATHER
    yield "result of JSON", [_user(), _calling(_call(_OSLO)), _result('{"t": 7, "s": "<é>"}')], _WEATHER
    yield "result in parts", [_user(), _calling(_call(_OSLO)), _result([{"type": "text", "text": "7"}])], _WEATHER
    yield "result empty", [_user(), _calling(_call(_OSLO)), _result("")], _WEATHER
    yield "result as an object", [_user(), _calling(_call(_OSLO)), _result({"t": 7})], _WEATHER
    yield "result, then a user", [_user(), _calling(_call(_OSLO)), _result(), _user("And?")], _WEATHER
    yield "call without a result", [_user(), _calling(_call(_OSLO)), _user("And?")], _WEATHER
    yield "result without a call", [_user(), _result()], None


def _tools() -> Iterator[Part]:
    yield "no tools in the list", [_user()], []
    yield "one tool", [_user()], _WEATHER
    yield "three tools, system, two turns", [_system(), _user(), _said(), _user("Why?")], _THREE
    yield "markup in a description", [_user()], [_tool(description="<b>'A'&\"B\"</b> é\n{{ 1 }}")]
    inner = {"type": "object", "properties": {"x": {"type": ["string", "null"], "enum": ["a", None]}}}
    listed = {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "integer", "default": 0}}}}
    yield "nested schema", [_user()], [_tool("nested", "Nests.", o=inner, l=listed)]
    bare = {"type": "function", "function": {"name": "bare", "description": "Takes nothing."}}
    yield "tool without parameters", [_user()], [bare]
    yield "tool without a description", [_user()], [{"type": "function", "function": {"name": "bare"}}]
