"""The strategies: what is not asked for never comes, each adversity does, and all shrinks to one short message."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, given, seed, settings
from hypothesis import strategies as st

from harness import fuzz
from harness.errors import UserError
from harness.fuzz import ADVERSITIES
from harness.parts import PartError

CONTROL, ADDED = "<|im_end|>", "<pad0>"
FEW = settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
SMALL = settings(
    max_examples=200,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
FINDING = settings(
    max_examples=2000,
    deadline=None,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


class Letters:
    """A tokenizer of bytes, with one control token and one added token; id 3 has no bytes to show."""

    name, size, bos = "letters", 260, None
    special, added = {CONTROL: 256}, {ADDED: 257}

    def version(self) -> str:
        return "letters 1"

    def encode(self, text: str, *, special: bool) -> list[int]:
        if text == "a":
            raise PartError("unsupported", "not this one")
        ids: list[int] = []
        for part in re.split(f"({re.escape(CONTROL)}|{re.escape(ADDED)})", text):
            ids += [{CONTROL: 256, ADDED: 257}[part]] if part in (CONTROL, ADDED) else part.encode()
        return ids

    def decode(self, ids) -> bytes:
        if 3 in ids:
            raise PartError("unsupported", "not this one")
        return b"".join({256: CONTROL.encode(), 257: ADDED.encode()}.get(i, bytes([i % 256])) for i in ids)


def smallest(strategy, shows=lambda _: True) -> Any:
    return find(strategy, shows, settings=SMALL, random=Random(0))


def one_of(strategy, shows) -> Any:
    return find(strategy, shows, settings=FINDING, random=Random(0))


def asked(name: str) -> dict[str, Any]:
    """Return the keywords that ask for an adversity."""
    keywords: dict[str, Any] = {"adversarial": (name,)}
    if name == "control-tokens":
        keywords["control"] = (CONTROL,)
    if name == "added-tokens":
        keywords["added"] = (ADDED,)
    if name == "text-arguments":
        keywords["arguments"] = "mapping"
    return keywords


def texts_in(value: Any) -> Iterator[str]:
    """Yield all texts of a JSON value, also those in the texts of arguments."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_in(item)


def said(conversation) -> Iterator[str]:
    """Yield the texts of the contents."""
    for message in conversation["messages"]:
        yield from texts_in(
            [part["text"] for part in message["content"]]
            if isinstance(message.get("content"), list)
            else message.get("content")
        )


def calls_of(conversation) -> list[dict[str, Any]]:
    return [call for message in conversation["messages"] for call in message.get("tool_calls", ())]


def arguments_of(conversation) -> list[Any]:
    return [call["function"]["arguments"] for call in calls_of(conversation)]


def is_broken(arguments: Any) -> bool:
    try:
        return isinstance(arguments, str) and not isinstance(json.loads(arguments), dict)
    except ValueError:
        return True


def roles(conversation) -> list[str]:
    return [message["role"] for message in conversation["messages"]]


def called(conversation) -> list[str]:
    return [call["id"] for call in calls_of(conversation)]


def answered(conversation) -> list[str]:
    return [message["tool_call_id"] for message in conversation["messages"] if message["role"] == "tool"]


def inner(value: Any, kind: type) -> bool:
    """Tell whether an object's values hold one of a kind."""
    return isinstance(value, dict) and any(isinstance(one, kind) for one in value.values())


def any_text(test: Callable[[str], object]) -> Callable[[Any], bool]:
    return lambda conversation: any(map(test, said(conversation)))


def any_message(test: Callable[[dict[str, Any]], object]) -> Callable[[Any], bool]:
    return lambda conversation: any(map(test, conversation["messages"]))


def in_a_row(conversation) -> bool:
    return "user user" in " ".join(roles(conversation))


def nested(conversation) -> bool:
    declared = [tool["function"].get("parameters", {}).get("properties", {}) for tool in conversation.get("tools", ())]
    return any(schema.get("type") == "object" for properties in declared for schema in properties.values())


