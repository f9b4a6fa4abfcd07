"""The template stage: the prompt's text must be equal, byte for byte."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from harness.checking.compare.hunks import hunks
from harness.checking.compare.outcome import (
    EQUAL,
    Comparison,
    Difference,
    compare_endings,
    diverged,
    equivalent,
    reason_of,
    told_as,
)
from harness.values import Ending, Failure, Prompt, Refusal

_CANNOT = "Template"
"""How the names of Jinja2's errors of a template begin (`TemplateSyntaxError`, `TemplateAssertionError`)."""
UNITS = re.compile(r"\w+|\s|[^\w\s]")


def compare(golden: Prompt | Refusal, observed: Prompt | Ending | None, policies: Mapping[str, str]) -> Comparison:
    """Hold a rendered text against the reference's.

    Args:
        golden: The reference's text, and those that policies would give.
        observed: The stack's. Where it had a clock of its own, the golden's dates are those of that clock.
        policies: The policies that the stack declares, with their reasons.
    """
    if isinstance(golden, Refusal) and isinstance(observed, Prompt):
        for name, text in golden.policies.items():
            reason = reason_of(name, policies)
            if reason is not None and text == observed.text:
                return equivalent(f"declared policy {name}: {reason}", policy=name)
    ended = compare_endings(golden, observed)
    if ended is not None:
        # A part that does not start because Jinja2 cannot compile its template lacks what the template uses.
        unknown = isinstance(observed, Failure) and observed.reason == "start" and _CANNOT in (observed.message or "")
        return told_as("integration", ended) if unknown else ended
    assert isinstance(golden, Prompt)
    assert isinstance(observed, Prompt)
    if golden.text == observed.text:
        return EQUAL
    if golden.dates and observed.clock is not None:
        golden = _at(golden, observed.clock)
        if golden.text == observed.text:
            return equivalent(f"but for the clock, which is {observed.clock:%Y-%m-%d} there and cannot be set")
    matching = [name for name, text in golden.policies.items() if text == observed.text]
    for name in matching:
        reason = reason_of(name, policies)
        if reason is not None:
            return equivalent(f"declared policy {name}: {reason}", policy=name)
    found = hunks(UNITS.findall(golden.text), UNITS.findall(observed.text), "".join)
    lost_suffix = golden.suffix and golden.text.removesuffix(golden.suffix) == observed.text
    if matching:
        summary = f"the text is that of the policy {matching[0]}, which this stack does not declare"
    elif lost_suffix:
        summary = "the end that opens the assistant's turn is missing"
    else:
        summary = f"the text differs in {len(found)} place{'s' if len(found) > 1 else ''}"
    causes = tuple(matching[:1]) or tuple(hunk.signature for hunk in found)
    return diverged(Difference(summary=summary, hunks=found, causes=causes))


def _at(golden: Prompt, clock: datetime) -> Prompt:
    """Return the golden at another time, the texts that policies would give included."""
    dates = {golden.text[start:end]: clock.strftime(form) for start, end, form in golden.dates}
    policies = dict(golden.policies)
    for name, text in policies.items():
        for old, new in dates.items():
            text = text.replace(old, new)
        policies[name] = text
    return golden.model_copy(update={"text": golden.at(clock), "policies": policies, "dates": ()})
