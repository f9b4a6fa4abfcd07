"""The template stage: bytes, not looks; but for a clock that cannot be set, and what a policy makes of it."""

from datetime import datetime

import pytest

from harness.checking.compare import template
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
from harness.values import Failure, Prompt, Refusal, Unobserved


def prompt(text, suffix=None):
    return Prompt(text=text, suffix=suffix)


def compare(golden, observed, **policies):
    return template.compare(golden, observed, policies)


@pytest.mark.parametrize("text", ["", "a\r\nb\n", "<|im_start|>user\nH\u00e9 \U0001f98a<|im_end|>\n", "\u200b\u0301"])
def test_equal_texts_are_equal_whatever_else_is_known(text):
    reference = Prompt(text=text, suffix="x", literals=((0, 1),), stop=("END",))
    assert compare(reference, Prompt(text=text)) == EQUAL


@pytest.mark.parametrize(
    ("golden", "observed", "places"),
    [
        ("a\r\nb", "a\nb", [("1", "\r", "", "a", "\nb")]),
        ("a\nb", "a\r\nb", [("1", "", "\r", "a", "\nb")]),
        ("caf\u00e9!", "cafe\u0301!", [("0", "caf\u00e9", "cafe\u0301", "", "!")]),
        ("end\n", "end", [("1", "\n", "", "end", "")]),
        ("end", "end\n", [("1", "", "\n", "end", "")]),
        ("a  b", "a b", [("2", " ", "", "a ", "b")]),
        ("a\u00a0b", "a b", [("1", "\u00a0", " ", "a", "b")]),
        ("a\u200bb", "ab", [("0", "a\u200bb", "ab", "", "")]),
        ("Hi. Yes.", "Hi, Yes!", [("1", ".", ",", "Hi", " Yes."), ("4", ".", "!", ". Yes", "")]),
    ],
)
def test_the_smallest_place_is_named(golden, observed, places):
    found = compare(prompt(golden), prompt(observed))
    made = [Hunk(at=at, golden=g, observed=o, before=b, after=a) for at, g, o, b, a in places]
    assert found.outcome is Outcome.DIVERGED
    assert list(found.difference.hunks) == made
    assert found.difference.summary == f"the text differs in {len(made)} place{'s' if len(made) > 1 else ''}"
    assert found.difference.kind == "integration"
    assert found.difference.causes == tuple(place.signature for place in made)


def test_the_lost_end_that_opens_the_turn_is_named():
    found = compare(prompt("<user>Hi\n<bot>\n", "<bot>\n"), prompt("<user>Hi\n"))
    assert found == diverged(
        Difference(
            summary="the end that opens the assistant's turn is missing",
            hunks=(Hunk(at="5", golden="<bot>\n", observed="", before=">Hi\n", after=""),),
            causes=("<bot>\n\0",),
        )
    )


def test_half_of_the_end_lost_is_an_ordinary_difference():
    found = compare(prompt("<user>Hi\n<bot>\n", "<bot>\n"), prompt("<user>Hi\n<bot>"))
    assert found.difference.summary == "the text differs in 1 place"


def test_the_same_loss_in_two_cases_is_one_cause():
    one = compare(prompt("<user>Hi<bot>\n", "<bot>\n"), prompt("<user>Hi"))
    other = compare(prompt("<user>Tell me more.\n\n<bot>\n", "<bot>\n"), prompt("<user>Tell me more.\n\n"))
    assert one.difference.causes == other.difference.causes == ("<bot>\n\0",)
    assert one.difference.hunks[0].at != other.difference.hunks[0].at


def test_another_difference_is_another_cause():
    one = compare(prompt("Hi\n"), prompt("Hi"))
    other = compare(prompt("Hi"), prompt("Hi\n"))
    assert not set(one.difference.causes) & set(other.difference.causes)


# A clock of its own

DATED = Prompt(text="Today is 02 Jan 2026.\nHi", dates=((9, 20, "%d %b %Y"),))
LATER = datetime(2027, 11, 30, 23, 59, 59)


def test_a_part_with_its_own_clock_is_equivalent_but_for_the_clock():
    observed = Prompt(text="Today is 30 Nov 2027.\nHi", clock=LATER)
    assert compare(DATED, observed) == equivalent("but for the clock, which is 2027-11-30 there and cannot be set")


def test_a_clock_that_is_the_golden_s_needs_no_rule():
    assert compare(DATED, Prompt(text=DATED.text, clock=LATER)) == EQUAL


@pytest.mark.parametrize(
    "text",
    [
        "Today is 02 Jan 2027.\nHi",  # neither of the two clocks
        "Today is 30 Nov 2027.\nHi!",  # the clock's text, and a difference beside
        "Today is 30 Nov 27.\nHi",  # the date in another form
        "Today is .\nHi",
    ],
)
def test_another_text_than_the_clock_s_is_a_difference(text):
    assert compare(DATED, Prompt(text=text, clock=LATER)).outcome is Outcome.DIVERGED


