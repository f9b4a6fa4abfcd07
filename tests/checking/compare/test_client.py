"""The client stage: what arrives must be what was sent, to the order of keys and the type of a number."""

import pytest

from harness.checking.compare.client import compare
from harness.checking.compare.outcome import EQUAL, Comparison, Difference, Hunk, Outcome, diverged, unobserved
from harness.values import Failure, Refusal, Request, Unobserved

HELLO = {"role": "user", "content": "Hello"}
SYSTEM = {"role": "system", "content": "Be brief."}


def message(**fields):
    return Request(messages=({"role": "user", **fields},))


def places(golden, observed):
    """Return the hunks and the causes of a divergence."""
    found = compare(golden, observed)
    assert found.outcome is Outcome.DIVERGED
    assert found.difference.kind == "integration"
    return found.difference.hunks, found.difference.causes


def test_equal_requests_are_equal():
    golden = Request(messages=(SYSTEM, HELLO), tools=({"type": "function"},), settings={"temperature": 0})
    assert compare(golden, golden.model_copy(deep=True)) == EQUAL


@pytest.mark.parametrize(
    ("sent", "arrived", "shown"),
    [
        (1, True, ("1", "true")),
        (1, 1.0, ("1", "1.0")),
        (True, 1.0, ("true", "1.0")),
        (0, False, ("0", "false")),
        (1, "1", ("1", '"1"')),
        ("", None, ('""', "null")),
        ([], {}, ("[]", "{}")),
        ([], None, ("[]", "null")),
        ("Hello ", "Hello", ('"Hello "', '"Hello"')),
        ("a\r\nb", "a\nb", ('"a\\r\\nb"', '"a\\nb"')),
        ("\u00e9", "e\u0301", ('"\u00e9"', '"e\u0301"')),
    ],
)
def test_a_change_of_value_or_type_is_a_difference(sent, arrived, shown):
    assert places(message(content=sent), message(content=arrived)) == (
        (Hunk(at="messages[0].content", golden=shown[0], observed=shown[1]),),
        ("messages.content\0False",),
    )


def test_null_is_not_absent():
    null, absent = message(content=None, tool_calls=[]), message(tool_calls=[])
    assert places(null, absent) == (
        (Hunk(at="messages[0].content", golden="null", observed="(absent)"),),
        ("messages.content\0True",),
    )
    assert places(absent, null) == (
        (Hunk(at="messages[0].content", golden="(absent)", observed="null"),),
        ("messages.content\0False",),
    )


def test_the_text_absent_that_is_lost_is_a_difference():
    assert compare(message(content="(absent)"), message()).outcome is Outcome.DIVERGED


def test_the_last_text_absent_of_a_list_that_is_lost_is_a_difference():
    golden = Request(messages=(HELLO,), tools=({"enum": ["here", "(absent)"]},))
    observed = Request(messages=(HELLO,), tools=({"enum": ["here"]},))
    assert compare(golden, observed).outcome is Outcome.DIVERGED


def test_the_order_of_keys_is_a_difference():
    golden = message(content="Hello", name="Ann")
    observed = Request(messages=({"role": "user", "name": "Ann", "content": "Hello"},))
    assert places(golden, observed) == (
        (
            Hunk(
                at="messages[0] (order of keys)",
                golden='["role", "content", "name"]',
                observed='["role", "name", "content"]',
            ),
        ),
        ("messages (order of keys)\0False",),
    )


def test_the_order_of_keys_deep_in_a_tool_is_a_difference():
    golden = Request(messages=(HELLO,), tools=({"function": {"parameters": {"a": 1, "b": 2}}},))
    observed = Request(messages=(HELLO,), tools=({"function": {"parameters": {"b": 2, "a": 1}}},))
    assert places(golden, observed)[0] == (
        Hunk(at="tools[0].function.parameters (order of keys)", golden='["a", "b"]', observed='["b", "a"]'),
    )


def test_a_lost_message_is_shown_whole():
    golden, observed = Request(messages=(HELLO, SYSTEM)), Request(messages=(HELLO,))
    assert compare(golden, observed) == diverged(
        Difference(
            summary='messages[1] is (absent), sent was {"role": "system", "content": "Be brief."}',
            hunks=(Hunk(at="messages[1]", golden='{"role": "system", "content": "Be brief."}', observed="(absent)"),),
            causes=("messages\0True",),
        )
    )


