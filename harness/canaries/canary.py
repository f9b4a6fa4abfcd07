"""What a canary is: one thing that the API says, a question that shows it, and a row for what came."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from harness.canaries.asking import Asking
from harness.checking.compare.outcome import Kind, Outcome
from harness.checking.own import own_error
from harness.checking.rows import Row
from harness.errors import UserError
from harness.stage import Stage, StageFailedError, StageRefusedError, StageUnobservedError

REFERENCE: Final = "OpenAI API reference, Create chat completion"


@dataclass(frozen=True)
class Said:
    """What a canary saw.

    Attributes:
        outcome: `equal`, `diverged` or `unobserved`.
        found: What came.
        why: Of what diverged the finding in one line, of what was not seen why.
        kind: What sort of defect it is.
    """

    outcome: Literal[Outcome.EQUAL, Outcome.DIVERGED, Outcome.UNOBSERVED]
    found: str = ""
    why: str = ""
    kind: Kind = "integration"


def right(found: object) -> Said:
    """Return that it is as the API says."""
    return Said(Outcome.EQUAL, found=_short(found))


def wrong(found: object, why: str, kind: Kind = "integration") -> Said:
    """Return that it is not."""
    return Said(Outcome.DIVERGED, found=_short(found), why=why, kind=kind)


def unseen(why: str) -> Said:
    """Return that it was not seen."""
    return Said(Outcome.UNOBSERVED, why=why)


def _short(found: object) -> str:
    text = str(found)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


_SHOWN: Final = 160


@dataclass(frozen=True)
class Canary:
    """One thing that is held against the API.

    Attributes:
        name: In a few words.
        stage: Whose it is.
        expected: What the API says.
        source: The field of the API reference that says so.
        remedy: What to change, where that is known.
        must_be_taken: Whether a refusal is a defect, as the API makes nothing of it optional.
        look: Asks and says.
    """

    name: str
    stage: Stage
    expected: str
    source: str
    remedy: str
    must_be_taken: bool
    look: Callable[[Asking], Said]

    def row(self, asking: Asking) -> Row:
        """Return the row of what is seen."""
        error = None
        try:
            said = self.look(asking)
        except StageRefusedError as refused:
            said = self._refused(asking, refused)
        except StageUnobservedError as hidden:
            said = unseen(hidden.unobserved.reason)
        except StageFailedError as failed:
            said = self._failed(asking, failed)
        except UserError as wanted:
            if not asking.answered:
                # Nothing listens, or it wants another key: that is no answer to any question.
                raise
            said = unseen(f"it refuses this: {wanted}")
        except Exception as raised:  # noqa: BLE001 - whatever it is, it is ours and speaks against nobody
            error = own_error(raised)
        outcome = said.outcome if error is None else Outcome.ERROR
        return Row(
            of="canary",
            name=self.name,
            expected=self.expected,
            found=said.found if error is None else "",
            source=f"{REFERENCE}: {self.source}",
            outcome=outcome,
            stage=self.stage,
            kind=said.kind if error is None else "integration",
            why=f"{self.name}: {said.why}" if error is None and said.why else "",
            remedy=self.remedy if outcome is Outcome.DIVERGED else "",
            error=error,
        )

    def _refused(self, asking: Asking, refused: StageRefusedError) -> Said:
        refusal = refused.refusal
        told = f"it refuses this: {refusal.line}"
        if asking.answered:
            return wrong(refusal.line, told) if self.must_be_taken else unseen(told)
        # The first question, which is the plainest: whoever refuses that is asked nothing else.
        asking.stop(f"it refuses the plainest question: {refusal.line}")
        if refusal.error in _NOT_NOW:
            return unseen(f"it takes no requests now ({refusal.error}): {refusal.line}")
        if _MODEL.search(refusal.message):
            return unseen(f"it refuses the name of the model: {refusal.line}")
        return wrong(refusal.line, told)

    def _failed(self, asking: Asking, failed: StageFailedError) -> Said:
        told = failed.failure.describe()
        late = failed.failure.reason == "hang"
        if not asking.answered:
            asking.stop(f"it does not answer the plainest question: {told}")
        if late:
            return unseen(f"no answer in time: {told}")
        if asking.answered and not asking.alive():
            asking.stop(f"it answers nothing since it was asked this: {self.name}")
            return wrong(told, f"{told}; since then the server answers nothing", "engine")
        return wrong(told, f"its answer is none: {told}")


_NOT_NOW: Final = ("HTTP 429", "HTTP 503")
_MODEL: Final = re.compile(r"(?<![a-z])models?(?![a-z])", re.IGNORECASE)

CANARIES: Final[list[Canary]] = []
"""In the order in which they are asked."""


def canary(
    name: str, stage: Stage, expected: str, source: str, remedy: str = "", *, must_be_taken: bool = False
) -> Callable[[Callable[[Asking], Said]], Callable[[Asking], Said]]:
    """Return what enters a function as a canary; see `Canary`."""

    def enter(look: Callable[[Asking], Said]) -> Callable[[Asking], Said]:
        CANARIES.append(Canary(name, stage, expected, source, remedy, must_be_taken, look))
        return look

    return enter
