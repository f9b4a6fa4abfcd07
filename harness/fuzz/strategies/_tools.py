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
_NUMBERS = (-0.0, 1e-7, 1e16, 1e22, 1.5e300, 0.1, 1 << 53, 1 << 63, -(1 << 63) - 1, 10**30)


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


def _names() -> SearchStrategy[str]:
    rest = st.text(st.sampled_from(_LETTERS + "_0123456789"), max_size=8)
    return st.builds(str.__add__, st.sampled_from(_LETTERS), rest)


@st.composite
def _tool(draw: st.DrawFn, description: SearchStrategy[str], nested: bool, bare: bool) -> Json:
    function: Json = {"name": draw(_names())}
    if not (bare and draw(st.booleans())):
        function["description"] = draw(description)
    if not (bare and draw(st.booleans())):
        function["parameters"] = draw(_objects(description, nested=2 if nested else 0))
    return {"type": "function", "function": function}


@st.composite
def _objects(draw: st.DrawFn, description: SearchStrategy[str], nested: int) -> Json:
    """Draw the schema of an object with properties."""
    keys = draw(st.lists(_names(), max_size=3, unique=True))
    properties = {key: draw(_schemas(description, nested)) for key in keys}
    schema: Json = {"type": "object", "properties": properties}
    if required := [key for key in keys if draw(st.booleans())]:
        schema["required"] = required
    return schema


@st.composite
def _schemas(draw: st.DrawFn, description: SearchStrategy[str], nested: int) -> Json:
    kinds = [*_SIMPLE, "enum", "array", *(["object", "objects"] if nested else [])]
    kind = draw(st.sampled_from(kinds))
    schema: Json = {"type": kind}
    if kind == "enum":
        schema = {"type": "string", "enum": draw(st.lists(_names(), min_size=1, max_size=3, unique=True))}
    elif kind == "array":
        schema["items"] = {"type": draw(st.sampled_from(_SIMPLE))}
    elif kind == "object":
        schema = draw(_objects(description, nested - 1))
    elif kind == "objects":
        schema = {"type": "array", "items": draw(_objects(description, nested - 1))}
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
        return _calls(refuse_tools(tools), arguments, names, text, max_size, first)
    made = st.lists(_tool(text, "nested" in names, bare=False), min_size=1, max_size=2)
    return made.flatmap(lambda declared: _calls(declared, arguments, names, text, max_size, first))


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


@st.composite
def _calls(
    draw: st.DrawFn,
    declared: Sequence[Json],
    form: Arguments,
    names: Collection[str],
    text: SearchStrategy[str],
    most: int,
    first: int,
) -> list[Json]:
    calls: list[Json] = []
    for number in range(first, first + draw(st.integers(1, most))):
        function = draw(st.sampled_from(declared))["function"]
        value = draw(values_of(function.get("parameters") or {"type": "object"}, text, "numbers" in names))
        own = f"call{number:05d}"
        if "odd-ids" in names and draw(st.booleans()):
            own = draw(st.sampled_from(_ODD_IDS))
        held = draw(_held(value, form, names))
        calls.append({"id": own, "type": "function", "function": {"name": function["name"], "arguments": held}})
    return calls


def _held(value: Any, form: Arguments, names: Collection[str]) -> SearchStrategy[Any]:
    """Return a strategy for the ways in which a call may hold its arguments."""
    text = json.dumps(value, ensure_ascii=False)
    ways = [st.just(text if form == "text" else value)]
    if "mapping-arguments" in names:
        ways.append(st.just(value))
    if "text-arguments" in names:
        ways.append(st.just(text))
    if "broken-arguments" in names:
        ways.append(st.sampled_from(_BROKEN))
    return st.one_of(ways)


def values_of(schema: Mapping[str, Any], text: SearchStrategy[str], odd_numbers: bool = False) -> SearchStrategy[Any]:
    """Return a strategy for values that fit a JSON schema, as far as it is made of types and enumerations.

    Args:
        schema: The schema; what it says by other words is not looked at, and a value without a type is a text.
        text: Makes the texts.
        odd_numbers: Whether numbers may be such that programs write them differently.
    """
    kind = schema.get("type")
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return st.sampled_from(schema["enum"])
    if kind == "object":
        return _fitting(schema, text, odd_numbers)
    if kind == "array":
        items = schema.get("items")
        return st.lists(values_of(items if isinstance(items, Mapping) else {}, text, odd_numbers), max_size=3)
    if kind == "boolean":
        return st.booleans()
    if kind in ("integer", "number"):
        odd = [one for one in _NUMBERS if kind == "number" or isinstance(one, int)] if odd_numbers else []
        plain: list[SearchStrategy[Any]] = [st.integers(-1000, 1000)]
        # Quarters are exact, and every program writes them alike.
        plain += [st.integers(-99, 99).map(lambda quarters: quarters + 0.25)] if kind == "number" else []
        return st.one_of(*plain, *([st.sampled_from(odd)] if odd else []))
    return st.none() if kind == "null" else text


@st.composite
def _fitting(draw: st.DrawFn, schema: Mapping[str, Any], text: SearchStrategy[str], odd_numbers: bool) -> Json:
    properties, required = schema.get("properties"), schema.get("required")
    value: Json = {}
    for key, inner in (properties if isinstance(properties, Mapping) else {}).items():
        if (isinstance(required, list) and key in required) or draw(st.booleans()):
            value[key] = draw(values_of(inner if isinstance(inner, Mapping) else {}, text, odd_numbers))
    return value
