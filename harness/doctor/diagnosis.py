"""What an examination says: one line for each check, in a shape that prints and serializes as it is."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Status = Literal["ok", "unobserved", "warning", "bad"]

_FROM_BEST_TO_WORST: tuple[Status, ...] = ("ok", "unobserved", "warning", "bad")


class Check(BaseModel):
    """One thing that was looked at.

    Attributes:
        name: What was looked at, in a word or two; unique within a diagnosis.
        status: `unobserved` where it could not be judged; that is never a pass.
        found: The facts. Text taken from an untrusted file is quoted and escaped.
        advice: What is expected instead and how to mend it; empty where there is nothing to do.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    status: Status
    found: str
    advice: str = ""


class Diagnosis(BaseModel):
    """Every check of one subject.

    Attributes:
        subject: The path of the model file, or the machine.
        kind: Whether a bad check convicts the model file or what it runs on.
        checks: In a fixed order.
    """

    model_config = ConfigDict(frozen=True)

    subject: str
    kind: Literal["artifact", "environment"]
    checks: tuple[Check, ...]

    @property
    def worst(self) -> Status:
        """The worst status of any check: `bad`, then `warning`, then `unobserved`, then `ok`."""
        return worst(*(check.status for check in self.checks))


def worst(*statuses: Status) -> Status:
    """Return the worst of the statuses, `ok` if there are none."""
    return max(statuses, key=_FROM_BEST_TO_WORST.index, default="ok")
