"""The postprocess stage: the reply to the caller, whole or as a stream."""

import pytest

from harness.checking.compare.outcome import (
    EQUAL,
    Comparison,
    Difference,
    Hunk,
    Outcome,
    diverged,
    equivalent,
    unobserved,
)
from harness.checking.compare.postprocess import compare
from harness.values import Failure, Refusal, Reply, Unobserved, Usage

PARTIAL = "an incomplete character is shown as U+FFFD instead of withheld"
END_COUNTED = "its completion count includes the end token"


def usage(completion=5, prompt=9):
    return Usage(prompt_tokens=prompt, completion_tokens=completion)


def reply(content="Hello there", **changes):
    return Reply(**{"content": content, "finish_reason": "stop", "usage": usage(), **changes})


def stream(*contents, first=None, **changes):
    """Return a reply as the caller of a stream has it, who adds up its deltas."""
    deltas = ({"role": "assistant"} if first is None else first, *({"content": text} for text in contents), {})
    return reply("".join(contents), deltas=deltas, usage=None, **changes)


def judge(golden, observed, **policies):
    return compare(golden, observed, policies)


def places(found):
    assert found.outcome is Outcome.DIVERGED
    assert found.difference.kind == "integration"
    return [(place.at, place.golden, place.observed) for place in found.difference.hunks]


# Content


@pytest.mark.parametrize("content", ["Hello", "", " \n", None, "\U0001f98a e\u0301 \ufffd"])
def test_equal_replies_are_equal(content):
    assert judge(reply(content), reply(content)) == EQUAL


def test_trimmed_whitespace_is_a_difference():
    assert judge(reply("\n\n  indented \n"), reply("indented")) == diverged(
        Difference(
            summary='content lacks "\n\n  "',
            hunks=(
                Hunk(at="content", golden="\n\n  ", observed="", before="", after="indented \n"),
                Hunk(at="content", golden=" \n", observed="", before="  indented", after=""),
            ),
            causes=("\n\n  \0", " \n\0"),
        )
    )


def test_the_same_loss_in_two_cases_is_one_cause():
    one, other = judge(reply("Yes.\n"), reply("Yes.")), judge(reply("Of course not!\n"), reply("Of course not!"))
    assert one.difference.causes == other.difference.causes == ("\n\0",)


@pytest.mark.parametrize(
    ("golden", "observed", "shown"),
    [
        ("caf\u00e9", "cafe\u0301", [("content", "caf\u00e9", "cafe\u0301")]),
        ("a\r\nb", "a\nb", [("content", "\r", "")]),
        ("", " ", [("content", "", " ")]),
        (None, " ", [("content", "null", '" "')]),
        (" ", None, [("content", '" "', "null")]),
        ("Hi", None, [("content", '"Hi"', "null")]),
    ],
)
def test_content_is_compared_by_its_code_points(golden, observed, shown):
    assert places(judge(reply(golden), reply(observed))) == shown


@pytest.mark.parametrize(("golden", "observed"), [(None, ""), ("", None)])
def test_an_empty_content_may_be_null_or_absent(golden, observed):
    assert judge(reply(golden), reply(observed)) == equivalent("an empty content is null or absent")


def test_a_long_text_is_shortened_in_the_summary_only():
    golden, observed = reply("x" * 100), reply("y" * 61)
    found = judge(golden, observed)
    assert found.difference.summary == f'content is "{"y" * 60}...", not "{"x" * 60}..."'
    assert places(found) == [("content", "x" * 100, "y" * 61)]


@pytest.mark.parametrize(
    ("golden", "observed", "summary"),
    [
        ({"content": "one two"}, {"content": "one"}, 'content lacks " two"'),
        ({"content": "one"}, {"content": "one two"}, 'content: " two" is too much'),
        ({"content": "one"}, {"content": "two"}, 'content is "two", not "one"'),
        ({"reasoning": "one"}, {"reasoning": "two"}, 'reasoning is "two", not "one"'),
        ({}, {"finish_reason": "length"}, 'finish_reason is "length", not "stop"'),
        ({}, {"finish_reason": None}, 'finish_reason is null, not "stop"'),
        ({}, {"usage": usage(completion=3)}, "usage.completion_tokens is 3, not 5"),
    ],
)
def test_the_first_difference_is_the_summary(golden, observed, summary):
    assert judge(reply(**golden), reply(**observed)).difference.summary == summary


