"""The template stage: bytes, not looks."""

import pytest

from harness.compare.outcome import EQUAL, Comparison, Difference, Hunk, Outcome, diverged, unobserved
from harness.compare.template import compare
from harness.values import Failure, Prompt, Refusal, Unobserved


def prompt(text, suffix=None):
    return Prompt(text=text, suffix=suffix)


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
