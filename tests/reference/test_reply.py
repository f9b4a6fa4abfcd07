"""The specification of the reply, on a vocabulary small enough to read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tokenizers", reason="the reference needs tokenizers: pip install -e '.[reference]'")

from harness.errors import UserError
from harness.reference.client import expected_request
from harness.reference.reply import expected_reply, incomplete_bytes
from harness.values import Case


class Bytes:
    """A vocabulary of single bytes and one end token."""

    end_of_generation_ids = frozenset({256})

    def piece(self, token: int) -> bytes:
        return b"<end>" if token == 256 else bytes([token])

    def is_control(self, token: int) -> bool:
        return token == 256


def reply(text: bytes, *stop: str, ended: bool = False):
    return expected_reply(Bytes(), [*text, 256] if ended else [*text], stop, prompt_tokens=3)


def test_end_token_is_neither_shown_nor_counted():
    made = reply(b"hi", ended=True)
    assert (made.content, made.finish_reason, made.usage.completion_tokens) == ("hi", "stop", 2)


def test_length():
    made = reply(b"hi")
    assert (made.content, made.finish_reason, made.usage.prompt_tokens) == ("hi", "length", 3)


@pytest.mark.parametrize(
    ("text", "stop", "content"),
    [
        (b"one two three", ("two",), "one "),
        (b"one two three", ("three", "two th"), "one "),
        (b"one two", ("two three",), "one two"),
        (b"stop", ("stop",), ""),
        ("na\u00efve \u2192 x".encode(), ("\u2192",), "na\u00efve "),
    ],
)
def test_content_ends_before_the_first_stop_string(text, stop, content):
    made = reply(text, *stop)
    assert made.content == content
    assert made.finish_reason == ("stop" if len(content.encode()) < len(text) else "length")


@given(st.text(min_size=1).filter(lambda t: ord(t[-1]) > 127), st.data())
@settings(derandomize=True)
def test_an_incomplete_character_is_withheld(text, data):
    raw, last = text.encode(), len(text[-1].encode())
    kept = data.draw(st.integers(1, last - 1))
    made = reply(raw[: len(raw) - last + kept])
    assert made.content == text[:-1]
    assert made.withheld == kept
    assert incomplete_bytes(Bytes(), [*raw]) == 0


def case(**body: object) -> Case:
    return Case(name="c", description="", covers=(), body={"messages": [{"role": "user", "content": "x"}], **body})


def test_the_client_passes_what_it_is_given():
    tools = [{"b": 1, "a": 2}]
    made = expected_request(case(tools=tools, tool_choice="auto", stop="END", temperature=0, model="m", user="u"))
    assert made.settings == {"stop": ["END"], "temperature": 0}
    assert list(made.tools[0]) == ["b", "a"]
    assert made.tool_choice == "auto"


def test_the_client_refuses_what_is_not_specified():
    with pytest.raises(UserError, match=r"case 'c'.*response_format"):
        expected_request(case(response_format={"type": "json_object"}))