def test_reasoning_is_compared_like_content():
    found = judge(reply(reasoning="I think"), reply(reasoning="I  think"))
    assert places(found) == [("reasoning", "", " ")]
    assert places(judge(reply(reasoning="x"), reply())) == [("reasoning", '"x"', "null")]


# Incomplete characters


def test_an_incomplete_character_may_be_shown_or_withheld():
    golden = reply("one \U0001f98a", withheld=2)
    assert judge(golden, reply("one \U0001f98a")) == EQUAL
    assert judge(golden, reply("one \U0001f98a\ufffd")) == equivalent(PARTIAL)
    assert judge(golden, reply("one \U0001f98a\ufffd\ufffd")) == equivalent(PARTIAL)


def test_a_replacement_character_where_nothing_was_withheld_is_a_difference():
    assert places(judge(reply("one"), reply("one\ufffd"))) == [("content", "", "\ufffd")]


def test_a_replacement_character_inside_is_a_difference_though_something_was_withheld():
    found = judge(reply("one two", withheld=1), reply("one\ufffd two\ufffd"))
    assert places(found)[0] == ("content", "", "\ufffd")


def test_a_replacement_character_that_the_model_wrote_stands_before_the_one_not_withheld():
    assert judge(reply("one \ufffd", withheld=2), reply("one \ufffd\ufffd")) == equivalent(PARTIAL)


def test_more_replacement_characters_than_bytes_withheld_are_a_difference():
    assert judge(reply("one", withheld=1), reply("one\ufffd\ufffd\ufffd")).outcome is Outcome.DIVERGED


# Finish reason and counts


@pytest.mark.parametrize("wrong", ["length", "tool_calls", None])
def test_the_finish_reason_must_be_right(wrong):
    shown = "null" if wrong is None else f'"{wrong}"'
    found = judge(reply(), reply(finish_reason=wrong))
    assert places(found) == [("finish_reason", '"stop"', shown)]
    assert found.difference.summary == f'finish_reason is {shown}, not "stop"'
    assert found.difference.causes == (f"finish_reason\0{shown}",)


def test_the_end_token_may_be_counted():
    assert judge(reply(), reply(usage=usage(completion=6))) == equivalent(END_COUNTED)


def test_of_an_answer_cut_by_length_no_end_token_can_be_counted():
    golden = reply(finish_reason="length")
    assert places(judge(golden, reply(finish_reason="length", usage=usage(completion=6)))) == [
        ("usage.completion_tokens", "5", "6")
    ]


@pytest.mark.parametrize("count", [0, 4, 7])
def test_a_wrong_completion_count(count):
    assert places(judge(reply(), reply(usage=usage(completion=count)))) == [
        ("usage.completion_tokens", "5", str(count))
    ]


@pytest.mark.parametrize("count", [0, 8, 10])
def test_a_wrong_prompt_count(count):
    assert places(judge(reply(), reply(usage=usage(prompt=count)))) == [("usage.prompt_tokens", "9", str(count))]


def test_only_a_stream_may_leave_the_counts_out():
    assert places(judge(reply(), reply(usage=None))) == [("usage", "prompt_tokens=9 completion_tokens=5", "(absent)")]
    assert judge(reply(), stream("Hello there")) == EQUAL


def test_the_counts_of_a_stream_must_be_right_where_it_has_them():
    observed = stream("Hello there").model_copy(update={"usage": usage(prompt=3)})
    assert places(judge(reply(), observed)) == [("usage.prompt_tokens", "9", "3")]


def test_two_replies_without_counts_are_equal():
    assert judge(reply(usage=None), reply(usage=None)) == EQUAL


@pytest.mark.parametrize("field", ["prompt", "completion"])
def test_the_same_miscount_in_two_cases_is_one_cause(field):
    one = judge(reply(usage=usage(**{field: 5})), reply(usage=usage(**{field: 7})))
    other = judge(reply(usage=usage(**{field: 31})), reply(usage=usage(**{field: 33})))
    assert set(one.difference.causes) & set(other.difference.causes)


# What a parser took apart


AROUND = "{} differs in the white space around it"


