"""Tools, and calls of them whose arguments fit what the tool declares."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from harness.fuzz.strategies._adversity import Adversity, chosen
from harness.fuzz.strategies._texts import texts
from harness.values import Json

Arguments = Literal["text", "mapping"]
"""How a call holds its arguments: as the text of a JSON object, which is OpenAI's form, or as the object."""

_SIMPLE = ("string", "integer", "number", "boolean")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_BROKEN = ("", "{", "{}{}", "null", "[1]", '"a"', "not json", '{"a": 1', "{'a': 1}", '{"a": NaN}', '{"a": 1, "a": 2}')
_ODD_IDS = ("", "1", "call_0", "call-0", "chatcmpl-tool-0123456789abcdef0123456789abcdef", "ä", "a b")
_ODD_INTEGERS = (1 << 53, 1 << 63, -(1 << 63) - 1, 10**30)
_ODD_NUMBERS = (-0.0, 1e-7, 1e16, 1e22, 1.5e300, 0.1)
_WHOLE = st.integers(-1000, 1000)
# Quarters are exact, and every program writes them alike.
_QUARTERS = st.integers(-99, 99).map(lambda number: number + 0.25)
_NUMBERS: Mapping[tuple[str, bool], SearchStrategy[float]] = {
    ("integer", False): _WHOLE,
    ("integer", True): st.one_of(_WHOLE, st.sampled_from(_ODD_INTEGERS)),
    ("number", False): st.one_of(_WHOLE, _QUARTERS),
    ("number", True): st.one_of(_WHOLE, _QUARTERS, st.sampled_from((*_ODD_NUMBERS, *_ODD_INTEGERS))),
}


def tools(
    *,
    adversarial: Collection[Adversity] = (),
    control: Collection[str] = (),
    added: Collection[str] = (),
    max_size: int = 3,
) -> SearchStrategy[list[Json]]:
    """Return a strategy for lists of at least one tool in OpenAI's form, no two of one name.

        @given(tools(adversarial=("nested",)))

    Args:
        adversarial: `nested`, `bare-tools`, and those that speak of texts, for the descriptions; others change nothing.
        control: The texts of control tokens, for `control-tokens`.
        added: The texts of added tokens, for `added-tokens`.
        max_size: The most tools.

    Raises:
        UserError: no adversity has this name.
        ValueError: texts are missing, or given for nothing, or empty, or hold a lone surrogate; `max_size` is under 1.
    """
    if max_size < 1:
        raise ValueError(f"max_size is {max_size}: a list of tools has at least one")
    names = chosen(adversarial, control, added)
    description = texts(adversarial=adversarial, control=control, added=added)
    one = _tool(description, "nested" in names, "bare-tools" in names)
    return st.lists(one, min_size=1, max_size=max_size, unique_by=lambda tool: tool["function"]["name"])


_FIRST, _REST = st.sampled_from(_LETTERS), st.lists(st.sampled_from(_LETTERS + "_0123456789"), max_size=8)
_NAMES = st.builds(lambda first, rest: first + "".join(rest), _FIRST, _REST)
_KEYS = st.lists(_NAMES, max_size=3, unique=True)
_ENUMS = st.lists(_NAMES, min_size=1, max_size=3, unique=True)


@st.composite
def _tool(draw: st.DrawFn, description: SearchStrategy[str], nested: bool, bare: bool) -> Json:
    function: Json = {"name": draw(_NAMES)}
    if not (bare and draw(st.booleans())):
        function["description"] = draw(description)
    if not (bare and draw(st.booleans())):
        function["parameters"] = _object(draw, description, levels=2 if nested else 0)
    return {"type": "function", "function": function}


# From here on down, functions draw: a strategy that is made while another one draws costs more than what it draws.
def _object(draw: st.DrawFn, description: SearchStrategy[str], levels: int) -> Json:
    """Draw the schema of an object with properties, among them objects of so many levels."""
    keys = draw(_KEYS)
    schema: Json = {"type": "object", "properties": {key: _schema(draw, description, levels) for key in keys}}
    if required := [key for key in keys if draw(st.booleans())]:
        schema["required"] = required
    return schema


def _schema(draw: st.DrawFn, description: SearchStrategy[str], levels: int) -> Json:
    kind = draw(st.sampled_from((*_SIMPLE, "enum", "array", "object", "objects")[: 8 if levels else 6]))
    schema: Json = {"type": kind}
    if kind == "enum":
        schema = {"type": "string", "enum": draw(_ENUMS)}
    elif kind == "array":
        schema["items"] = {"type": draw(st.sampled_from(_SIMPLE))}
    elif kind == "object":
        schema = _object(draw, description, levels - 1)
    elif kind == "objects":
        schema = {"type": "array", "items": _object(draw, description, levels - 1)}
    if draw(st.booleans()):
        schema["description"] = draw(description)
    return schema


