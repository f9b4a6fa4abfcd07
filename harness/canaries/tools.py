"""Calls of tools that the caller demands, so that no model's wit is asked for."""

from __future__ import annotations

import json
from typing import Any, Final

from harness.canaries.asking import Asking, deltas, finish, prompt_count
from harness.canaries.canary import Said, canary, right, unseen, wrong
from harness.stage import Stage
from harness.values import Json
from harness.wire.form import reading

_TOOL: Final[Json] = {
    "type": "function",
    "function": {
        "name": "paint",
        "description": "Paints something.",
        "parameters": {
            "type": "object",
            "properties": {"colour": {"type": "string", "enum": ["violet", "amber"]}},
            "required": ["colour"],
        },
    },
}
_REMEDY: Final = "llama-server --jinja; vLLM --enable-auto-tool-choice --tool-call-parser NAME"
_FORCED: Final = f"{_REMEDY}; llama-server does not force it with every template (llama.cpp issue 27217)"
_BY_NAME: Final = (
    f'{_REMEDY}; llama-server takes a named function for "auto" (llama.cpp issue 26535): send only this tool, with '
    'tool_choice "required"'
)
_ASKED: Final = "Paint the door."


def _answer(ask: Asking) -> Json:
    return ask.chat(_ASKED, tools=[_TOOL], tool_choice="required", max_tokens=96)


def _calls(ask: Asking) -> list[dict[str, Any]]:
    with reading("the calls have another form"):
        return [dict(one) for one in _answer(ask)["choices"][0]["message"].get("tool_calls") or ()]


_NO_CALL: Final = "it makes no call"


@canary("a call that is required", Stage.POSTPROCESS, "the answer is a call", 'tool_choice "required"', _FORCED)
def _required(ask: Asking) -> Said:
    found = _calls(ask)
    if found:
        return right(f"{len(found)} calls")
    if finish(_answer(ask)) == "length":
        return unseen("its model did not end within 96 tokens")
    if prompt_count(_answer(ask)) == prompt_count(ask.chat(_ASKED, max_tokens=1)):
        return unseen("tools do not change its prompt: the model's template may know none")
    return wrong("no call", "tool_choice 'required' demands a call, and the answer has none")


@canary("a call that is named", Stage.POSTPROCESS, "the answer is a call of it", "tool_choice, a function", _BY_NAME)
def _named(ask: Asking) -> Said:
    choice = {"type": "function", "function": {"name": "paint"}}
    answer = ask.chat(_ASKED, tools=[_TOOL], tool_choice=choice, max_tokens=96)
    with reading("the calls have another form"):
        found = [one["function"]["name"] for one in answer["choices"][0]["message"].get("tool_calls") or ()]
    if found:
        return right(found) if set(found) == {"paint"} else wrong(found, f"paint is demanded, and {found} are called")
    if finish(answer) == "length":
        return unseen("its model did not end within 96 tokens")
    if prompt_count(answer) == prompt_count(ask.chat(_ASKED, max_tokens=1)):
        return unseen("tools do not change its prompt: the model's template may know none")
    return wrong("no call", "tool_choice demands a call of paint, and the answer has none")


@canary("no call", Stage.POSTPROCESS, 'no call where tool_choice is "none"', 'tool_choice "none"')
def _no_call(ask: Asking) -> Said:
    answer = ask.chat(_ASKED, tools=[_TOOL], tool_choice="none")
    found = answer["choices"][0]["message"].get("tool_calls")
    return wrong(found, "tool_choice 'none' forbids a call, and the answer has one") if found else right("none")


@canary("form of a call", Stage.POSTPROCESS, "an id, the type function, a declared name", "message.tool_calls", _REMEDY)
def _form(ask: Asking) -> Said:
    found = _calls(ask)
    if not found:
        return unseen(_NO_CALL)
    with reading("a call has no function"):
        first = found[0]
        name = first["function"]["name"]
    if not (isinstance(first.get("id"), str) and first["id"]):
        return wrong(first.get("id"), f"the id of a call is {first.get('id')!r}")
    if first.get("type") != "function":
        return wrong(first.get("type"), f"the type of a call is {first.get('type')!r}, not 'function'")
    return right(name) if name == "paint" else wrong(name, f"it calls {name!r}, which was not declared")


@canary("arguments of a call", Stage.POSTPROCESS, "a text that is a JSON object", "tool_calls.function.arguments")
def _arguments(ask: Asking) -> Said:
    found = _calls(ask)
    if not found:
        return unseen(_NO_CALL)
    with reading("a call has no arguments"):
        given = found[0]["function"]["arguments"]
    if not isinstance(given, str):
        return wrong(type(given).__name__, f"the arguments of a call are {type(given).__name__}, not a text")
    try:
        value = json.loads(given)
    except ValueError:
        if finish(_answer(ask)) == "length":
            return unseen("its model did not end within 96 tokens")
        return wrong(given, f"the arguments of a call are no JSON: {given[:60]!r}")
    return (
        right(given)
        if isinstance(value, dict)
        else wrong(given, f"the arguments of a call are no object: {given[:60]!r}")
    )


@canary("end by a call", Stage.POSTPROCESS, '"tool_calls" where the answer is a call', "choices.finish_reason")
def _end(ask: Asking) -> Said:
    if not _calls(ask):
        return unseen(_NO_CALL)
    found = finish(_answer(ask))
    if found == "length":
        return unseen("its model did not end within 96 tokens")
    return right(found) if found == "tool_calls" else wrong(found, f"the answer is a call, finish_reason {found!r}")


@canary(
    "a call in a stream", Stage.POSTPROCESS, "adds up to one with a name and JSON", "chunk object, delta.tool_calls"
)
def _streamed(ask: Asking) -> Said:
    if not _calls(ask):
        return unseen(_NO_CALL)
    chunks = ask.stream(_ASKED, tools=[_TOOL], tool_choice="required", max_tokens=96)
    with reading("the calls in the deltas have another form"):
        parts = [call for one in deltas(chunks) for call in one.get("tool_calls") or ()]
        indexes = {call.get("index") for call in parts}
        first = [call for call in parts if call.get("index") == 0]
        names = [call["function"]["name"] for call in first if (call.get("function") or {}).get("name")]
        given = "".join((call.get("function") or {}).get("arguments") or "" for call in first)
        ids = [call["id"] for call in first if call.get("id")]
    if not parts:
        return wrong("no call", "the answer is a call, but not when it is streamed")
    if 0 not in indexes:
        return wrong(sorted(map(str, indexes)), f"the calls in the deltas have the indexes {indexes}, none is 0")
    if "paint" not in names or not ids:
        return wrong([names, ids], f"the call in the deltas has the name {names} and the id {ids}")
    try:
        json.loads(given)
    except ValueError:
        if any(choice.get("finish_reason") == "length" for one in chunks for choice in one.get("choices") or ()):
            return unseen("its model did not end within 96 tokens")
        return wrong(given, f"the arguments in the deltas add up to no JSON: {given[:60]!r}")
    return right(given)