def test_white_space_before_a_withheld_character_may_be_withheld_with_it():
    rule = "the white space before an incomplete character is withheld with it"
    golden = reply("one \n", withheld=2)
    assert judge(golden, reply("one")) == equivalent(rule)
    assert judge(golden, stream("one")) == equivalent(rule)
    assert places(judge(golden, reply("one "))) == [("content", "\n", "")], "all of it or none"
    assert places(judge(reply("one \n"), reply("one"))) == [("content", " \n", "")], "nothing was withheld"
    assert places(judge(reply(" one ", withheld=1), reply("one"))) != []


@pytest.mark.parametrize("parts", [{"reasoning": "why"}, {"tool_calls": ({"type": "function", "id": "a"},)}])
def test_white_space_around_a_content_beside_other_parts_does_not_count(parts):
    golden = reply("one two", **parts)
    for text in ("\n\none two", "one two \n", " one two "):
        assert judge(golden, reply(text, **parts)) == equivalent(AROUND.format("content"))
    assert places(judge(golden, reply("one  two", **parts))) == [("content", "", " ")]
    assert places(judge(reply("one two"), reply("one two "))) == [("content", "", " ")], "no part beside it"


def test_white_space_around_reasoning_does_not_count():
    golden = reply("one", reasoning="why not")
    assert judge(golden, reply("one", reasoning="\nwhy not\n")) == equivalent(AROUND.format("reasoning"))
    both = reply("\n\none", reasoning="why not\n")
    assert judge(golden, both) == equivalent(f"{AROUND.format('content')}; {AROUND.format('reasoning')}")
    assert judge(reply(reasoning=""), reply(reasoning="\n")) == equivalent(AROUND.format("reasoning"))
    assert judge(reply(reasoning=""), reply()) == equivalent(AROUND.format("reasoning")), "an empty block is none"


# Tool calls


def call(arguments, name="add"):
    return {"id": "call_0", "type": "function", "function": {"name": name, "arguments": arguments}}


def test_the_arguments_of_a_call_are_compared_by_their_value():
    golden = reply(None, tool_calls=(call('{"a": 1}'),), finish_reason="tool_calls")
    assert judge(golden, golden.model_copy(deep=True)) == EQUAL
    rewritten = reply(None, tool_calls=(call('{"a":1}'),), finish_reason="tool_calls")
    assert judge(golden, rewritten) == equivalent("arguments are the same value, written otherwise")
    observed = reply(None, tool_calls=(call('{"a":2}'),), finish_reason="tool_calls")
    assert places(judge(golden, observed)) == [("tool_calls[0].function.arguments", '"{\\"a\\": 1}"', '"{\\"a\\":2}"')]


def test_calls_that_are_lost_added_or_reordered():
    one, two = call("{}"), {**call("{}", name="sub"), "id": "call_1"}
    names = '["add", "sub"]', '["add"]'
    assert places(judge(reply(tool_calls=(one, two)), reply(tool_calls=(one,)))) == [("tool_calls", *names)]
    assert places(judge(reply(tool_calls=(one,)), reply(tool_calls=(one, two)))) == [("tool_calls", *names[::-1])]
    assert [at for at, *_ in places(judge(reply(tool_calls=(one, two)), reply(tool_calls=(two, one))))] == [
        "tool_calls[0].function.name",
        "tool_calls[1].function.name",
    ]
    assert judge(reply(), reply(tool_calls=())) == EQUAL


# Streams


def test_a_healthy_stream_is_equal_however_it_is_cut():
    assert judge(reply(), stream("Hel", "lo", " ", "there")) == EQUAL
    assert judge(reply(""), stream()) == EQUAL


def test_a_stream_that_sums_to_another_text():
    assert places(judge(reply(), stream("Hello", "there"))) == [("content", "Hello there", "Hellothere")]


def test_the_role_must_come_first():
    observed = stream("Hello there", first={"content": ""})
    assert places(judge(reply(), observed)) == [("deltas[0].role", "assistant", "{'content': ''}")]
    late = reply(deltas=({"content": "Hello there"}, {"role": "assistant"}), usage=None)
    assert places(judge(reply(), late)) == [("deltas[0].role", "assistant", "{'content': 'Hello there'}")]
    with_text = reply(deltas=({"role": "assistant", "content": "Hello there"},), usage=None)
    assert judge(reply(), with_text) == EQUAL