SHOWS: dict[str, Callable[[Any], bool]] = {
    "control-tokens": any_text(lambda text: CONTROL in text),
    "added-tokens": any_text(lambda text: ADDED in text),
    "poison": any_text(lambda text: set(text) & set("<>&'\"\\\u2028\ufeff\u200b\u202e\U0001f680")),
    "nul": any_text(lambda text: "\x00" in text),
    "nfc": any_text(lambda text: unicodedata.normalize("NFC", text) != text),
    "digits": any_text(lambda text: re.search(r"\d", text)),
    "contractions": any_text(lambda text: re.search("['’]", text)),
    "whitespace": any_text(lambda text: text != text.strip()),
    "han": any_text(lambda text: "中" in text or "日" in text),
    "template-code": any_text(lambda text: "{{" in text or "{%" in text),
    "long": any_text(lambda text: len(text) > 1000),
    "parts": any_message(lambda message: isinstance(message.get("content"), list)),
    "null-content": any_message(lambda message: message.get("content", "") is None and "tool_calls" not in message),
    "empty": any_message(lambda message: message.get("content") == ""),
    "no-content-key": any_message(lambda message: "content" not in message),
    "two-users": in_a_row,
    "assistant-first": lambda one: next(role for role in roles(one) if role != "system") == "assistant",
    "system-later": lambda one: "system" in roles(one)[1:],
    "developer": lambda one: "developer" in roles(one),
    "mapping-arguments": lambda one: any(isinstance(held, dict) for held in arguments_of(one)),
    "text-arguments": lambda one: any(isinstance(held, str) for held in arguments_of(one)),
    "broken-arguments": lambda one: any(map(is_broken, arguments_of(one))),
    "nested": nested,
    "numbers": lambda one: any(re.search(r"\d[.\d]*e[-+]|-0\.0|\d{15}", held) for held in arguments_of(one)),
    "odd-ids": lambda one: any(not re.fullmatch("[0-9a-z]{9}", own) for own in called(one)),
    "named-results": any_message(lambda message: message["role"] == "tool" and "name" in message),
    "unanswered-calls": lambda one: len(answered(one)) < len(called(one)),
    "orphan-results": lambda one: bool({*answered(one)} - {*called(one)}),
    "bare-tools": lambda one: any(len(tool["function"]) < 3 for tool in one.get("tools", ())),
}


def test_every_adversity_has_a_test_here():
    assert list(SHOWS) == list(ADVERSITIES)


@pytest.mark.parametrize("name", ADVERSITIES)
def test_an_adversity_that_is_asked_for_appears(name):
    found = one_of(fuzz.conversations(**asked(name)), SHOWS[name])
    assert SHOWS[name](found)


@FEW
@given(fuzz.conversations(reasoning=None, prefill=None))
def test_nothing_adversarial_comes_unasked(conversation):
    shown = {name for name, shows in SHOWS.items() if shows(conversation)}
    # That arguments are a text is no adversity here.
    assert shown <= {"text-arguments"}


