"""The values that flow: distributions keep what they claim to, cases refuse what no wire could carry."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pydantic import ValidationError

from harness.values import Case, Distributions, Failure, Observation, Prompt, Refusal, Unobserved, shown

LOGITS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=40),
    elements=st.floats(-1e4, 1e4, width=32),
)
FEW_LOGITS = arrays(
    np.float32, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.sampled_from([-2.0, 0.0, 0.5, 3.0])
)
"""Logits with many equal ones."""
exactly = settings(derandomize=True, max_examples=100, deadline=None)


def distribution(*rows):
    return Distributions.from_logits(np.array(rows, dtype=np.float32))


def logprobs(*probabilities):
    return np.log(np.array([probabilities], dtype=np.float32))


# From logits


@exactly
@given(LOGITS)
def test_every_row_sums_to_one(logits):
    made = Distributions.from_logits(logits)
    assert made.logprobs.dtype == np.float32
    assert made.logprobs.shape == logits.shape
    assert len(made) == len(logits)
    assert made.ids is None
    assert made.rest is None
    assert np.allclose(np.exp(made.logprobs.astype(np.float64)).sum(axis=1), 1.0, rtol=0, atol=1e-5)


@exactly
@given(LOGITS)
def test_it_is_the_logarithm_of_the_softmax(logits):
    exact = logits.astype(np.float64)
    exact -= exact.max(axis=1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(axis=1, keepdims=True))
    assert np.allclose(Distributions.from_logits(logits).logprobs, exact, rtol=1e-6, atol=1e-5)


def test_known_logits_give_known_numbers():
    assert distribution([0.0, 0.0]).logprobs.tolist() == [[np.float32(-np.log(2.0))] * 2]
    assert distribution([1000.0, -1000.0]).logprobs.tolist() == [[0.0, -2000.0]]
    assert distribution([7.0]).logprobs.tolist() == [[0.0]]


def test_a_masked_id_has_no_probability():
    assert distribution([0.0, -np.inf, 0.0]).logprobs.tolist() == [
        [np.float32(-np.log(2.0)), -np.inf, np.float32(-np.log(2.0))]
    ]


@pytest.mark.parametrize("row", [[1.0, np.nan, 2.0], [1.0, np.inf, 2.0], [-np.inf] * 3, [np.inf, -np.inf, np.nan]])
def test_a_row_without_a_distribution_is_all_nan_and_spoils_no_other(row):
    made = distribution(row, [0.0, 0.0, 0.0])
    assert np.isnan(made.logprobs[0]).all()
    assert np.isfinite(made.logprobs[1]).all()
    top = made.top(2)
    assert np.isnan(top.logprobs[0]).all()
    assert np.isnan(top.rest[0])
    assert np.isfinite(top.logprobs[1]).all()


# The likeliest


def likeliest(logprobs, k):
    """Return the k likeliest ids of a row by plain sorting, the lowest id first among equals."""
    return sorted(range(len(logprobs)), key=lambda i: (-logprobs[i], i))[:k]


@exactly
@given(LOGITS, st.integers(1, 45))
def test_top_keeps_the_largest_numbers_in_order(logits, k):
    whole = Distributions.from_logits(logits)
    top = whole.top(k)
    assert top.ids.dtype == np.int32
    assert top.logprobs.dtype == top.rest.dtype == np.float32
    for row in range(len(whole)):
        wanted = sorted(whole.logprobs[row].tolist(), reverse=True)[:k]
        assert top.logprobs[row].tolist() == wanted
        assert whole.logprobs[row, top.ids[row]].tolist() == wanted
        assert len(set(top.ids[row].tolist())) == len(wanted)


@exactly
@given(FEW_LOGITS)
def test_equal_ids_stand_lowest_first(logits):
    whole = Distributions.from_logits(logits)
    top = whole.top(logits.shape[1])
    for row in range(len(whole)):
        assert top.ids[row].tolist() == likeliest(whole.logprobs[row].tolist(), logits.shape[1])


@exactly
@given(FEW_LOGITS, st.integers(1, 10))
def test_the_lowest_of_equal_ids_are_kept_at_the_cut(logits, k):
    whole = Distributions.from_logits(logits)
    top = whole.top(k)
    for row in range(len(whole)):
        assert top.ids[row].tolist() == likeliest(whole.logprobs[row].tolist(), k)


def test_what_is_kept_has_the_same_likeliest_id():
    whole = Distributions.from_logits(np.zeros((1, 1000), np.float32))
    assert whole.top(10).argmax() == whole.argmax() == (0,)


def test_top_keeps_256_unless_told_otherwise():
    whole = distribution(range(1000))
    assert whole.top().ids.shape == (1, 256)
    assert whole.top().ids[0].tolist() == list(range(999, 743, -1))
    assert whole.top(3).ids.tolist() == [[999, 998, 997]]


def test_rest_is_the_logarithm_of_what_is_left():
    top = Distributions(logprobs(0.125, 0.5, 0.25, 0.125)).top(2)
    assert top.ids.tolist() == [[1, 2]]
    assert top.rest.tolist() == pytest.approx([np.log(0.25)], abs=1e-6)


def test_rest_of_what_leaves_nothing_is_no_number_below_zero_probability():
    assert Distributions(logprobs(1.0, 1e-30)).top(1).rest.tolist() == [-np.inf]
    assert Distributions(np.array([[1e-7, -20.0]], np.float32)).top(1).rest.tolist() == [-np.inf]


@exactly
@given(LOGITS, st.integers(1, 45))
def test_what_is_kept_and_what_is_left_make_one(logits, k):
    top = Distributions.from_logits(logits).top(k)
    both = np.exp(top.logprobs.astype(np.float64)).sum(axis=1) + np.exp(top.rest.astype(np.float64))
    assert np.allclose(both, 1.0, rtol=0, atol=1e-5)


def test_top_of_what_is_kept_is_itself():
    top = distribution([3.0, 1.0, 2.0]).top(2)
    assert top.top(1) is top


def test_argmax_takes_the_lowest_of_equal_ids():
    made = distribution([1.0, 5.0, 5.0, 0.0], [2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.5])
    assert made.argmax() == (1, 0, 3)
    assert made.top(4).argmax() == (1, 0, 3)


def test_at_finds_the_ids_that_are_asked_for():
    whole = Distributions(logprobs(0.125, 0.5, 0.25, 0.125))
    asked = np.array([2, 0, 1, 2], dtype=np.int32)
    assert whole.at(0, asked).tolist() == np.log(np.float32([0.25, 0.125, 0.5, 0.25])).tolist()
    kept = whole.top(2).at(0, asked)
    assert kept.dtype == np.float32
    assert np.array_equal(kept, np.log(np.float32([0.25, np.nan, 0.5, 0.25])), equal_nan=True)


def test_at_looks_at_its_own_row():
    whole = distribution([0.0, 9.0], [9.0, 0.0])
    for made in (whole, whole.top(1)):
        assert made.at(0, np.array([1], np.int32))[0] == made.at(1, np.array([0], np.int32))[0]
    assert np.isnan(whole.top(1).at(1, np.array([1], np.int32))[0])


def test_head_takes_the_first_rows_of_everything():
    whole = distribution([1.0, 2.0], [4.0, 3.0], [5.0, 6.0])
    assert np.array_equal(whole.head(2).logprobs, whole.logprobs[:2])
    assert whole.head(2).ids is whole.head(2).rest is None
    top = whole.top(1).head(2)
    assert top.ids.tolist() == [[1], [0]]
    assert top.rest.tolist() == whole.top(1).rest[:2].tolist()
    assert (len(whole.head(0)), len(whole.head(9))) == (0, 3)


# Cases


def case(body, **options):
    return Case(description="d", covers=(), body=body, options=options)


MESSAGES = [{"role": "user", "content": "hi"}]


def test_a_case_keeps_its_body_as_it_is():
    body = {"messages": [{"role": "user", "content": "\u2028 \0 \U0001f600 \r\n"}], "temperature": 0, "extra": None}
    assert case(body).body == body
    assert case(body).options.clock.isoformat() == "2026-01-02T03:04:05"


def test_a_lone_surrogate_is_refused_wherever_it_stands():
    surrogate = "\ud800"
    for body in (
        {"messages": [{"role": "user", "content": f"a{surrogate}"}]},
        {"messages": [{"role": "user", f"key{surrogate}": 1}]},
        {"messages": MESSAGES, "tools": [{"deep": [[surrogate]]}]},
    ):
        with pytest.raises(ValidationError) as caught:
            case(body)
        assert caught.value.errors()[0]["msg"] == f"Value error, the text holds a lone surrogate ({surrogate!r})"
        assert caught.value.errors()[0]["loc"] == ("body",)


@pytest.mark.parametrize("options", [{"script": "\ud800"}, {"template_kwargs": {"name": "\ud800"}}])
def test_a_lone_surrogate_in_the_options_is_refused(options):
    with pytest.raises(ValidationError):
        case({"messages": MESSAGES}, **options)


@pytest.mark.parametrize(
    "body", [{}, {"messages": []}, {"messages": "hi"}, {"messages": {}}, {"messages": None}, {"messages": ["hi"]}]
)
def test_a_case_without_messages_is_refused(body):
    with pytest.raises(ValidationError) as caught:
        case(body)
    assert [problem["msg"] for problem in caught.value.errors()] == [
        "Value error, 'messages' must be a list of at least one message object"
    ]


@pytest.mark.parametrize("stream", [True, False, None])
def test_a_case_says_nothing_of_streaming(stream):
    with pytest.raises(ValidationError) as caught:
        case({"messages": MESSAGES, "stream": stream})
    assert [problem["msg"] for problem in caught.value.errors()] == [
        "Value error, 'stream' is not part of a case: every case is run both ways"
    ]


def test_a_name_that_no_value_has_is_refused():
    with pytest.raises(ValidationError):
        Case(description="d", covers=(), body={"messages": MESSAGES}, colour="red")
    with pytest.raises(ValidationError):
        case({"messages": MESSAGES}, clocks="2026-01-02")


def test_values_cannot_be_changed():
    prompt = Prompt(text="a")
    with pytest.raises(ValidationError):
        prompt.text = "b"


# Endings


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (Failure(reason="hang", seconds=120.0), "no answer in 120 s"),
        (Failure(reason="hang", seconds=0.5, log=("a", "b")), "no answer in 0.5 s; last log line: b"),
        (Failure(reason="start", message="no model"), "could not start: no model"),
        (Failure(reason="start", message="no", log=("b",)), "could not start: no; last log line: b"),
        (Failure(reason="broken", message="an array of text"), "broke the protocol: an array of text"),
        (Failure(reason="crash", signal="SIGSEGV"), "died by SIGSEGV"),
        (Failure(reason="crash", signal="SIGABRT", log=("a",)), "died by SIGABRT; last log line: a"),
        (Failure(reason="crash", status=7), "exited with status 7"),
        (Failure(reason="crash", status=0, log=("",)), "exited with status 0; last log line: "),
    ],
)
def test_every_failure_is_described_in_one_line(failure, line):
    assert failure.describe() == line


def test_endings_come_back_from_json_as_what_they_were():
    seen = Observation(
        request=Refusal(error="E", message="no", context=True),
        prompt=Unobserved(reason="not asked"),
        tokens=Failure(reason="crash", signal="SIGSEGV", log=("a", "b")),
        broke=Failure(reason="hang", seconds=1.5),
    )
    assert Observation.model_validate_json(seen.model_dump_json()) == seen


def test_pieces_are_shown_as_text():
    assert shown([b"caf\xc3\xa9", b"\xf0\x9f", b""]) == ("caf\u00e9", "\ufffd", "")


# A prompt at another time


LATER = datetime(2027, 11, 30, 15, 4, 5)


def test_a_prompt_without_dates_is_the_same_at_any_time():
    assert Prompt(text="2026 %Y \U0001f98a").at(LATER) == "2026 %Y \U0001f98a"


def test_every_date_is_printed_in_its_own_form_and_the_rest_is_left():
    text = "\U0001f98a 02 Jan 2026, 3h: %Y is 2026"
    dates = ((2, 13, "%d %b %Y"), (15, 17, "%-Hh"), (25, 29, "%Y"))
    assert [text[start:end] for start, end, _ in dates] == ["02 Jan 2026", "3h", "2026"]
    made = Prompt(text=text, dates=dates)
    assert made.at(LATER) == "\U0001f98a 30 Nov 2027, 15h: %Y is 2027", "one that is longer than it was"
    assert made.at(datetime(2026, 1, 2, 3, 4, 5)) == text


def test_dates_at_both_ends_and_side_by_side():
    made = Prompt(text="20260102", dates=((0, 4, "%Y"), (4, 6, "%m"), (6, 8, "%d")))
    assert made.at(LATER) == "20271130"
    assert Prompt(text="a2026", dates=((1, 5, "%A of %Y"),)).at(LATER) == "aTuesday of 2027"


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("", ""),
        ("  one line \n", "one line"),
        ("the reason\nwhere to read more", "the reason"),
        (
            "While executing CallExpression at line 3:\n...x\n   ^\nError: Jinja: why",
            "Error: Jinja: why",
        ),
        ("Traceback (most recent call last):\n  File x\nValueError: why\n", "ValueError: why"),
    ],
)
def test_of_a_refusal_the_line_with_the_reason_is_shown_and_all_is_kept(message, line):
    found = Refusal.of("E", message)
    assert (found.line, found.message) == (line, message.strip())
    assert Refusal.of("E", f"see below\nthe request exceeds the context\n{message}").context