def test_a_stream_without_any_delta_has_no_role():
    assert places(judge(reply(""), reply("", deltas=(), usage=None))) == [("deltas[0].role", "assistant", "(no delta)")]


def test_a_missing_role_is_one_cause_in_all_cases():
    one = judge(reply("Yes"), reply("Yes", deltas=({"content": "Yes"},), usage=None))
    other = judge(reply("No"), reply("No", deltas=({"content": "No"},), usage=None))
    assert set(one.difference.causes) & set(other.difference.causes)


def test_half_a_character_in_a_delta_is_a_difference():
    found = judge(reply("a \U0001f98a!"), stream("a ", "\ufffd", "\ufffd", "!"))
    assert places(found) == [
        ("content", "\U0001f98a", "\ufffd\ufffd"),
        ("deltas.content", "whole characters", "\ufffd"),
    ]


def test_the_end_of_a_stream_that_withholds_half_a_character():
    golden = reply("one \U0001f98a", withheld=2)
    assert judge(golden, stream("one", " \U0001f98a")) == EQUAL
    last = reply(
        "one \U0001f98a\ufffd", deltas=({"role": "assistant"}, {"content": "one \U0001f98a\ufffd"}), usage=None
    )
    assert judge(golden, last) == equivalent(PARTIAL)


def test_the_end_of_a_stream_may_show_an_incomplete_character_as_a_whole_reply_may():
    golden = reply("one \U0001f98a", withheld=2)
    assert judge(golden, stream("one ", "\U0001f98a", "\ufffd")) == equivalent(PARTIAL)


def test_a_replacement_character_that_the_model_wrote_may_be_streamed():
    assert judge(reply("one \ufffd two"), stream("one ", "\ufffd", " two")) == EQUAL


# Policies


CUT = reply("Hello", usage=usage(completion=2))


def test_a_declared_policy_makes_its_own_reply_equivalent():
    golden = reply(policies={"end-text-stops": CUT})
    expected = equivalent("declared policy end-text-stops: by design", policy="end-text-stops")
    assert compare(golden, CUT, {"end-text-stops": "by design"}) == expected
    assert compare(golden, stream("Hello"), {"end-text-stops": "by design"}) == expected


def test_an_undeclared_policy_is_named_and_the_one_cause():
    golden = reply(policies={"end-text-stops": CUT})
    found = compare(golden, CUT, {"another": "by design"})
    assert found == diverged(
        Difference(
            summary="the reply is that of the policy end-text-stops, which this stack does not declare: "
            'content lacks " there"',
            hunks=(
                Hunk(at="content", golden=" there", observed="", before="Hello", after=""),
                Hunk(at="usage.completion_tokens", golden="5", observed="2"),
            ),
            causes=("end-text-stops",),
        )
    )


def test_a_declared_policy_excuses_no_other_reply():
    golden = reply(policies={"end-text-stops": CUT})
    found = compare(golden, reply("Hello t", usage=usage(completion=2)), {"end-text-stops": "by design"})
    assert places(found) == [("content", "there", "t"), ("usage.completion_tokens", "5", "2")]


def test_of_two_policies_with_the_same_reply_the_declared_one_counts():
    golden = reply(policies={"first": CUT, "second": CUT})
    assert compare(golden, CUT, {"second": "by design"}).policy == "second"


def test_a_policy_is_not_needed_for_the_specified_reply():
    golden = reply(policies={"end-text-stops": CUT})
    assert compare(golden, reply(), {"end-text-stops": "by design"}) == EQUAL


def test_two_rules_at_once_are_both_stated():
    golden = reply("one", withheld=1)
    assert judge(golden, reply("one\ufffd", usage=usage(completion=6))) == equivalent(f"{PARTIAL}; {END_COUNTED}")


def test_endings():
    assert judge(reply(), None) == unobserved("not reached")
    assert judge(reply(), Unobserved(reason="hidden")) == unobserved("hidden")
    assert judge(reply(), Failure(reason="hang", seconds=1)).outcome is Outcome.FAILED
    assert judge(reply(), Refusal(error="KeyError", message="'text'")) == Comparison(
        outcome=Outcome.FAILED,
        difference=Difference(summary="it refuses its input: KeyError: 'text'", causes=("refuses\0KeyError",)),
    )
