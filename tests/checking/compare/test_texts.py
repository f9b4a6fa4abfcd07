"""A change of a text is named where it gives exactly what was observed, and nowhere else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.checking.compare.texts import changes

LONG = "Hello there, it is a Café — really."


@pytest.mark.parametrize(
    ("golden", "observed", "key", "words"),
    [
        (LONG, "", "lost", "the whole text is missing"),
        ("", "Hi", "made up", "there is a text where none should be"),
        (LONG, LONG * 2, "twice", "it stands there twice"),
        ("  Hi \n", "Hi", "white space", "white space at its ends is missing"),
        ("Hi \n", "Hi", "white space", "white space at its end is missing"),
        ("\tHi", "Hi", "white space", "white space at its beginning is missing"),
        ("a  b\nc", "a b c", "white space", "nothing but white space differs"),
        (LONG, LONG[:-1], "end lost", "its last character is missing"),
        (LONG, LONG[:9], "end lost", "its end is missing"),
        (LONG, LONG[1:], "beginning lost", "its first character is missing"),
        (LONG, LONG + "!", "end added", "a character is added at its end"),
        (LONG, f"user: {LONG}", "beginning added", "something is put before it"),
        (LONG, f"user: {LONG}\nbot:", "within", "it stands within another text"),
        (LONG, LONG.upper(), "case", "nothing but upper and lower case differs"),
        ("①²", "12", "normal form", "it is in another Unicode normal form"),
        (LONG, "Hello there, it is a Caf  really.", "beyond ASCII", "its characters beyond ASCII are missing"),
        (LONG, "Hello there, it is a CafÃ© â really.", "beyond ASCII", "its characters beyond ASCII are others"),
        ("a <b> & c", "a &lt;b&gt; &amp; c", "escaped", "characters of it are escaped"),
        ("a <b> & c", "a &amp;lt;b&amp;gt; &amp;amp; c", "escaped", "characters of it are escaped"),
        ("a_b *c*", "a\\_b \\*c\\*", "escaped", "characters of it are escaped"),
        ("a\nb\tc", "a\\nb\\tc", "escaped", "characters of it are escaped"),
        ('say "hi"', '"say \\"hi\\""', "JSON", "it is written as JSON"),
        ("a b c", "aĠbĠc", " \0Ġ", '" " is written as "\\u0120"'),
        ("a<b>c</b>d", "acd", "markup", "what looks like markup is missing"),
        ("on 12 of 3", "on  of ", "without digits", "its digits are missing"),
        ("one two three four", "one 2 three 4", None, None),
        ("Look it up now.", "Look now.", "inside lost", "a piece inside it is missing"),
        ("Look now.", "Look it up now.", "inside added", "a piece is added inside it"),
        ("one two three", "three two one", "order", "its words stand in another order"),
    ],
)
def test_a_change_is_named(golden, observed, key, words):
    found = changes(golden, observed)
    assert [(one.key, one.words) for one in found[:1]] == ([] if key is None else [(key, words)])


def test_nothing_became_of_an_equal_text():
    assert changes(LONG, LONG) == changes("", "") == ()


def test_of_a_short_text_every_change_is_named_that_would_give_it():
    assert {"lost", "end lost", "beginning lost"} <= {one.key for one in changes("4", "")}


@pytest.mark.parametrize(
    ("golden", "observed", "holds"),
    [
        ("aébéc", "aEbEc", True),
        ("aébéc", "abc", True),
        # Each piece stands behind the one before it.
        ("xéabéab", "x1ab", False),
        ("xéabécdé", "x1cd2ab3", False),
        ("xéabé", "x1ba", False),
        ("éaé", "é", False),
        ("aébé!", "a1b2?", False),
    ],
)
def test_only_what_is_beyond_ascii_differs_where_every_other_piece_stands_in_order(golden, observed, holds):
    assert ("beyond ASCII" in {one.key for one in changes(golden, observed)}) is holds


def test_a_character_that_is_not_always_written_so_is_no_rule():
    assert all("\0" not in one.key for one in changes("a b c", "aĠb c"))


TEXTS = st.text(st.sampled_from("ab \n<>&\\é\ud800\u0301{}"), max_size=12)


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS)
def test_any_two_texts_can_be_asked_about(one, other):
    found = changes(one, other)
    assert len(set(found)) == len(found)
    assert one != other or not found