AFTER = {
    "system": ("system",),
    "user": ("system", "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


@FEW
@given(fuzz.conversations())
def test_a_conversation_is_well_formed(conversation):
    names = [tool["function"]["name"] for tool in conversation.get("tools", ())]
    assert ("tools" in conversation) == bool(names)
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", name) for name in names)
    assert {call["function"]["name"] for call in calls_of(conversation)} <= {*names}
    assert len(set(called(conversation))) == len(called(conversation))
    waiting: list[str] = []
    before = "system"
    for index, message in enumerate(conversation["messages"]):
        role = message["role"]
        assert next(iter(message)) == "role"
        if role == "tool":
            assert message["tool_call_id"] == waiting.pop(0)
        else:
            assert not waiting
            waiting = [call["id"] for call in message.get("tool_calls", ())]
        assert {
            "system": index == 0,
            "user": before in ("system", "assistant"),
            "assistant": before in ("user", "tool"),
            "tool": before in ("assistant", "tool"),
        }[role]
        assert "reasoning_content" not in message
        before = role
    assert not waiting
    assert before in ("user", "tool")
    for call in calls_of(conversation):
        parameters = next(
            tool["function"]["parameters"]
            for tool in conversation["tools"]
            if tool["function"]["name"] == call["function"]["name"]
        )
        fits(json.loads(call["function"]["arguments"]), parameters)


def fits(value: Any, schema: dict[str, Any]) -> None:
    """Hold a value against a schema."""
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
    assert isinstance(value, kinds[schema["type"]])
    assert value in schema.get("enum", [value])
    if schema["type"] == "object":
        assert {*schema.get("required", ())} <= {*value} <= {*schema["properties"]}
        for key, held in value.items():
            fits(held, schema["properties"][key])
    if schema["type"] == "array":
        for held in value:
            fits(held, schema["items"])


ALL = [name for name in ADVERSITIES if name != "text-arguments"]
ANY = fuzz.conversations(adversarial=ALL, control=(CONTROL,), added=(ADDED,), reasoning=None, prefill=None)


@FEW
@given(ANY)
def test_every_conversation_can_cross_a_wire(conversation):
    assert json.loads(json.dumps(conversation, ensure_ascii=False).encode("utf-8")) == conversation


def test_all_shrinks_to_one_short_message():
    assert smallest(ANY) == {"messages": [{"role": "user", "content": "a"}]}
    assert smallest(fuzz.chat_requests()) == {"messages": [{"role": "user", "content": "a"}]}
    found = smallest(fuzz.conversations(max_turns=1), lambda one: "tool" in roles(one))
    assert found == {
        "messages": [
            {"role": "user", "content": "a"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "call00000", "type": "function", "function": {"name": "a", "arguments": "{}"}},
                ],
            },
            {"role": "tool", "tool_call_id": "call00000", "content": "a"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "a",
                    "description": "a",
                    "parameters": {"type": "object", "properties": {}},
                },
            }
        ],
    }


def test_a_seed_makes_the_same_conversations():
    def drawn(number: int) -> list[Any]:
        seen: list[Any] = []

        @seed(number)
        @settings(FEW, max_examples=10, phases=(Phase.generate,))
        @given(ANY)
        def look(conversation):
            seen.append(conversation)

        look()
        return seen

    assert drawn(1) == drawn(1) != drawn(2)


@FEW
@given(
    fuzz.conversations(system=True, tools=True, reasoning=True, prefill=True, arguments="mapping"),
    fuzz.conversations(system=False, tools=False),
)
def test_what_is_asked_for_is_there(all_of_it, none_of_it):
    assert roles(all_of_it)[0] == "system"
    assert roles(all_of_it)[-1] == "assistant"
    assert all_of_it["tools"]
    assert all("reasoning_content" in message for message in all_of_it["messages"] if message["role"] == "assistant")
    assert all(isinstance(arguments, dict) for arguments in arguments_of(all_of_it))
    assert set(roles(none_of_it)) <= {"user", "assistant"}
    assert "tools" not in none_of_it


MINE = {
    "type": "function",
    "function": {
        "name": "mine",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "null"}, "b": {"$ref": "x"}},
            "required": ["a", "b"],
        },
    },
}


def test_the_callers_own_tools_are_declared_and_called():
    found = smallest(fuzz.conversations(tools=[MINE], max_turns=1), lambda one: calls_of(one))
    assert found["tools"] == [MINE]
    assert arguments_of(found) == ['{"a": null, "b": "a"}']
    assert smallest(fuzz.tool_calls(tools=[MINE], arguments="mapping", first=7)) == [
        {"id": "call00007", "type": "function", "function": {"name": "mine", "arguments": {"a": None, "b": "a"}}}
    ]


