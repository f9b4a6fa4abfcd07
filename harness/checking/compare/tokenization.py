"""The tokenization stage: the ids must be equal, or those that a policy of the stack says they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.checking.compare.hunks import hunks
from harness.checking.compare.outcome import EQUAL, Comparison, Difference, Hunk, compare_endings, diverged, equivalent
from harness.values import Ending, Tokens

ONE_TOO_MANY = "one id too many at the start"


def compare(golden: Tokens, observed: Tokens | Ending | None, policies: Mapping[str, str]) -> Comparison:
    """Hold ids against the reference's.

    Args:
        golden: The reference's ids, and those that policies would give.
        observed: The stack's.
        policies: The policies that the stack declares, with their reasons.
    """
    ended = compare_endings(golden, observed)
    if ended is not None:
        return ended
    assert isinstance(observed, Tokens)
    if golden.ids == observed.ids:
        return EQUAL
    matching = [name for name, ids in golden.policies.items() if ids == observed.ids]
    for name in matching:
        if name in policies:
            return equivalent(f"declared policy {name}: {policies[name]}", policy=name)
    names = _names(golden, observed)
    found = tuple(_spaced(hunk) for hunk in hunks(golden.ids, observed.ids, lambda ids: _show(ids, names)))
    if matching:
        summary = f"the ids are those of the policy {matching[0]}, which this stack does not declare"
    elif golden.ids == observed.ids[1:]:
        summary = f"{ONE_TOO_MANY}: {_show(observed.ids[:1], names)}"
    else:
        known = all(i in names for i in (*golden.ids, *observed.ids))
        same_text = known and _text(golden, names) == _text(observed, names)
        what = "the same text in other ids" if same_text else "other ids"
        places = f"{len(found)} place{'s' if len(found) > 1 else ''}"
        summary = f"{what}: {len(observed.ids)} instead of {len(golden.ids)}, differing in {places}"
    causes = tuple(matching[:1]) or tuple(hunk.signature for hunk in found)
    return diverged(Difference(summary=summary, hunks=found, causes=causes))


def _spaced(hunk: Hunk) -> Hunk:
    before = f"{hunk.before} " if hunk.before else ""
    after = f" {hunk.after}" if hunk.after else ""
    return hunk.model_copy(update={"before": before, "after": after})


def _text(tokens: Tokens, names: Mapping[int, str]) -> str:
    return "".join(names.get(i, "") for i in tokens.ids)


def _names(golden: Tokens, observed: Tokens) -> dict[int, str]:
    names: dict[int, str] = {}
    for tokens in (observed, golden):
        if tokens.pieces is not None:
            names.update(zip(tokens.ids, tokens.pieces, strict=True))
    return names


def _show(ids: Sequence[int], names: Mapping[int, str]) -> str:
    return " ".join(f"{i}[{names[i]}]" if i in names else str(i) for i in ids)
