"""The postprocess stage: content, reasoning, calls, finish reason and counts must be those of the specification."""

from __future__ import annotations

import re
from collections.abc import Mapping

from harness.checking.compare import calls
from harness.checking.compare.client import differing
from harness.checking.compare.hunks import hunks
from harness.checking.compare.outcome import (
    EQUAL,
    Comparison,
    Difference,
    Hunk,
    compare_endings,
    diverged,
    equivalent,
    told_as,
    unobserved,
)
from harness.values import Ending, Failure, Refusal, Reply

_REPLACEMENT = "\ufffd"
_UNITS = re.compile(r"\w+|\s|[^\w\s]")


def compare(golden: Reply, observed: Reply | Ending | None, policies: Mapping[str, str]) -> Comparison:
    """Hold a reply, streamed or not, against the one that the ids must give.

    Args:
        golden: The specification's reply, and those that policies would give.
        observed: The stack's.
        policies: The policies that the stack declares, with their reasons.
    """
    if isinstance(observed, Refusal) and observed.context:
        return unobserved("the prompt is longer than this part's context")
    ended = compare_endings(golden, observed)
    if ended is not None:
        # What cannot be read as an answer was put together wrongly, whatever the engine gave.
        unreadable = isinstance(observed, Failure) and observed.reason == "broken"
        return told_as("integration", ended) if unreadable else ended
    assert isinstance(observed, Reply)
    places, rules = _differences(golden, observed)
    if not places:
        return equivalent("; ".join(rules)) if rules else EQUAL
    matching = [name for name, other in golden.policies.items() if not _differences(other, observed)[0]]
    for name in matching:
        if name in policies:
            return equivalent(f"declared policy {name}: {policies[name]}", policy=name)
    first = places[0]
    told = summary(first)
    if matching:
        told = f"the reply is that of the policy {matching[0]}, which this stack does not declare: {told}"
    causes = (matching[0],) if matching else tuple(_cause(place) for place in places)
    return diverged(Difference(summary=told, hunks=tuple(places), causes=causes))


def _differences(golden: Reply, observed: Reply) -> tuple[list[Hunk], list[str]]:
    """Return where two replies differ, and the rules by which other differences do not count."""
    rules: list[str] = []
    content = _content(golden, observed, rules)
    halves = _text("content", golden.content, content)
    reasoning = _trimmed("reasoning", golden.reasoning, observed.reasoning, rules)
    places = [
        *halves,
        *_text("reasoning", golden.reasoning, reasoning),
        *calls.compare(golden.tool_calls, observed.tool_calls, rules),
        *differing("finish_reason", golden.finish_reason, observed.finish_reason),
        *_usage(golden, observed, rules),
        *_deltas(observed, whole=not halves),
    ]
    return places, rules


def summary(place: Hunk) -> str:
    """Return one line on a place."""
    golden, observed = _short(place, place.golden), _short(place, place.observed)
    if not place.golden:
        return f"{place.at}: {observed} is too much"
    if not place.observed:
        return f"{place.at} lacks {golden}"
    return f"{place.at} is {observed}, not {golden}"


def _short(place: Hunk, text: str) -> str:
    short = f"{text[:60]}..." if len(text) > 60 else text
    # Of two texts only the piece that differs is shown; everything else is JSON already.
    is_piece = place.at in ("content", "reasoning") and "null" not in (place.golden, place.observed)
    return f'"{short}"' if is_piece else short


def _content(golden: Reply, observed: Reply, rules: list[str]) -> str | None:
    """Return the golden's content where the observed one is the same by a rule, else the observed one."""
    wanted, found = golden.content, observed.content
    if wanted == found:
        return found
    if not wanted and not found:
        rules.append("an empty content is null or absent")
        return wanted
    if wanted is None or found is None:
        return found
    if found in {wanted + _REPLACEMENT * count for count in range(1, golden.withheld + 1)}:
        rules.append("an incomplete character is shown as U+FFFD instead of withheld")
        return wanted
    if golden.withheld and wanted.rstrip() == found:
        rules.append("the white space before an incomplete character is withheld with it")
        return wanted
    if golden.reasoning is not None or golden.tool_calls:
        return _trimmed("content", wanted, found, rules)
    return found


def _trimmed(name: str, wanted: str | None, found: str | None, rules: list[str]) -> str | None:
    """White space around what a parser took apart belongs to no part."""
    if wanted != found and (wanted or "").strip() == (found or "").strip():
        rules.append(f"{name} differs in the white space around it")
        return wanted
    return found


def _text(name: str, golden: str | None, observed: str | None) -> list[Hunk]:
    if golden == observed:
        return []
    if golden is None or observed is None:
        return list(differing(name, golden, observed))
    found = hunks(_UNITS.findall(golden), _UNITS.findall(observed), "".join)
    return [hunk.model_copy(update={"at": name}) for hunk in found]


def _usage(golden: Reply, observed: Reply, rules: list[str]) -> list[Hunk]:
    """Compare token counts; a streamed reply may leave them out, and engines count the end token or do not."""
    if golden.usage is None:
        return []
    if observed.usage is None:
        if observed.deltas is None:
            return [Hunk(at="usage", golden=str(golden.usage), observed="(absent)")]
        return []
    places = []
    if golden.usage.prompt_tokens != observed.usage.prompt_tokens:
        counts = str(golden.usage.prompt_tokens), str(observed.usage.prompt_tokens)
        places.append(Hunk(at="usage.prompt_tokens", golden=counts[0], observed=counts[1]))
    more = observed.usage.completion_tokens - golden.usage.completion_tokens
    if more == 1 and golden.finish_reason != "length":
        rules.append("its completion count includes the end token")
    elif more:
        counts = str(golden.usage.completion_tokens), str(observed.usage.completion_tokens)
        places.append(Hunk(at="usage.completion_tokens", golden=counts[0], observed=counts[1]))
    return places


def _deltas(observed: Reply, *, whole: bool) -> list[Hunk]:
    """Check what holds of a stream: the role comes first; where the sum is wrong, half a character may be why."""
    if observed.deltas is None:
        return []
    places = []
    if not observed.deltas or observed.deltas[0].get("role") != "assistant":
        first = str(observed.deltas[0]) if observed.deltas else "(no delta)"
        places.append(Hunk(at="deltas[0].role", golden="assistant", observed=first))
    halves = [
        Hunk(at="deltas.content", golden="whole characters", observed=str(delta["content"]))
        for delta in observed.deltas
        if not whole and _REPLACEMENT in (delta.get("content") or "")
    ]
    return places + halves[:1]


def _cause(place: Hunk) -> str:
    """Return what makes it the same cause elsewhere; content differs from case to case, fields do not."""
    if place.at in ("content", "reasoning"):
        return place.signature
    if place.at.startswith(("usage", "deltas")):
        return place.at
    return f"{place.at}\0{place.observed}"
