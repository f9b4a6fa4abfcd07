"""The client stage: messages and tools must arrive as they were sent, and each setting asked for must be in force."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from harness.checking.compare.outcome import EQUAL, Comparison, Difference, Hunk, compare_endings, diverged
from harness.values import Ending, Request

_ABSENT = object()
_SHOWN_ABSENT = "(absent)"


def compare(golden: Request, observed: Request | Ending | None) -> Comparison:
    """Hold what reached the server against what was sent."""
    ended = compare_endings(golden, observed)
    if ended is not None:
        return ended
    assert isinstance(observed, Request)
    places = [
        *differing("messages", list(golden.messages), list(observed.messages)),
        *differing("tools", _listed(golden.tools), _listed(observed.tools)),
        *differing("tool_choice", golden.tool_choice, observed.tool_choice),
        *(
            Hunk(at=f"settings.{name}", golden=_shown(value), observed=_shown(observed.settings.get(name, _ABSENT)))
            for name, value in golden.settings.items()
            if observed.settings.get(name, _ABSENT) != value
        ),
        *(
            Hunk(at=f"settings.{name}", golden=_SHOWN_ABSENT, observed=_shown(value))
            for name, value in observed.settings.items()
            if observed.defaults is not None and name not in golden.settings and name not in observed.defaults
        ),
    ]
    if not places:
        return EQUAL
    causes = tuple(f"{pattern(place.at)}\0{place.observed == _SHOWN_ABSENT}" for place in places)
    return diverged(Difference(summary=summary(places), hunks=tuple(places), causes=causes))


def summary(places: Sequence[Hunk]) -> str:
    """Return one line on the first of some places, and how many more there are."""
    first = places[0]
    sent = "nobody asked for it" if first.golden == _SHOWN_ABSENT else f"sent was {first.golden}"
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    return f"{first.at} is {first.observed}, {sent}{more}"


def differing(path: str, golden: Any, observed: Any) -> Iterator[Hunk]:
    """Yield the innermost places where two JSON values differ; the order of keys counts, as templates print it."""
    if isinstance(golden, dict) and isinstance(observed, dict):
        for key in [*golden, *(key for key in observed if key not in golden)]:
            yield from differing(f"{path}.{key}", golden.get(key, _ABSENT), observed.get(key, _ABSENT))
        if golden == observed and list(golden) != list(observed):
            yield Hunk(at=f"{path} (order of keys)", golden=_shown(list(golden)), observed=_shown(list(observed)))
    elif isinstance(golden, list) and isinstance(observed, list):
        for index in range(max(len(golden), len(observed))):
            one = golden[index] if index < len(golden) else _ABSENT
            other = observed[index] if index < len(observed) else _ABSENT
            yield from differing(f"{path}[{index}]", one, other)
    elif type(golden) is not type(observed) or golden != observed:
        yield Hunk(at=path, golden=_shown(golden), observed=_shown(observed))


def _listed(items: tuple[Any, ...] | None) -> list[Any] | None:
    return None if items is None else list(items)


def _shown(value: Any) -> str:
    return _SHOWN_ABSENT if value is _ABSENT else json.dumps(value, ensure_ascii=False)


def pattern(path: str) -> str:
    """Return a path without its indexes: the same loss in another message is the same cause."""
    return "".join(part.split("]")[-1] for part in path.split("["))
