"""What a comparison says: an outcome, the rule behind an `equivalent`, and the difference behind a `diverged`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from harness.values import Failure, OwnError, Refusal, Unobserved, Value

START = "start\0"
"""How the cause of a failed start begins."""
ACCEPTS = "accepts\0"
"""And that of taking what must be refused."""
MESSAGE = "the text of a message"
"""And that of what was done to the messages' own texts."""

_FROM_OUTSIDE = ("SIGILL", "SIGKILL", "SIGBUS")
"""An instruction that this processor lacks, the kernel that is out of memory, a mapped file that is cut off."""
_NOT_HERE = (
    "no kernel image is available",
    "driver version is insufficient",
    "out of memory",
    "cannot allocate memory",
)
"""What a part's last words say where this machine is not what it needs (CUDA's and libc's messages)."""
Kind = Literal["integration", "engine", "artifact", "environment"]


class Outcome(StrEnum):
    """Of one stage of one case."""

    EQUAL = "equal"
    EQUIVALENT = "equivalent"
    DIVERGED = "diverged"
    FAILED = "failed"
    UNOBSERVED = "unobserved"
    ERROR = "error"
    """Of ours: nothing is known of the stage."""

    @property
    def bad(self) -> bool:
        """Whether it speaks against the stage."""
        return self in (Outcome.DIVERGED, Outcome.FAILED)

    @property
    def seen(self) -> bool:
        """Whether the stage was looked at and compared."""
        return self not in (Outcome.UNOBSERVED, Outcome.ERROR)


WORST = (
    Outcome.ERROR, Outcome.FAILED, Outcome.DIVERGED, Outcome.UNOBSERVED, Outcome.EQUIVALENT, Outcome.EQUAL,
)  # fmt: skip
"""Of several outcomes of one stage, which counts. Where code of ours raised, nothing else that was seen is believed."""


class Hunk(Value):
    """One place where two values differ.

    Attributes:
        at: Where: an index, or the path of a field.
        golden: What should be there; empty where something was inserted.
        observed: What is there; empty where something is missing.
        before: What stands right before it in the golden, for orientation.
        after: What stands right after it.
    """

    at: str
    golden: str
    observed: str
    before: str = ""
    after: str = ""

    @property
    def signature(self) -> str:
        """What makes it the same difference in another case: what changed into what, wherever it stands."""
        return f"{self.golden}\0{self.observed}"


class Difference(Value):
    """How an observed value differs from the golden.

    Attributes:
        summary: One line for a human.
        hunks: The places, in order.
        causes: Signatures; two differences that share one have one root cause.
        kind: What sort of defect it is.
        size: How large it is, where that is a number; of several cases the largest is shown.
        parts: What it consists of, where that is recognised: a part each for what can have another root cause.
        perhaps: Further causes that would give exactly this.
        follows: Whether it may come of what is wrong beside it: a count, where the text is.
    """

    summary: str
    hunks: tuple[Hunk, ...] = ()
    causes: tuple[str, ...]
    kind: Kind = "integration"
    size: float = 0.0
    parts: tuple[Difference, ...] = Field(default=(), exclude=True, repr=False)
    perhaps: tuple[str, ...] = Field(default=(), exclude=True, repr=False)
    follows: bool = Field(default=False, exclude=True, repr=False)


class Comparison(Value):
    """One stage of one case, held against its golden.

    Attributes:
        outcome: The outcome.
        rule: Of an `equivalent`, the stated rule by which it is; of an `unobserved` or `error`, why.
        policy: The declared policy that the rule rests on, if one does.
        difference: Of a `diverged` or `failed`, how.
        error: Of an `error`, what code of ours raised.
        measured: Numbers worth keeping, by name.
    """

    outcome: Outcome
    rule: str = ""
    policy: str = ""
    difference: Difference | None = None
    error: OwnError | None = None
    measured: dict[str, float] = Field(default_factory=dict)


JOINED_BY = "+"
"""Joins the names of policies that are followed at once."""


def reason_of(name: str, policies: Mapping[str, str]) -> str | None:
    """Return why a policy, or all that a name joins, are followed; None where one of them is not declared."""
    parts = name.split(JOINED_BY)
    return "; ".join(policies[part] for part in parts) if set(parts) <= policies.keys() else None


EQUAL = Comparison(outcome=Outcome.EQUAL)


def equivalent(rule: str, policy: str = "", **measured: float) -> Comparison:
    """Return: different, within a stated rule."""
    return Comparison(outcome=Outcome.EQUIVALENT, rule=rule, policy=policy, measured=measured)


def unobserved(reason: str) -> Comparison:
    """Return: could not be looked at."""
    return Comparison(outcome=Outcome.UNOBSERVED, rule=reason)


def errored(error: OwnError) -> Comparison:
    """Return: code of ours raised, so nothing is known."""
    return Comparison(outcome=Outcome.ERROR, rule=error.describe(), error=error)


def diverged(difference: Difference, **measured: float) -> Comparison:
    """Return: different."""
    return Comparison(outcome=Outcome.DIVERGED, difference=difference, measured=measured)


def compare_endings(golden: Any, observed: Any) -> Comparison | None:
    """Compare where either side did not end with a value; None where both did."""
    if observed is None:
        return unobserved("not reached")
    if isinstance(observed, Unobserved):
        return unobserved(observed.reason)
    if isinstance(observed, OwnError):
        return errored(observed)
    if isinstance(observed, Failure):
        return _failed(observed)
    if isinstance(observed, Refusal):
        return _refused(golden, observed)
    if isinstance(golden, Refusal):
        summary = f"it accepts what must be refused ({golden.error}: {golden.line})"
        return diverged(Difference(summary=summary, causes=(f"{ACCEPTS}{golden.error}",)))
    return None


def told_as(kind: Kind, comparison: Comparison) -> Comparison:
    """Return a comparison whose difference is of another kind."""
    if comparison.difference is None:
        return comparison
    return comparison.model_copy(update={"difference": comparison.difference.model_copy(update={"kind": kind})})


def _failed(failure: Failure) -> Comparison:
    # Begins with START for a part that does not start.
    # What made a hang's limit longer is not what hangs.
    said = "" if failure.reason == "hang" else failure.message
    cause = f"{failure.reason}\0{failure.signal or failure.status or said or ''}"
    difference = Difference(summary=failure.describe(), causes=(cause,), kind=_kind_of(failure))
    return Comparison(outcome=Outcome.FAILED, difference=difference)


def _kind_of(failure: Failure) -> Kind:
    """A part that cannot run here, or says it cannot take a file that the reference took, is in a wrong environment.

    So is one that is ended from outside, or whose file or memory goes away under it.
    """
    said = "\n".join(failure.log).lower()
    here = failure.reason != "start" and failure.signal not in _FROM_OUTSIDE
    return "engine" if here and not any(words in said for words in _NOT_HERE) else "environment"


def _refused(golden: Any, refusal: Refusal) -> Comparison:
    said = f"{refusal.error}: {refusal.line}"
    if not isinstance(golden, Refusal):
        difference = Difference(summary=f"it refuses its input: {said}", causes=(f"refuses\0{refusal.error}",))
        return Comparison(outcome=Outcome.FAILED, difference=difference)
    if (golden.error, golden.line) == (refusal.error, refusal.line):
        return EQUAL
    if golden.context and not refusal.context:
        difference = Difference(
            summary=f"it refuses a prompt longer than the context, but without saying so: {said}",
            causes=(f"context\0{refusal.error}",),
        )
        return diverged(difference)
    return equivalent(f"both refuse (it says {said})")
