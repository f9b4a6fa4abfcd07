"""The tokenization stage: the ids, or those of a policy that the stack declares."""

import pytest

from harness.checking.compare.outcome import EQUAL, Difference, Hunk, Outcome, diverged, equivalent, unobserved
from harness.checking.compare.tokenization import compare
from harness.values import Failure, Tokens, Unobserved

REASON = "its handler parses control text everywhere"


def tokens(*ids, pieces=None, **policies):
    return Tokens(ids=ids, pieces=pieces, policies=policies)


def test_equal_ids_are_equal_whatever_their_pieces():
    assert compare(tokens(1, 2, pieces=("<s>", "Hi")), tokens(1, 2, pieces=("?", "?")), {}) == EQUAL
    assert compare(tokens(), tokens(), {}) == EQUAL


def test_a_second_beginning_is_named_with_its_piece():
    golden = tokens(1, 7, 8, pieces=("<s>", "Hi", "!"))
    observed = tokens(1, 1, 7, 8, pieces=("<s>", "<s>", "Hi", "!"))
    assert compare(golden, observed, {}) == diverged(
        Difference(
            summary="one id too many at the start: 1[<s>]",
            hunks=(Hunk(at="1", golden="", observed="1[<s>]", before="1[<s>] ", after=" 7[Hi] 8[!]"),),
            causes=("\0" + "1[<s>]",),
        )
    )


def test_a_second_beginning_is_one_cause_in_all_cases():
    one = compare(tokens(1, 7, pieces=("<s>", "Hi")), tokens(1, 1, 7), {})
    other = compare(tokens(1, 8, 9, 9, pieces=("<s>", "a", "b", "b")), tokens(1, 1, 8, 9, 9), {})
    assert one.difference.causes == other.difference.causes == ("\0" + "1[<s>]",)


def test_an_id_in_front_that_is_not_the_beginning():
    found = compare(tokens(7, 8), tokens(1, 7, 8), {})
    assert found.difference.summary == "one id too many at the start: 1"
    assert found.difference.hunks == (Hunk(at="0", golden="", observed="1", before="", after=" 7 8"),)


def test_a_lost_beginning():
    found = compare(tokens(1, 7, 8, pieces=("<s>", "Hi", "!")), tokens(7, 8), {})
    assert found.difference.summary == "other ids: 2 instead of 3, differing in 1 place"
    assert found.difference.hunks == (Hunk(at="0", golden="1[<s>]", observed="", before="", after=" 7[Hi] 8[!]"),)


def test_two_places():
    golden = tokens(1, 2, 3, 4, 5, pieces=("a", "b", "c", "d", "e"))
    observed = tokens(1, 9, 3, 4, 8, 8, pieces=("a", "B", "c", "d", "E", "E"))
    assert compare(golden, observed, {}) == diverged(
        Difference(
            summary="other ids: 6 instead of 5, differing in 2 places",
            hunks=(
                Hunk(at="1", golden="2[b]", observed="9[B]", before="1[a] ", after=" 3[c] 4[d] 5[e]"),
                Hunk(at="4", golden="5[e]", observed="8[E] 8[E]", before="2[b] 3[c] 4[d] ", after=""),
            ),
            causes=("2[b]\0" + "9[B]", "5[e]\0" + "8[E] 8[E]"),
        )
    )


def test_the_same_text_in_other_ids_is_named():
    golden = tokens(1, 7, pieces=("<s>", "Hello"))
    observed = tokens(1, 3, 4, pieces=("<s>", "Hel", "lo"))
    found = compare(golden, observed, {})
    assert found.difference.summary == "the same text in other ids: 3 instead of 2, differing in 1 place"
    other_text = tokens(1, 3, 5, pieces=("<s>", "Hel", "lO"))
    assert compare(golden, other_text, {}).difference.summary == "other ids: 3 instead of 2, differing in 1 place"


def test_ids_of_unknown_text_are_not_said_to_be_the_same_text():
    golden, observed = tokens(1, 7, pieces=("<s>", "Hello")), tokens(1, 7, 9)
    assert compare(golden, observed, {}).difference.summary == "other ids: 3 instead of 2, differing in 1 place"


@pytest.mark.parametrize(
    ("golden_pieces", "observed_pieces", "shown"),
    [
        (("one",), ("two",), ("1[one]", "2[two]")),
        (("one",), None, ("1[one]", "2")),
        (None, ("two",), ("1", "2[two]")),
        (None, None, ("1", "2")),
    ],
)
def test_pieces_are_shown_where_they_are_known(golden_pieces, observed_pieces, shown):
    found = compare(tokens(1, pieces=golden_pieces), tokens(2, pieces=observed_pieces), {})
    assert (found.difference.hunks[0].golden, found.difference.hunks[0].observed) == shown


def test_the_reference_names_a_piece_that_both_name():
    golden, observed = tokens(1, 2, pieces=("one", "two")), tokens(1, 1, 2, pieces=("ONE", "ONE", "TWO"))
    assert compare(golden, observed, {}).difference.hunks[0].observed == "1[one]"


def test_a_declared_policy_makes_its_own_ids_equivalent():
    golden = tokens(1, 5, 6, 2, parsed=(1, 9, 2))
    assert compare(golden, tokens(1, 9, 2), {"parsed": REASON}) == equivalent(
        f"declared policy parsed: {REASON}", policy="parsed"
    )


def test_an_undeclared_policy_is_named():
    golden = tokens(1, 5, 6, 2, parsed=(1, 9, 2))
    found = compare(golden, tokens(1, 9, 2), {"other": "for another reason"})
    assert found.outcome is Outcome.DIVERGED
    assert found.difference.summary == "the ids are those of the policy parsed, which this stack does not declare"
    assert found.difference.hunks == (Hunk(at="1", golden="5 6", observed="9", before="1 ", after=" 2"),)


def test_an_undeclared_policy_is_one_cause_in_all_cases():
    one = compare(tokens(1, 5, 6, 2, parsed=(1, 9, 2)), tokens(1, 9, 2), {})
    other = compare(tokens(1, 7, 8, 2, parsed=(1, 3, 2)), tokens(1, 3, 2), {})
    assert set(one.difference.causes) & set(other.difference.causes)


def test_a_declared_policy_excuses_no_other_ids():
    golden = tokens(1, 5, 6, 2, parsed=(1, 9, 2))
    found = compare(golden, tokens(1, 9, 9, 2), {"parsed": REASON})
    assert found.outcome is Outcome.DIVERGED
    assert found.difference.summary == "other ids: 4 instead of 4, differing in 1 place"


def test_a_declared_policy_is_not_needed_for_the_reference_s_own_ids():
    assert compare(tokens(1, 2, parsed=(9,)), tokens(1, 2), {"parsed": REASON}) == EQUAL


def test_of_two_policies_with_the_same_ids_the_declared_one_counts():
    golden = tokens(1, 2, first=(9,), second=(9,))
    assert compare(golden, tokens(9), {"second": REASON}).policy == "second"


def test_endings():
    assert compare(tokens(1), None, {}) == unobserved("not reached")
    assert compare(tokens(1), Unobserved(reason="hidden"), {}) == unobserved("hidden")
    assert compare(tokens(1), Failure(reason="crash", signal="SIGABRT"), {}).difference.kind == "engine"