@pytest.mark.parametrize(
    ("role", "keywords", "message"),
    [
        ("system", {}, {"role": "system", "content": "a"}),
        ("user", {}, {"role": "user", "content": "a"}),
        ("assistant", {}, {"role": "assistant", "content": "a"}),
        ("assistant", {"reasoning": True}, {"role": "assistant", "content": "a", "reasoning_content": "a"}),
        ("tool", {"call_id": "x"}, {"role": "tool", "tool_call_id": "x", "content": "a"}),
    ],
)
def test_one_message_of_a_role(role, keywords, message):
    assert smallest(fuzz.messages(role=role, **keywords)) == message


@FEW
@given(fuzz.chat_requests(tools=True))
def test_a_request_is_within_what_the_format_allows(body):
    assert 0 <= body.get("temperature", 0) <= 2
    assert 0 < body.get("top_p", 1) <= 1
    assert body.get("max_tokens", 1) >= 1
    assert isinstance(body.get("stop", ""), str) or 1 <= len(body["stop"]) <= 4
    choice = body.get("tool_choice", "auto")
    names = [tool["function"]["name"] for tool in body["tools"]]
    assert choice in ("auto", "none", "required") or choice["function"]["name"] in names
    assert {*body} <= {"messages", "tools", "temperature", "top_p", "max_tokens", "stop", "seed", "tool_choice"}


@pytest.mark.parametrize(
    ("make", "keywords", "says"),
    [
        ("conversations", {"adversarial": ("poisn",)}, "did you mean 'poison'"),
        ("conversations", {"adversarial": "poison"}, "collection of names"),
        ("conversations", {"adversarial": ("control-tokens",)}, r"needs texts: control=\(...\)"),
        ("conversations", {"control": ("<s>",)}, "not asked for, but control is given"),
        ("texts", {"adversarial": ("added-tokens",), "added": ("",)}, "added holds an empty text"),
        ("texts", {"adversarial": ("added-tokens",), "added": ("\ud800",)}, "lone surrogate"),
        ("texts", {"adversarial": ("added-tokens",), "added": "<s>"}, "collection of texts"),
        ("texts", {"max_size": 0}, "max_size is 0"),
        ("conversations", {"tools": False, "adversarial": ("nested",)}, "'nested' shows in tools only"),
        ("conversations", {"system": False, "adversarial": ("developer",)}, "system is False"),
        ("conversations", {"max_turns": 1, "adversarial": ("system-later",)}, "max_turns is 1"),
        ("conversations", {"max_turns": 0}, "max_turns is 0"),
        ("conversations", {"adversarial": ("text-arguments",)}, "says nothing"),
        ("conversations", {"arguments": "json"}, "'text' or 'mapping'"),
        ("conversations", {"tools": []}, "tools is empty"),
        ("conversations", {"tools": [{"type": "function"}]}, r"tools\[0\] has no function.name"),
        ("chat_requests", {"max_turns": -1}, "max_turns is -1"),
        ("messages", {"role": "usr"}, "did you mean 'user'"),
        ("messages", {"tools": [MINE]}, "a user message calls no tools"),
        ("tools", {"max_size": 0}, "max_size is 0"),
        ("tool_calls", {"first": -1}, "first is -1"),
    ],
)
def test_an_impossible_call_is_refused_at_once(make, keywords, says):
    with pytest.raises((UserError, ValueError), match=says):
        getattr(fuzz, make)(**keywords)


@FEW
@given(fuzz.texts_for(Letters()), fuzz.texts_for(Letters(), special=False))
def test_texts_for_a_tokenizer_are_texts(either, without):
    assert either.encode("utf-8")
    assert without
    assert CONTROL not in without


@pytest.mark.parametrize(
    "shows",
    [
        lambda text: CONTROL in text,
        lambda text: ADDED * 2 in text,
        lambda text: CONTROL[:5] in text and CONTROL not in text,
        lambda text: "\x01" in text,
        lambda text: "\u2028" in text,
    ],
    ids=["control", "added twice", "cut control", "an entry", "poison"],
)
def test_texts_for_a_tokenizer_are_hard(shows):
    assert shows(one_of(fuzz.texts_for(Letters()), shows))


