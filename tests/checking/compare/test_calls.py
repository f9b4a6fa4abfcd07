"""Tool calls: the same functions, arguments of the same value, and an id of its own for each call."""

import pytest

from harness.checking.compare import calls
from harness.checking.compare.outcome import Hunk, Outcome, equivalent
from harness.checking.compare.postprocess import compare
from harness.values import Reply

REWRITTEN = "arguments are the same value, written otherwise"


def call(name="weather", arguments='{"city": "Paris"}', **more):
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


def hunks(golden, observed):
    """Return the places that differ, and the rules that were needed."""
    rules = []
    found = calls.compare(golden, observed, rules)
    return [(place.at, place.golden, place.observed) for place in found], rules


@pytest.mark.parametrize(
    ("golden", "observed"),
    [
        (None, None),
        (None, ()),
        ((), None),
        ((call(),), (call(id="a"),)),
        ((call(), call()), (call(id="a"), call(id="b"))),
        ((call(arguments="{}"), call("time", "")), (call(arguments="{}", id="1"), call("time", "", id="2"))),
    ],
)
def test_equal_calls_need_no_rule(golden, observed):
    assert hunks(golden, observed) == ([], [])


@pytest.mark.parametrize(
    ("golden", "observed"),
    [
        ('{"city": "Paris"}', '{"city":"Paris"}'),
        ('{"city": "Paris"}', '{\n  "city" : "Paris"\n}'),
        ('{"city": "\u0141\u00f3d\u017a"}', '{"city": "\\u0141\\u00f3d\\u017a"}'),
        ('{"city": "a/b"}', '{"city": "a\\/b"}'),
        ('{"n": [1.50, {}]}', '{"n": [1.5, { }]}'),
        ("{}", " {} "),
    ],
)
def test_the_same_value_written_otherwise_is_equivalent(golden, observed):
    assert hunks((call(arguments=golden),), (call(arguments=observed, id="a"),)) == ([], [REWRITTEN])


@pytest.mark.parametrize(
    ("golden", "observed", "shown"),
    [
        ('{"n": 1}', '{"n": "1"}', '"{\\"n\\": \\"1\\"}"'),
        ('{"n": 1}', '{"n": 1.0}', '"{\\"n\\": 1.0}"'),
        ('{"n": 1}', '{"n": true}', '"{\\"n\\": true}"'),
        ('{"n": 1}', '{"n": 1, "m": null}', '"{\\"n\\": 1, \\"m\\": null}"'),
        ('{"n": 1}', "", '""'),
        ('{"n": 1}', '{"n": 1', '"{\\"n\\": 1"'),
        ('{"n": 1}', '{"n": 1}}', '"{\\"n\\": 1}}"'),
        ('{"n": 1}', None, "null"),
        ('{"n": 1}', '"{\\"n\\": 1}"', '"\\"{\\\\\\"n\\\\\\": 1}\\""'),
    ],
)
def test_another_value_is_a_difference(golden, observed, shown):
    places, rules = hunks((call(arguments=golden),), (call(arguments=observed, id="a"),))
    assert places == [("tool_calls[0].function.arguments", '"{\\"n\\": 1}"', shown)]
    assert rules == []


def test_arguments_that_are_an_object_and_no_text_are_a_difference():
    places, _ = hunks((call(arguments='{"n": 1}'),), (call(arguments={"n": 1}, id="a"),))
    assert places == [("tool_calls[0].function.arguments", '"{\\"n\\": 1}"', '{"n": 1}')]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"n":' * 100_000])
def test_arguments_nested_without_end_are_a_difference(text):
    places, rules = hunks((call(arguments='{"n": 1}'),), (call(arguments=text, id="a"),))
    assert [at for at, _, _ in places] == ["tool_calls[0].function.arguments"]
    assert rules == []


def test_another_name_and_type_are_differences():
    observed = {**call("wether", id="a"), "type": "custom"}
    assert hunks((call(),), (observed,)) == (
        [
            ("tool_calls[0].type", '"function"', '"custom"'),
            ("tool_calls[0].function.name", '"weather"', '"wether"'),
        ],
        [],
    )


@pytest.mark.parametrize(
    ("more", "shown"), [({}, "null"), ({"id": None}, "null"), ({"id": ""}, '""'), ({"id": 7}, "7")]
)
def test_a_call_without_an_id_is_a_difference(more, shown):
    assert hunks((call(),), (call(**more),)) == ([("tool_calls[0].id", "(an id)", shown)], [])


def test_two_calls_with_one_id_are_a_difference():
    places, _ = hunks((call(), call("time"), call()), (call(id="a"), call("time", id="b"), call(id="a")))
    assert places == [("tool_calls.id", "(ids of their own)", '"a", "b", "a"')]


def test_two_calls_in_the_other_order_are_differences_at_their_places():
    places, _ = hunks((call(), call("time", "{}")), (call("time", "{}", id="a"), call(id="b")))
    assert [at for at, _, _ in places] == [
        "tool_calls[0].function.name",
        "tool_calls[0].function.arguments",
        "tool_calls[1].function.name",
        "tool_calls[1].function.arguments",
    ]


@pytest.mark.parametrize(
    ("golden", "observed", "names"),
    [
        ((call(),), None, ('["weather"]', "[]")),
        (None, (call(id="a"),), ("[]", '["weather"]')),
        ((call(), call("time")), (call(id="a"),), ('["weather", "time"]', '["weather"]')),
        ((call(),), ({"id": "a"}, {"function": 3}), ('["weather"]', "[null, null]")),
    ],
)
def test_a_call_too_few_or_too_many_is_one_difference(golden, observed, names):
    assert hunks(golden, observed) == ([("tool_calls", *names)], [])


def test_a_call_without_a_function_is_a_difference_and_no_error():
    places, _ = hunks((call(),), ({"id": "a", "function": "weather"},))
    assert [at for at, _, _ in places] == [
        "tool_calls[0].type",
        "tool_calls[0].function.name",
        "tool_calls[0].function.arguments",
    ]


def test_the_rule_and_the_place_stand_in_the_reply_s_comparison():
    golden = Reply(content="", tool_calls=(call(),), finish_reason="tool_calls")
    right = Reply(content=None, tool_calls=(call(arguments='{"city":"Paris"}', id="a"),), finish_reason="tool_calls")
    assert compare(golden, right, {}) == equivalent(f"an empty content is null or absent; {REWRITTEN}")
    wrong = right.model_copy(update={"tool_calls": (call(arguments='{"city":"Rome"}', id="a"),)})
    found = compare(golden, wrong, {})
    assert found.outcome is Outcome.DIVERGED
    assert found.difference.hunks == (
        Hunk(
            at="tool_calls[0].function.arguments",
            golden='"{\\"city\\": \\"Paris\\"}"',
            observed='"{\\"city\\":\\"Rome\\"}"',
        ),
    )
    assert found.difference.kind == "integration"
