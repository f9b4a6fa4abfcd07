"""Findings as every report shows them: outputs side by side, cut to where they differ, made visible and harmless."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from harness.compare.hunks import common_prefix
from harness.report.visible import shorten, visible

if TYPE_CHECKING:
    from harness.fuzz.finding import Finding

BEFORE, LONGEST, INPUT = 60, 320, 900
"""Characters of an output before its difference, of an output in all, and of an input."""
_SUBJECTS: Final = 4


def outputs(finding: Finding) -> list[tuple[str, str, bool]]:
    """Return who gave what, in one line each, and whether it is an error.

    Of texts that differ the beginning that they share is left out, but for what stands right before the difference.
    """
    texts = [one.text for one in finding.broken.shown if one.text is not None]
    start = 0
    if len(texts) > 1 and len(set(texts)) > 1:
        start = max(0, min(common_prefix(texts[0], other) for other in texts[1:] if other != texts[0]) - BEFORE)
    rows = []
    for one in finding.broken.shown:
        if one.text is None:
            rows.append((one.by, visible(shorten(one.error or "nothing", LONGEST)), True))
        else:
            cut = shorten(one.text[start:], LONGEST)
            rows.append((one.by, visible(("\u2026" if start else "") + cut), False))
    return rows


def example(finding: Finding) -> str:
    """Return the input in one line."""
    return visible(shorten(json.dumps(finding.example, ensure_ascii=False), INPUT))


def spread(finding: Finding, of: int) -> str:
    """Return how many subjects and inputs show it."""
    inputs = f"{finding.inputs:,} input{'' if finding.inputs == 1 else 's'}"
    return inputs if of <= 1 else f"{len(finding.subjects):,} of {of:,}, {inputs}"


def subjects(finding: Finding) -> str:
    """Return the names of some subjects that show it, that of the example first."""
    others = [name for name in finding.subjects if name != finding.subject]
    named = [finding.subject, *others[: _SUBJECTS - 1]]
    more = len(finding.subjects) - len(named)
    return visible(", ".join(named) + (f" and {more} more" if more > 0 else ""))
