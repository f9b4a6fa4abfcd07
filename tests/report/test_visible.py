"""Visible text: on one line, every character to be seen, nothing that a terminal would obey."""

import sys
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.report.visible import shorten, visible, visible_pair

HIDDEN = {"Cc", "Cf", "Zl", "Zp", "Co", "Cs", "Cn"}
SYMBOLS = {"\n": "\u240a", "\r": "\u240d", "\t": "\u2409"}
anything = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0)])
def test_every_control_code_is_shown_and_disarmed(code):
    character = chr(code)
    assert visible(f"a{character}b") == f"a{SYMBOLS.get(character, f'<U+{code:04X}>')}b"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "<U+001B>[31mred<U+001B>[0m"),
        ("\x1b]0;title\x07", "<U+001B>]0;title<U+0007>"),
        ("\x1b]8;;http://x\x1b\\link", "<U+001B>]8;;http://x<U+001B>\\link"),
        ("\x9b2J\x90q\x9c", "<U+009B>2J<U+0090>q<U+009C>"),
        ("one\r\ntwo\r", "one\u240d\u240atwo\u240d"),
        ("a\u2028b\u2029c\x85d\x0be", "a<U+2028>b<U+2029>c<U+0085>d<U+000B>e"),
        ("\u202egnp.\u202c \u2066x\u2069 \u200e\u200f\u061c", None),
        ("\u200b\u200c\u200d\u2060\ufeff\u00ad", "<U+200B><U+200C><U+200D><U+2060><U+FEFF><U+00AD>"),
        ("\ue000\uf8ff\U000f0000\U0010fffd", "<U+E000><U+F8FF><U+F0000><U+10FFFD>"),
        ("\u0378\uffff\U0001ffff", "<U+0378><U+FFFF><U+1FFFF>"),
        ("\ud800x\udfff", "<U+D800>x<U+DFFF>"),
        ("\U000e0041\U000e007f", "<U+E0041><U+E007F>"),
        ("a\u00a0b\u3000c\u2003d\u202fe", "a<U+00A0>b<U+3000>c<U+2003>d<U+202F>e"),
    ],
)
def test_what_shows_nothing_or_commands_is_shown(text, shown):
    bidi = "<U+202E>gnp.<U+202C> <U+2066>x<U+2069> <U+200E><U+200F><U+061C>"
    assert visible(text) == (bidi if shown is None else shown)


@pytest.mark.parametrize(
    "text", ["", "Hello, world.", "  two  blanks ", "H\u00e9 \u4f60\u597d \u0645\u0631 \U0001f98a", "\ufffd[red]<b>"]
)
def test_what_shows_is_left_alone(text):
    assert visible(text) == text


def test_of_all_characters_none_of_a_hidden_category_survives():
    hidden = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in HIDDEN]
    assert len(hidden) > 900_000
    expected = [SYMBOLS.get(character, f"<U+{ord(character):04X}>") for character in hidden]
    assert visible("".join(hidden)) == "".join(expected)


def test_the_only_blank_that_survives_is_the_space():
    blanks = "".join(chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace())
    assert len(blanks) > 20
    assert [character for character in visible(blanks) if character.isspace()] == [" "]


@settings(derandomize=True, deadline=None)
@given(anything)
@example("\x1b[2J\u2028\ud83e")
def test_no_character_of_a_hidden_category_survives_in_any_text(text):
    shown = visible(text)
    assert not [character for character in shown if unicodedata.category(character) in HIDDEN]
    assert len(shown.splitlines()) <= 1


@settings(derandomize=True, deadline=None)
@given(anything, anything)
def test_texts_are_shown_one_after_the_other(one, other):
    assert visible(one + other) == visible(one) + visible(other)


def test_a_mark_on_its_letter_is_left_alone():
    assert visible("cafe\u0301") == "cafe\u0301"


@pytest.mark.parametrize(
    ("text", "shown"), [("\u0301", "<U+0301>"), ("\u0301a", "<U+0301>a"), ("a\n\u0308", "a\u240a<U+0308>")]
)
def test_a_mark_without_a_letter_is_shown(text, shown):
    assert visible(text) == shown


@pytest.mark.parametrize("code", [0x034F, 0x115F, 0x1160, 0x17B4, 0x180B, 0x2800, 0x3164, 0xFE0F, 0xFFA0, 0xE0100])
def test_what_is_drawn_as_nothing_is_shown_whatever_its_category(code):
    assert visible(f"a{chr(code)}b") == f"a<U+{code:04X}>b"


# Pairs


@pytest.mark.parametrize(
    ("one", "other", "shown"),
    [
        ("caf\u00e9", "cafe\u0301", ("caf\\xe9", "cafe\\u0301")),
        ("\u212b", "\u00c5", ("\\u212b", "\\xc5")),
        ("\uac00", "\u1100\u1161", ("\\uac00", "\\u1100\\u1161")),
        ("\u00e9\x1b\n", "e\u0301\x1b\n", ("\\xe9\\x1b\\n", "e\\u0301\\x1b\\n")),
        ("it's \u00e9", "it's e\u0301", ("it's \\xe9", "it's e\\u0301")),
        ("a", "a", ("a", "a")),
        ("\u00e9", "\u00e9", ("\u00e9", "\u00e9")),
        ("\u00e9", "e", ("\u00e9", "e")),
        ("a\n", "a", ("a\u240a", "a")),
        ("\x1b[31m", "", ("<U+001B>[31m", "")),
    ],
)
def test_a_pair_is_shown_so_that_it_differs(one, other, shown):
    assert visible_pair(one, other) == shown
    assert visible_pair(other, one) == shown[::-1]


@settings(derandomize=True, deadline=None)
@given(anything, st.sampled_from(["NFC", "NFD"]))
def test_no_character_of_a_hidden_category_survives_in_a_pair(text, form):
    shown = visible_pair(text, unicodedata.normalize(form, text))
    assert not [character for character in "".join(shown) if unicodedata.category(character) in HIDDEN]
    assert [len(one.splitlines()) <= 1 for one in shown] == [True, True]


@settings(derandomize=True, deadline=None)
@given(anything)
def test_both_normal_forms_of_a_text_are_shown_differently(text):
    one, other = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    shown = visible_pair(one, other)
    assert (shown[0] == shown[1]) is (one == other)


@pytest.mark.parametrize(("one", "other"), [("\u200b", "<U+200B>"), ("a\n", "a\u240a")])
def test_a_hidden_character_and_its_own_description_are_shown_differently(one, other):
    shown = visible_pair(one, other)
    assert shown[0] != shown[1]


# Shortening


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "ab\u2026efg"),
        ("abcdefg", 5, "ab\u2026fg"),
        ("abcdefg", 2, "\u2026g"),
        ("abcdefg", 1, "\u2026"),
        ("", 1, ""),
    ],
)
def test_a_long_text_is_cut_in_the_middle(text, width, short):
    assert shorten(text, width) == short


@settings(derandomize=True, deadline=None)
@given(st.text(), st.integers(1, 30))
def test_a_shortened_text_has_the_width(text, width):
    assert len(shorten(text, width)) == min(len(text), width)
