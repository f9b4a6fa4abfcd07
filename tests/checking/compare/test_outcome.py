"""Where a stage does not end with a value: which ending speaks against it, and of what kind it is."""

import pytest

from harness.checking.compare.outcome import (
    EQUAL,
    Comparison,
    Difference,
    Hunk,
    Outcome,
    compare_endings,
    diverged,
    equivalent,
    unobserved,
)
from harness.values import Failure, Prompt, Refusal, Unobserved

VALUE = Prompt(text="hello")
REFUSAL = Refusal(error="TemplateError", message="roles must alternate")
FAILURE = Failure(reason="crash", signal="SIGSEGV")
UNSEEN = Unobserved(reason="the server hides its prompt")

SIDES = {"value": VALUE, "refusal": REFUSAL, "failure": FAILURE, "unobserved": UNSEEN, "None": None}
NOT_REACHED = unobserved("not reached")
HIDDEN = unobserved("the server hides its prompt")
CRASHED = Comparison(
    outcome=Outcome.FAILED,
    difference=Difference(summary="died by SIGSEGV", causes=("crash\0SIGSEGV",), kind="engine"),
)
REFUSED = Comparison(
    outcome=Outcome.FAILED,
    difference=Difference(
        summary="it refuses its input: TemplateError: roles must alternate", causes=("refuses\0TemplateError",)
    ),
)
ACCEPTED = diverged(
    Difference(
        summary="it accepts what must be refused (TemplateError: roles must alternate)",
        causes=("accepts\0TemplateError",),
    )
)


def expected(golden: str, observed: str) -> Comparison | None:
    """Return what must be said, written down apart from the code: what is observed decides, but for refusals."""
    by_observed = {"None": NOT_REACHED, "unobserved": HIDDEN, "failure": CRASHED}
    if observed in by_observed:
        return by_observed[observed]
    if observed == "refusal":
        return EQUAL if golden == "refusal" else REFUSED
    return ACCEPTED if golden == "refusal" else None


@pytest.mark.parametrize("golden", SIDES)
@pytest.mark.parametrize("observed", SIDES)
def test_every_combination_of_endings(golden, observed):
    assert compare_endings(SIDES[golden], SIDES[observed]) == expected(golden, observed)


@pytest.mark.parametrize(
    ("failure", "kind", "summary", "cause"),
    [
        (Failure(reason="crash", signal="SIGILL"), "environment", "died by SIGILL", "crash\0SIGILL"),
        (Failure(reason="crash", signal="SIGSEGV"), "engine", "died by SIGSEGV", "crash\0SIGSEGV"),
        (Failure(reason="crash", signal="SIGKILL"), "environment", "died by SIGKILL", "crash\0SIGKILL"),
        (Failure(reason="crash", signal="SIGBUS"), "environment", "died by SIGBUS", "crash\0SIGBUS"),
        (Failure(reason="crash", status=3), "engine", "exited with status 3", "crash\0" + "3"),
        (Failure(reason="hang", seconds=2.5), "engine", "no answer in 2.5 s", "hang\0"),
        (
            Failure(reason="broken", message="no JSON"),
            "engine",
            "broke the protocol: no JSON",
            "broken\0no JSON",
        ),
        (
            Failure(reason="start", message="ValueError: wrong magic", log=("gguf: bad", "giving up")),
            "environment",
            "could not start: ValueError: wrong magic; last log line: giving up",
            "start\0ValueError: wrong magic",
        ),
    ],
)
def test_the_kind_of_a_failure(failure, kind, summary, cause):
    found = compare_endings(VALUE, failure)
    assert found == Comparison(
        outcome=Outcome.FAILED, difference=Difference(summary=summary, causes=(cause,), kind=kind)
    )


def test_the_same_crash_in_two_cases_has_one_cause_whatever_the_log_says():
    one = compare_endings(VALUE, Failure(reason="crash", signal="SIGSEGV", log=("a",)))
    other = compare_endings(REFUSAL, Failure(reason="crash", signal="SIGSEGV", log=("b",)))
    assert one.difference.causes == other.difference.causes
    assert one.difference.summary != other.difference.summary


TOO_LONG = Refusal(error="ContextLength", message="9000 tokens, 8192 fit", context=True)


def test_a_prompt_that_is_too_long_must_be_refused_as_such():
    vague = Refusal(error="RuntimeError", message="decode returned 1")
    assert compare_endings(TOO_LONG, vague) == diverged(
        Difference(
            summary="it refuses a prompt longer than the context, but without saying so: "
            "RuntimeError: decode returned 1",
            causes=("context\0RuntimeError",),
        )
    )


def test_a_refusal_of_a_long_prompt_in_other_words_is_equivalent():
    said = Refusal(error="ValueError", message="Requested tokens (9000) exceed context window", context=True)
    rule = "both refuse (it says ValueError: Requested tokens (9000) exceed context window)"
    assert compare_endings(TOO_LONG, said) == equivalent(rule)


@pytest.mark.parametrize(
    "other",
    [Refusal(error="TypeError", message=REFUSAL.message), Refusal(error=REFUSAL.error, message="other words")],
)
def test_refusals_of_other_names_or_words_are_equivalent(other):
    assert compare_endings(REFUSAL, other) == equivalent(f"both refuse (it says {other.error}: {other.message})")


def test_only_divergence_and_failure_speak_against_a_stage():
    assert [outcome for outcome in Outcome if outcome.bad] == [Outcome.DIVERGED, Outcome.FAILED]


def test_a_difference_is_the_same_wherever_it_stands():
    one = Hunk(at="3", golden="a", observed="b", before="x", after="y")
    assert one.signature == Hunk(at="9", golden="a", observed="b").signature
    assert one.signature != Hunk(at="3", golden="b", observed="a").signature


def test_measured_numbers_are_kept():
    assert equivalent("within", "rule", kl=0.5) == Comparison(
        outcome=Outcome.EQUIVALENT, rule="within", policy="rule", measured={"kl": 0.5}
    )
    assert diverged(Difference(summary="x", causes=("c",)), kl=2.0).measured == {"kl": 2.0}


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("CUDA error: Out Of Memory", "environment"),
        ("no kernel image is available", "environment"),
        ("assert", "engine"),
    ],
)
def test_what_a_part_says_last_tells_a_machine_that_is_not_what_it_needs(line, kind):
    died = Failure(reason="crash", signal="SIGABRT", log=("loading", line))
    assert compare_endings(VALUE, died).difference.kind == kind
