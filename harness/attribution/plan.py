"""Which cases a bench asks in full: those that cover most for what they cost."""

from __future__ import annotations

from collections.abc import Mapping

from harness.attribution.trial import Plan
from harness.project.golden import Golden
from harness.values import Generation, Tokens

_ID_COST = 4
"""What an id that is evaluated alone costs in ids of a prompt."""
_UNLIMITED = 64
_CASE_COST = 20
"""What a case costs beside its ids."""
_LONG = 256
"""Ids that a prompt must exceed to count as long: llama.cpp's attention takes its cache in steps of so many cells."""


def plan_of(goldens: Mapping[str, Golden], deep: int) -> Plan:
    """Return a plan: every case up to tokenization and on made-up ids, so many of them in full.

    Of each way in which the model itself ends an answer the cheapest case comes first, and of those that are drawn;
    then the cheapest with a long prompt. The others are taken one by one: the next is the one that covers most of what
    none before it covers, for its cost.

    Args:
        goldens: The goldens, by case.
        deep: How many cases are run in full; all of them where there are no more.
    """
    candidates = {name: golden for name, golden in goldens.items() if isinstance(golden.generation, Generation)}
    chosen = [*dict.fromkeys((*_endings(candidates), *_long(candidates)))][:deep]
    covered = {tag for name in chosen for tag in candidates.pop(name).case.covers}
    while candidates and len(chosen) < deep:
        best = max(candidates, key=lambda name: _worth(candidates[name], covered))
        golden = candidates.pop(best)
        covered |= set(golden.case.covers)
        chosen.append(best)
    shallow = tuple(name for name in goldens if name not in chosen)
    return Plan(shallow=shallow, deep=tuple(name for name in goldens if name in chosen))


def _endings(goldens: Mapping[str, Golden]) -> list[str]:
    """Return the cheapest case of each way in which an answer of the model's own ends, and of those that are drawn."""
    cheapest: dict[str, str] = {}
    for name in sorted(goldens, key=lambda name: cost_of(goldens[name])):
        golden = goldens[name]
        plain = golden.case.options.script is None and not golden.case.options.continue_final_message
        if isinstance(golden.generation, Generation) and plain:
            # Of an answer that is drawn nobody can say how it must end.
            greedy = golden.request.settings.get("temperature") == 0
            cheapest.setdefault(golden.generation.finish if greedy else "drawn", name)
    return list(cheapest.values())


def _long(goldens: Mapping[str, Golden]) -> list[str]:
    """Return the cheapest case with a long prompt, if there is one."""
    long = [name for name, one in goldens.items() if isinstance(one.tokens, Tokens) and len(one.tokens.ids) > _LONG]
    return sorted(long, key=lambda name: (cost_of(goldens[name]), name))[:1]


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
