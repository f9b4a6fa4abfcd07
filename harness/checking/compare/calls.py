"""Tool calls: the same functions in the same order, arguments of the same value, and an id of its own for each call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from harness.checking.compare.client import differing
from harness.checking.compare.outcome import Hunk
from harness.values import Json


def compare(golden: Sequence[Json] | None, observed: Sequence[Json] | None, rules: list[str]) -> list[Hunk]:
    """Return where calls differ, and note the rules by which other differences do not count.

    Args:
        golden: The calls that there must be. A golden's calls have no ids.
        observed: The calls that there are.
        rules: Where a rule that is used is added.
    """
    wanted, found = list(golden or ()), list(observed or ())
    places: list[Hunk] = []
    if len(wanted) != len(found):
        names = [[_function(call).get("name") for call in calls] for calls in (wanted, found)]
        return [Hunk(at="tool_calls", golden=json.dumps(names[0]), observed=json.dumps(names[1]))]
    for index, (one, other) in enumerate(zip(wanted, found, strict=True)):
        at = f"tool_calls[{index}]"
        places += differing(f"{at}.type", one.get("type"), other.get("type"))
        places += differing(f"{at}.function.name", _function(one).get("name"), _function(other).get("name"))
        places += _arguments(f"{at}.function.arguments", one, other, rules)
        if not (isinstance(other.get("id"), str) and other["id"]):
            places.append(Hunk(at=f"{at}.id", golden="(an id)", observed=json.dumps(other.get("id"))))
    ids = [json.dumps(call.get("id")) for call in found]
    if len(set(ids)) < len(ids):
        places.append(Hunk(at="tool_calls.id", golden="(ids of their own)", observed=", ".join(ids)))
    return places


def _arguments(at: str, golden: Json, observed: Json, rules: list[str]) -> list[Hunk]:
    wanted, found = _function(golden).get("arguments"), _function(observed).get("arguments")
    if wanted == found:
        return []
    if isinstance(wanted, str) and isinstance(found, str) and _same_value(wanted, found):
        rules.append("arguments are the same value, written otherwise")
        return []
    return list(differing(at, wanted, found))


def _same_value(one: str, other: str) -> bool:
    try:
        return json.dumps(json.loads(one)) == json.dumps(json.loads(other))
    except (ValueError, RecursionError):
        return False


def _function(call: Json) -> dict[str, Any]:
    function = call.get("function")
    return function if isinstance(function, dict) else {}