def tool_calls(
    *,
    tools: Sequence[Json] | None = None,
    arguments: Arguments = "text",
    adversarial: Collection[Adversity] = (),
    control: Collection[str] = (),
    added: Collection[str] = (),
    max_size: int = 3,
    first: int = 0,
) -> SearchStrategy[list[Json]]:
    """Return a strategy for lists of at least one call, as an assistant's message holds them in `tool_calls`.

    Their ids are different: nine letters and digits, counted on from `first`, which all templates take.

        @given(tool_calls(tools=[my_tool], arguments="mapping"))

    Args:
        tools: The tools that may be called: the arguments fit their `parameters`, as far as these are objects,
            arrays, enumerations and plain types. None for made-up tools.
        arguments: How a call holds them.
        adversarial: Those that speak of arguments, of ids and of texts; others change nothing.
        control: The texts of control tokens, for `control-tokens`.
        added: The texts of added tokens, for `added-tokens`.
        max_size: The most calls.
        first: The number of the first id.

    Raises:
        UserError: no adversity has this name.
        ValueError: no tool is given, or one without a name; an adversity asks for the form that `arguments` has
            already; texts are missing, or given for nothing, or empty, or hold a lone surrogate; a number is too small.
    """
    if max_size < 1 or first < 0:
        raise ValueError(f"max_size is {max_size}, first is {first}: there is at least one call, and no negative id")
    names = chosen(adversarial, control, added)
    refuse_form(arguments, names)
    text = texts(adversarial=adversarial, control=control, added=added)
    if tools is not None:
        return st.composite(drawn_calls)(refuse_tools(tools), arguments, names, text, max_size, first)
    made = st.lists(_tool(text, "nested" in names, bare=False), min_size=1, max_size=2)
    return made.flatmap(lambda declared: st.composite(drawn_calls)(declared, arguments, names, text, max_size, first))


def refuse_form(arguments: str, names: Collection[str]) -> None:
    """Refuse a form of arguments that does not exist, or an adversity that is this form.

    Raises:
        ValueError: it is one of these.
    """
    if arguments not in ("text", "mapping"):
        raise ValueError(f"arguments is 'text' or 'mapping', not {arguments!r}")
    if f"{arguments}-arguments" in names:
        raise ValueError(f"'{arguments}-arguments' says nothing where arguments={arguments!r}")


def refuse_tools(tools: Sequence[Json]) -> Sequence[Json]:
    """Refuse what is no list of tools; return it otherwise.

    Raises:
        ValueError: it is empty, or one of it has no name.
    """
    if not tools:
        raise ValueError("tools is empty: there is nothing to call")
    for number, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not (isinstance(function, Mapping) and isinstance(function.get("name"), str)):
            raise ValueError(f"tools[{number}] has no function.name")
    return tools


def drawn_calls(
    draw: st.DrawFn,
    declared: Sequence[Json],
    form: Arguments,
    names: Collection[str],
    text: SearchStrategy[str],
    most: int,
    first: int,
) -> list[Json]:
    """Draw calls: the function behind `tool_calls`, whose arguments these are; `text` makes the texts."""
    calls: list[Json] = []
    for number in range(first, first + draw(st.integers(1, most))):
        function = draw(st.sampled_from(declared))["function"]
        value = _value(draw, function.get("parameters") or {"type": "object"}, text, "numbers" in names)
        own = f"call{number:05d}"
        if "odd-ids" in names and draw(st.booleans()):
            own = draw(st.sampled_from(_ODD_IDS))
        held = _held(draw, value, form, names)
        calls.append({"id": own, "type": "function", "function": {"name": function["name"], "arguments": held}})
    return calls


def _held(draw: st.DrawFn, value: Any, form: Arguments, names: Collection[str]) -> Any:
    """Draw the way in which a call holds its arguments."""
    text = json.dumps(value, ensure_ascii=False)
    ways = [text if form == "text" else value]
    if "mapping-arguments" in names:
        ways.append(value)
    if "text-arguments" in names:
        ways.append(text)
    if "broken-arguments" in names:
        ways += _BROKEN
    return ways[draw(st.integers(0, len(ways) - 1))]


def _value(draw: st.DrawFn, schema: Mapping[str, Any], text: SearchStrategy[str], odd: bool) -> Any:
    """Draw a value that fits a JSON schema, as far as this is made of types and enumerations.

    What it says by other words is not looked at, and a value without a type is a text. `odd` allows numbers that
    programs write differently.
    """
    kind = schema.get("type")
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return draw(st.sampled_from(schema["enum"]))
    if kind == "object":
        return _fitting(draw, schema, text, odd)
    if kind == "array":
        items = schema.get("items")
        inner = items if isinstance(items, Mapping) else {}
        return [_value(draw, inner, text, odd) for _ in range(draw(st.integers(0, 3)))]
    if kind in ("integer", "number"):
        return draw(_NUMBERS[kind, odd])
    return draw({"boolean": st.booleans(), "null": st.none()}.get(str(kind), text))


def _fitting(draw: st.DrawFn, schema: Mapping[str, Any], text: SearchStrategy[str], odd: bool) -> Json:
    properties, required = schema.get("properties"), schema.get("required")
    value: Json = {}
    for key, inner in (properties if isinstance(properties, Mapping) else {}).items():
        if (isinstance(required, list) and key in required) or draw(st.booleans()):
            value[key] = _value(draw, inner if isinstance(inner, Mapping) else {}, text, odd)
    return value
