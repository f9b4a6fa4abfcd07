"""Which cases a bench asks in full: those that cover most for what they cost."""

from __future__ import annotations

from collections.abc import Mapping

from harness.attribution.trial import Plan
from harness.golden import Golden
from harness.values import Generation, Tokens

_ID_COST = 4
"""What an id that is evaluated alone costs in ids of a prompt."""
_UNLIMITED = 64
_CASE_COST = 20
"""What a case costs beside its ids."""


def plan_of(goldens: Mapping[str, Golden], deep: int) -> Plan:
    """Return a plan: every case up to tokenization and on made-up ids, so many of them in full.

    Cases are taken one by one: the next is the one that covers most of what none before it covers, for its cost.

    Args:
        goldens: The goldens, by case.
        deep: How many cases are run in full; all of them where there are no more.
    """
    candidates = {name: golden for name, golden in goldens.items() if isinstance(golden.generation, Generation)}
    chosen: list[str] = []
    covered: set[str] = set()
    while candidates and len(chosen) < deep:
        best = max(candidates, key=lambda name: _worth(candidates[name], covered))
        golden = candidates.pop(best)
        covered |= set(golden.case.covers)
        chosen.append(best)
    shallow = tuple(name for name in goldens if name not in chosen)
    return Plan(shallow=shallow, deep=tuple(name for name in goldens if name in chosen))


def _worth(golden: Golden, covered: set[str]) -> float:
    # Half a new thing for a case that adds nothing, so that the cheapest of those come next.
    return (len(set(golden.case.covers) - covered) + 0.5) / cost_of(golden)


def cost_of(golden: Golden) -> int:
    """Return what a case costs in full, in ids of a prompt.

    The prompt is evaluated chained and isolated, the golden's ids once, and what is generated freely in both chained
    runs: as much as the golden's where those are the reference's own choice, else up to the limit asked for.
    """
    prompt = len(golden.tokens.ids) if isinstance(golden.tokens, Tokens) else 0
    forced = len(golden.generation.ids) if isinstance(golden.generation, Generation) else 0
    free = forced if golden.case.options.script is None else int(golden.request.settings.get("max_tokens", _UNLIMITED))
    return _CASE_COST + 2 * prompt + _ID_COST * (forced + 2 * free)