def test_with_a_clock_only_what_is_not_the_date_is_shown_as_different():
    found = compare(DATED, Prompt(text="Today is 30 Nov 2027.\nHi!", clock=LATER))
    places = [(place.golden, place.observed, place.before) for place in found.difference.hunks]
    assert places == [("", "!", ".\nHi")]


def test_the_clock_counts_only_where_the_golden_knows_the_dates_and_the_part_its_clock():
    at = Prompt(text="Today is 30 Nov 2027.\nHi", clock=LATER)
    assert compare(DATED.model_copy(update={"dates": ()}), at).outcome is Outcome.DIVERGED
    assert compare(DATED, at.model_copy(update={"clock": None})).outcome is Outcome.DIVERGED


def test_the_texts_of_policies_are_those_of_the_parts_clock_too():
    golden = DATED.model_copy(update={"policies": {"null-as-empty": "Today is 02 Jan 2026.\n"}})
    observed = Prompt(text="Today is 30 Nov 2027.\n", clock=LATER)
    assert compare(golden, observed, **{"null-as-empty": "so it does"}) == equivalent(
        "declared policy null-as-empty: so it does", policy="null-as-empty"
    )
    undeclared = compare(golden, observed)
    assert undeclared.difference.causes == ("null-as-empty",)


# Policies


JOINED = {"parts-joined": "<user>ab", "parts-joined-by-newline": "<user>a\nb"}


def test_the_text_of_a_declared_policy_is_equivalent():
    golden = Prompt(text="<user>a b", policies=JOINED)
    found = compare(golden, prompt("<user>a\nb"), **{"parts-joined-by-newline": "it joins them"})
    assert found == equivalent(
        "declared policy parts-joined-by-newline: it joins them", policy="parts-joined-by-newline"
    )


def test_of_policies_with_the_same_text_the_declared_one_counts():
    golden = Prompt(text="<user>a b", policies={"first": "<user>ab", "second": "<user>ab"})
    found = compare(golden, prompt("<user>ab"), second="why")
    assert found == equivalent("declared policy second: why", policy="second")


def test_the_text_of_a_policy_that_is_not_declared_is_named():
    golden = Prompt(text="<user>a b", policies=JOINED)
    found = compare(golden, prompt("<user>a\nb"), **{"parts-joined": "another one"})
    assert found == diverged(
        Difference(
            summary="the text is that of the policy parts-joined-by-newline, which this stack does not declare",
            hunks=(Hunk(at="4", golden=" ", observed="\n", before="user>a", after="b"),),
            causes=("parts-joined-by-newline",),
        )
    )


def test_a_policy_excuses_its_own_text_only():
    golden = Prompt(text="<user>a b", policies=JOINED)
    declared = dict.fromkeys(JOINED, "why")
    assert compare(golden, prompt("<user>a b"), **declared) == EQUAL
    assert compare(golden, prompt("<user>a, b"), **declared).outcome is Outcome.DIVERGED
    assert compare(prompt("<user>a b"), prompt("<user>ab"), **declared).outcome is Outcome.DIVERGED


def test_what_must_be_refused_may_be_rendered_by_a_declared_policy():
    golden = Refusal(error="TypeError", message="None", policies={"null-as-empty": "<user>"})
    observed = prompt("<user>")
    assert compare(golden, observed, **{"null-as-empty": "so it does"}) == equivalent(
        "declared policy null-as-empty: so it does", policy="null-as-empty"
    )
    accepts = diverged(
        Difference(summary="it accepts what must be refused (TypeError: None)", causes=("accepts\0TypeError",))
    )
    assert compare(golden, observed) == accepts
    assert compare(golden, prompt("<user>None"), **{"null-as-empty": "so it does"}) == accepts
    assert compare(golden, Unobserved(reason="hidden"), **{"null-as-empty": "so it does"}) == unobserved("hidden")


def test_endings():
    golden = prompt("Hi")
    refusal = Refusal(error="TemplateError", message="no system role")
    assert compare(golden, None) == unobserved("not reached")
    assert compare(golden, Unobserved(reason="hidden")) == unobserved("hidden")
    assert compare(golden, Failure(reason="hang", seconds=3)).outcome is Outcome.FAILED
    assert compare(golden, refusal) == Comparison(
        outcome=Outcome.FAILED,
        difference=Difference(
            summary="it refuses its input: TemplateError: no system role", causes=("refuses\0TemplateError",)
        ),
    )
    assert compare(refusal, refusal) == EQUAL
    assert compare(refusal, golden) == diverged(
        Difference(
            summary="it accepts what must be refused (TemplateError: no system role)",
            causes=("accepts\0TemplateError",),
        )
    )
