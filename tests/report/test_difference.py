"""Differences on one line a side."""

from harness.checking.compare.outcome import Hunk
from harness.report.difference import Place, diff_lines, place
from tests.made import difference


def test_a_place_is_made_visible():
    hunk = Hunk(at="3\n", golden="a\x1b", observed="b\n", before="<\t", after="\u202e>")
    shown = place(hunk)
    assert shown == Place("3\u240a", "<\u2409", "a<U+001B>", "b\u240a", "<U+202E>>")
    assert shown.lines == ("<\u2409\u27e6a<U+001B>\u27e7<U+202E>>", "<\u2409\u27e6b\u240a\u27e7<U+202E>>")


def test_what_looks_the_same_is_shown_in_escapes():
    assert place(Hunk(at="0", golden="\u00e9", observed="e\u0301")).lines == (
        "\u27e6\\xe9\u27e7",
        "\u27e6e\\u0301\u27e7",
    )


def test_long_sides_are_cut_where_they_agree_and_then_to_length():
    one, other = "a" * 1000 + "x" + "b" * 1000, "a" * 1000 + "y" + "b" * 1000
    shown = place(Hunk(at="0", golden=one, observed=other))
    assert shown.expected == "\u2026" + "a" * 40 + "x" + "b" * 40 + "\u2026"
    shown = place(Hunk(at="0", golden="a" * 1000, observed="b" * 1000, before="c" * 99, after="d" * 99))
    assert (len(shown.expected), shown.before, shown.after) == (400, "c" * 40, "d" * 40)


def test_lines_of_a_diff_say_how_many_places_are_left_out():
    places = [Hunk(at=str(at), golden="a", observed="") for at in range(3)]
    assert diff_lines(difference("d", *places), 1) == [
        "@@ 0 @@",
        "- \u27e6a\u27e7",
        "+ \u27e6\u27e7",
        "... and 2 more places",
    ]
    assert diff_lines(difference("d", *places), 2)[-1] == "... and 1 more place"
    assert len(diff_lines(difference("d", *places), 3)) == 9
