"""How long a prompt is, where nothing else is shown of it."""

import pytest

from harness.checking.compare.count import by_count
from harness.values import Prompt, Refusal, Tokens

PROMPT = Prompt(text="p")
TOKENS = Tokens(ids=tuple(range(31)), pieces=("x",) * 31, policies={"control-text-parsed": tuple(range(20))})


@pytest.mark.parametrize(("count", "what"), [(37, "something is added to it"), (22, "something of it is lost")])
def test_another_number_is_told_with_both(count, what):
    found = by_count(PROMPT, TOKENS, count)
    assert found.summary.startswith(f"its prompt has {count} ids, the golden's 31: {what}, ")
    assert [(hunk.golden, hunk.observed) for hunk in found.hunks] == [("31", str(count))]
    assert found.size == abs(count - 31)


@pytest.mark.parametrize("count", [None, 30, 31, 32])
def test_the_same_number_and_one_bos_more_or_less_say_nothing(count):
    assert by_count(PROMPT, TOKENS, count) is None


def test_the_number_of_a_known_policy_is_right_too():
    """Of a server that shows nothing nobody knows which it follows."""
    assert by_count(PROMPT, TOKENS, 20) is None


def test_where_policies_make_other_prompts_nothing_is_said():
    assert by_count(Prompt(text="p", policies={"null-as-empty": "q"}), TOKENS, 50) is None
    assert by_count(Refusal(error="E", message="m"), None, 50) is None
    assert by_count(PROMPT, None, 50) is None
