"""What was done to a request or to ids, on made-up values: which words, and whose causes they share."""

from __future__ import annotations

import pytest

from harness.checking.compare import client, tokenization
from harness.checking.compare.mechanism import with_parts
from harness.checking.compare.outcome import MESSAGE
from harness.values import Request, Tokens

SYSTEM = {"role": "system", "content": "Be brief."}
ASKED = {"role": "user", "content": "Say hi."}
SAID = {"role": "assistant", "content": "Hi."}
AGAIN = {"role": "user", "content": "Say it again."}


def of_messages(sent, arrived):
    """Return the one part of a difference between messages."""
    golden, observed = Request(messages=tuple(sent)), Request(messages=tuple(arrived))
    (part,) = with_parts(client.compare(golden, observed), golden, observed, golden).difference.parts
    return part


def of_ids(golden, observed):
    """Return the words of the parts of a difference between ids, and their causes."""
    wanted, found = Tokens(ids=golden), Tokens(ids=observed)
    parts = with_parts(tokenization.compare(wanted, found, {}), wanted, found, Request(messages=())).difference.parts
    return [part.causes for part in parts]


@pytest.mark.parametrize(
    ("sent", "left_out", "words"),
    [
        ((SYSTEM, ASKED, SAID, AGAIN), 0, "the system message is missing: "),
        ((ASKED, SYSTEM, SAID, AGAIN), 1, "the system message is missing: "),
        ((SYSTEM, ASKED, SAID, AGAIN), 3, "the last message (user) is missing: "),
        ((ASKED, SAID, AGAIN), 0, "the first message (user) is missing: "),
        ((ASKED, SAID, AGAIN), 1, "the message of role assistant is missing: "),
        ((SYSTEM, ASKED, SAID, AGAIN), 2, "the message of role assistant is missing: "),
    ],
)
def test_a_message_that_is_missing_is_named_by_its_place_or_role(sent, left_out, words):
    part = of_messages(sent, [one for index, one in enumerate(sent) if index != left_out])
    assert part.summary.startswith(words)
    assert part.causes == ("messages missing",)


def test_messages_in_another_number_may_come_of_what_is_done_to_their_texts():
    together = {"role": "user", "content": "Be brief.\nSay hi."}
    fewer = of_messages((SYSTEM, ASKED), (together,))
    assert fewer.summary.startswith("the messages are put together into fewer: ")
    assert fewer.causes == ("messages put together into fewer",)
    assert fewer.perhaps == (f"{MESSAGE}\0within",)
    more = of_messages((together, SAID), (SYSTEM, ASKED, SAID))
    assert more.summary.partition(":")[0] != fewer.summary.partition(":")[0]
    assert of_messages((SYSTEM, ASKED), ({"role": "user", "content": "Say hi."}, SAID, SAID)).perhaps == ()


IDS = (10, 11, 12, 13, 14, 15, 16, 17)


def test_ids_before_and_behind_the_others_are_told_apart_from_what_became_of_these():
    before, behind = ("ids are added at the beginning",), ("ids are added at the end",)
    replaced = (*IDS[:3], 90, *IDS[4:])
    assert of_ids(IDS, (1, *replaced))[0] == before
    assert of_ids(IDS, (*replaced, 2))[0] == behind
    assert of_ids(IDS, (1, *replaced, 2))[:2] == [before, behind]


def test_an_id_that_is_replaced_at_an_end_is_not_one_that_is_added():
    ends = {"ids are added at the beginning", "ids are added at the end"}
    for observed in (
        (90, *IDS[1:4], 91, *IDS[5:]),
        (*IDS[:4], 91, *IDS[5:-1], 90),
        # More than a beginning or an end is.
        (1, 2, 3, *IDS[:4], 91, *IDS[5:]),
        (*IDS[:4], 91, *IDS[5:], 1, 2, 3),
    ):
        assert not ends & {cause for causes in of_ids(IDS, observed) for cause in causes}
