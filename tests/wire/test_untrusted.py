"""What a server answers is bounded before it is built, and holds no key however it is written."""

from __future__ import annotations

import base64
import json

import pytest

from harness.stage import StageFailedError
from harness.wire import untrusted
from harness.wire.api import decoded, events, refusal, without_key
from harness.wire.untrusted import DEEPEST, parsed
from tests.wire.servers import KEY


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"a": "\\ud800"}', "the answer cannot be read: it holds a lone surrogate"),
        (b'{"\\uDFFF": 1}', "the answer cannot be read: it holds a lone surrogate"),
        (b"[" * 254 + b"]" * 254, "the answer cannot be read: it nests more than 200 levels deep"),
        (b'{"a":' * 100_000, "the answer cannot be read: it nests more than 200 levels deep"),
        (b"[" + b"9" * 5000 + b"]", "the answer cannot be read: Exceeds the limit"),
    ],
)
def test_what_cannot_be_read_is_broken(data, says):
    with pytest.raises(StageFailedError) as failed:
        decoded(data, "the answer")
    assert failed.value.failure.reason == "broken"
    assert failed.value.failure.message.startswith(says)
    with pytest.raises(StageFailedError):
        events(b"data: " + data + b"\n\ndata: [DONE]\n\n")
    refusal(400, data)


def test_values_are_counted_before_they_are_built(monkeypatch):
    monkeypatch.setattr(untrusted, "MOST_VALUES", 1000)
    with pytest.raises(ValueError, match="more than 1,000 values"):
        parsed(b"[" + b"[]," * 1000 + b"[]]")


def test_what_stands_in_a_text_is_no_structure():
    text = '[{,"\\' * 1000
    assert parsed(json.dumps({"a": text, "b": [[]]}).encode()) == {"a": text, "b": [[]]}
    deep = json.loads("[" * DEEPEST + "]" * DEEPEST)
    assert parsed(json.dumps(deep).encode()) == deep


def test_an_open_text_of_quotes_is_read_in_one_go():
    with pytest.raises(json.JSONDecodeError):
        parsed(b'["' + b'\\"[' * 300_000)


def test_a_pair_of_surrogates_is_a_character():
    assert decoded(b'"\\ud83d\\ude00"', "x") == "\N{GRINNING FACE}"


@pytest.mark.parametrize(
    "said",
    [
        KEY,
        "".join(f"\\u{ord(one):04x}" for one in KEY),
        "".join(f"\\u{ord(one):04X}" if at % 2 else one for at, one in enumerate(KEY)),
        "".join(f"%{ord(one):02X}" for one in KEY),
        KEY.replace("-", "\\-"),
        base64.b64encode(f"Bearer {KEY}".encode()).decode(),
        base64.b64encode(KEY.encode()).decode(),
    ],
)
def test_a_key_is_taken_out_however_it_is_written(monkeypatch, said):
    monkeypatch.setenv("TEST_KEY", KEY)
    assert without_key(f'{{"a": "x {said} y"}}'.encode(), "TEST_KEY") == b'{"a": "x *** y"}'
