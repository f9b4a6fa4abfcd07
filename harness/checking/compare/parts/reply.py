"""What was done to a reply: to its text, its calls, its finish reason, its counts, its stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from harness.checking.compare.client import pattern
from harness.checking.compare.outcome import Difference, Hunk
from harness.checking.compare.parts.client import Seen, of_texts
from harness.checking.compare.postprocess import summary
from harness.values import Reply

_TEXT = ("content", "reasoning")
_CALLS, _FINISH, _USAGE, _DELTAS = "tool_calls", "finish_reason", "usage", "deltas"
_FOLLOW = (_FINISH, _USAGE, _DELTAS)
"""What may be wrong because the text or the calls are."""
_LOST_CALLS = "calls missing"
_ARGUMENTS = ".function.arguments"


def parts(golden: Reply, observed: Reply, difference: Difference) -> Iterator[Difference]:
    """Yield the parts of a difference between replies."""
    texts = tuple(hunk for hunk in difference.hunks if hunk.at in _TEXT)
    policy = difference.causes[0] if difference.causes[0] in golden.policies else None
    if policy is not None:
        seen = _texts(golden, observed, texts) if texts else None
        others = () if seen is None else (*seen.causes, *seen.perhaps)
        yield difference.model_copy(update={"perhaps": (*others, _LOST_CALLS)})
        return
    calls = tuple(hunk for hunk in difference.hunks if hunk.at.startswith(_CALLS))
    if texts and calls and len(observed.tool_calls or ()) < len(golden.tool_calls or ()):
        # What is not taken for a call stays in the text.
        yield _part(difference, (*calls, *texts), _calls(golden, observed, calls), ())
        texts = calls = ()
    if texts:
        yield _part(difference, texts, _texts(golden, observed, texts), tuple(hunk.signature for hunk in texts))
    if calls:
        own = tuple(dict.fromkeys(pattern(hunk.at) for hunk in calls))
        yield _part(difference, calls, _calls(golden, observed, calls), own)
    for area in _FOLLOW:
        hunks = tuple(hunk for hunk in difference.hunks if hunk.at.startswith(area))
        if hunks:
            own = tuple(dict.fromkeys(pattern(hunk.at) for hunk in hunks))
            seen = _count(hunks[0]) if area == _USAGE else None
            yield _part(difference, hunks, seen, own).model_copy(update={"follows": True})


def _part(difference: Difference, hunks: tuple[Hunk, ...], seen: Seen | None, own: tuple[str, ...]) -> Difference:
    told = summary(hunks[0])
    return Difference(
        summary=f"{seen.words}: {told}" if seen else told,
        hunks=hunks,
        causes=seen.causes if seen and seen.causes else own,
        perhaps=seen.perhaps if seen else (),
        kind=difference.kind,
    )


def _texts(golden: Reply, observed: Reply, hunks: Sequence[Hunk]) -> Seen | None:
    both = [golden.content or "", golden.reasoning or ""], [observed.content or "", observed.reasoning or ""]
    if both[0][0] and both[0][1] and both[0] == both[1][::-1]:
        return Seen("content and reasoning are swapped", ("content and reasoning swapped",))
    if both[0][1] and not both[1][1] and both[0][1].strip() in both[1][0]:
        return Seen("the reasoning stands in the content", ("reasoning in the content",))
    if both[0][0] and not both[1][0] and both[0][0].strip() in both[1][1]:
        return Seen("the content stands in the reasoning", ("content in the reasoning",))
    places = {hunk.at for hunk in hunks}
    seen: list[Seen | None] = []
    for name, wanted, found in (
        ("content", golden.content, observed.content),
        ("reasoning", golden.reasoning, observed.reasoning),
    ):
        if name not in places:
            continue
        if wanted is not None and found is None:
            seen.append(Seen(f"the {name} is missing", (f"{name} missing",)))
        else:
            seen.append(of_texts(f"the {name}", [(wanted or "", found or "")]))
    known = [one for one in seen if one is not None]
    if not known or len(known) < len(seen):
        return None
    causes = tuple(cause for one in known for cause in one.causes)
    return Seen(known[0].words, causes, tuple(cause for one in known for cause in one.perhaps))


def _calls(golden: Reply, observed: Reply, hunks: Sequence[Hunk]) -> Seen | None:
    wanted, found = len(golden.tool_calls or ()), len(observed.tool_calls or ())
    if wanted != found:
        more = found > wanted
        return Seen("there are too many calls", ("calls added",)) if more else Seen("calls are missing", (_LOST_CALLS,))
    arguments = [hunk for hunk in hunks if hunk.at.endswith(_ARGUMENTS)]
    if len(arguments) < len(hunks):
        return None
    pairs = [(_loaded(hunk.golden), _loaded(hunk.observed)) for hunk in arguments]
    texts = [(one, other) for one, other in pairs if isinstance(one, str) and isinstance(other, str)]
    seen = of_texts("the arguments of a call", texts) if len(texts) == len(pairs) else None
    return Seen(seen.words if seen else "the arguments of a call are others", ("arguments of calls",))


def _loaded(shown: str) -> Any:
    try:
        return json.loads(shown)
    except (ValueError, RecursionError):
        return None


def _count(hunk: Hunk) -> Seen | None:
    try:
        less = int(hunk.golden) - int(hunk.observed)
    except ValueError:
        return None
    return Seen(f"{hunk.at} is {'smaller' if less > 0 else 'larger'} by {abs(less)}", ())