def test_an_added_message_is_a_difference():
    assert places(Request(messages=(HELLO,)), Request(messages=(HELLO, SYSTEM))) == (
        (Hunk(at="messages[1]", golden="(absent)", observed='{"role": "system", "content": "Be brief."}'),),
        ("messages\0False",),
    )


def test_messages_in_another_order_differ_field_by_field():
    found = compare(Request(messages=(SYSTEM, HELLO)), Request(messages=(HELLO, SYSTEM)))
    assert [place.at for place in found.difference.hunks] == [
        "messages[0].role",
        "messages[0].content",
        "messages[1].role",
        "messages[1].content",
    ]
    assert found.difference.summary == 'messages[0].role is "user", sent was "system" (and 3 more)'


def test_tools_that_are_lost_or_invented():
    tools = ({"type": "function", "function": {"name": "add"}},)
    with_tools, without = Request(messages=(HELLO,), tools=tools), Request(messages=(HELLO,))
    shown = '[{"type": "function", "function": {"name": "add"}}]'
    assert places(with_tools, without)[0] == (Hunk(at="tools", golden=shown, observed="null"),)
    assert places(without, with_tools)[0] == (Hunk(at="tools", golden="null", observed=shown),)
    assert places(without, Request(messages=(HELLO,), tools=()))[0] == (Hunk(at="tools", golden="null", observed="[]"),)


def test_the_tool_choice_must_arrive():
    golden = Request(messages=(HELLO,), tool_choice={"type": "function", "function": {"name": "add"}})
    assert places(golden, Request(messages=(HELLO,), tool_choice="auto"))[0][0].at == "tool_choice"


def asked(**settings):
    return Request(messages=(HELLO,), settings=settings)


def test_settings_that_nobody_asked_for_are_the_servers_to_choose():
    assert compare(asked(temperature=0), asked(temperature=0, top_k=40, repeat_penalty=1.0)) == EQUAL
    assert compare(asked(), asked(temperature=0.2)) == EQUAL


def test_what_is_neither_asked_for_nor_the_part_s_default_is_another_s():
    golden, observed = asked(temperature=0), asked(temperature=0, top_k=1, top_p=0.95)
    assert compare(golden, observed.model_copy(update={"defaults": ("top_k", "top_p")})) == EQUAL
    found = compare(golden, observed.model_copy(update={"defaults": ("top_p",)}))
    assert found.difference.summary == "settings.top_k is 1, nobody asked for it"
    assert found.difference.causes == ("settings.top_k\0False",)


def test_a_setting_asked_for_that_is_not_in_force():
    golden = asked(temperature=0, stop=["END"], max_tokens=8)
    assert places(golden, asked(temperature=0.2, stop=["END"])) == (
        (
            Hunk(at="settings.temperature", golden="0", observed="0.2"),
            Hunk(at="settings.max_tokens", golden="8", observed="(absent)"),
        ),
        ("settings.temperature\0False", "settings.max_tokens\0True"),
    )


def test_a_number_of_a_setting_may_change_its_type_but_not_its_value():
    assert compare(asked(temperature=0), asked(temperature=0.0)) == EQUAL
    assert compare(asked(stop=["a", "b"]), asked(stop=["b", "a"])).outcome is Outcome.DIVERGED


def test_the_same_loss_in_another_message_is_the_same_cause():
    first = compare(
        Request(messages=({**HELLO, "name": "Ann"}, SYSTEM)),
        Request(messages=(HELLO, SYSTEM)),
    )
    second = compare(
        Request(messages=(SYSTEM, HELLO, {**HELLO, "name": "Bob"})),
        Request(messages=(SYSTEM, HELLO, HELLO)),
    )
    assert first.difference.hunks[0].at == "messages[0].name"
    assert second.difference.hunks[0].at == "messages[2].name"
    assert first.difference.causes == second.difference.causes == ("messages.name\0True",)


def test_a_loss_and_a_change_of_the_same_field_are_two_causes():
    lost = compare(message(content="Hello"), message())
    changed = compare(message(content="Hello"), message(content="hello"))
    assert not set(lost.difference.causes) & set(changed.difference.causes)


def test_endings():
    golden = message(content="Hello")
    assert compare(golden, None) == unobserved("not reached")
    assert compare(golden, Unobserved(reason="hidden")) == unobserved("hidden")
    assert compare(golden, Refusal(error="TypeError", message="no name")) == Comparison(
        outcome=Outcome.FAILED,
        difference=Difference(summary="it refuses its input: TypeError: no name", causes=("refuses\0TypeError",)),
    )
    assert compare(golden, Failure(reason="crash", status=1)).outcome is Outcome.FAILED