def test_texts_for_a_tokenizer_shrink():
    assert smallest(fuzz.texts_for(Letters())) == "a"
    with pytest.raises(ValueError, match="max_pieces is 0"):
        fuzz.texts_for(Letters(), max_pieces=0)


def is_cut(ids: list[int]) -> bool:
    """Tell whether the bytes end inside a character that has begun."""
    data = bytes(number for number in ids if number < 256)
    return any(data[-n:].decode("utf-8", "ignore") == "" and data[-n] >= 0xC2 for n in range(1, min(4, len(data) + 1)))


def test_token_streams_are_of_any_kind():
    made = fuzz.token_streams(Letters(), max_size=6)
    assert smallest(made) == []
    assert smallest(made, lambda ids: 256 in ids) == [256]
    assert is_cut(one_of(made, lambda ids: len(ids) > 1 and is_cut(ids)))
    assert len(one_of(made, lambda ids: len(ids) == 6)) == 6
    with pytest.raises(ValueError, match="max_size is -1"):
        fuzz.token_streams(Letters(), max_size=-1)


@FEW
@given(fuzz.token_streams(Letters(), max_size=6))
def test_token_streams_hold_ids(ids):
    assert len(ids) <= 6
    assert all(0 <= number < 260 for number in ids)


@FEW
@given(st.integers(0, 40).flatmap(lambda length: st.tuples(st.just(length), fuzz.chunkings(length))))
def test_chunkings_cut_all_of_it(drawn):
    length, sizes = drawn
    assert sum(sizes) == length
    assert all(size > 0 for size in sizes)


def test_chunkings_of_every_way():
    ways = {
        smallest(fuzz.chunkings(3), lambda sizes, way=way: sizes == way) for way in [(3,), (1, 1, 1), (1, 2), (2, 1)]
    }
    assert len(ways) == 4
    assert smallest(fuzz.chunkings(9)) == (9,)
    assert smallest(fuzz.chunkings(0)) == ()
    with pytest.raises(ValueError, match="a stream of -1 items"):
        fuzz.chunkings(-1)


def test_fixed_conversations_are_short_and_have_names():
    conversations = fuzz.fixed_conversations()
    assert conversations == fuzz.fixed_conversations()
    assert conversations[0] == {"name": "user", "messages": [{"role": "user", "content": "Hi."}]}
    assert 60 <= len(conversations) == len({one["name"] for one in conversations})
    for one in conversations:
        assert {"name", "messages"} <= {*one} <= {"name", "messages", "tools"}
        assert len(json.dumps(one, ensure_ascii=False).encode("utf-8")) < (2500 if one["name"] == "long" else 1000)
    bodies = [json.dumps([one["messages"], one.get("tools")]) for one in conversations]
    assert len(set(bodies)) == len(bodies)


def test_fixed_conversations_are_new_each_time():
    first = fuzz.fixed_conversations()
    for one in first:
        one["messages"].clear()
        one.get("tools", []).clear()
    assert all(one["messages"] for one in fuzz.fixed_conversations())
    assert fuzz.fixed_conversations()[-1]["tools"]


def test_the_package_loads_hypothesis_when_a_strategy_is_used():
    code = (
        "import sys; import harness.fuzz; harness.fuzz.fixed_conversations()\n"
        "assert 'hypothesis' not in sys.modules\n"
        "harness.fuzz.conversations()\n"
        "assert 'hypothesis' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there():
    assert fuzz.__all__ == dir(fuzz)
    assert all(getattr(fuzz, name) is not None for name in fuzz.__all__)
    with pytest.raises(AttributeError, match="no attribute 'conversation'"):
        fuzz.conversation  # noqa: B018
