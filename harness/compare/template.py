"""The template stage: the prompt's text must be equal, byte for byte."""

from __future__ import annotations

import re

from harness.compare.hunks import hunks
from harness.compare.outcome import EQUAL, Comparison, Difference, compare_endings, diverged
from harness.values import Ending, Prompt, Refusal

_UNITS = re.compile(r"\w+|\s|[^\w\s]")


def compare(golden: Prompt | Refusal, observed: Prompt | Ending | None) -> Comparison:
    """Hold a rendered text against the reference's."""
    ended = compare_endings(golden, observed)
    if ended is not None:
        return ended
    assert isinstance(golden, Prompt)
    assert isinstance(observed, Prompt)
    if golden.text == observed.text:
        return EQUAL
    found = hunks(_UNITS.findall(golden.text), _UNITS.findall(observed.text), "".join)
    lost_suffix = golden.suffix and golden.text.removesuffix(golden.suffix) == observed.text
    if lost_suffix:
        summary = "the end that opens the assistant's turn is missing"
    else:
        summary = f"the text differs in {len(found)} place{'s' if len(found) > 1 else ''}"
    return diverged(Difference(summary=summary, hunks=found, causes=tuple(hunk.signature for hunk in found)))
