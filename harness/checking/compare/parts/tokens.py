"""What was done to ids: some are missing, some too many, or the same text is in other ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from harness.checking.compare.outcome import Difference, Hunk
from harness.checking.compare.texts import Change, changes
from harness.checking.compare.tokenization import ONE_TOO_MANY
from harness.values import Tokens

_MARKER = ("<", "[")
"""How the text of a control token begins, in the families that are known."""


def parts(golden: Tokens, observed: Tokens, difference: Difference) -> Iterator[Difference]:
    """Yield the parts of a difference between ids: what is before them, what is behind them, what became of them."""
    hunks = difference.hunks
    if difference.causes[0] in golden.policies:
        yield difference.model_copy(update={"perhaps": (_mechanism(golden, observed, hunks).key, _SAME_TEXT, _CONTROL)})
        return
    # What was done may have been done to the ids of a policy.
    followed = [golden.model_copy(update={"ids": ids, "pieces": None}) for ids in golden.policies.values()]
    others = tuple(_mechanism(one, observed, ()).key for one in followed)
    alone = len(hunks) == 1
    if not alone and _before(hunks[0]):
        yield _part(difference, hunks[:1], _ADDED_BEFORE, _became(hunks[0]))
        hunks = hunks[1:]
    if len(hunks) > 1 and _behind(hunks[-1], golden):
        yield _part(difference, hunks[-1:], _ADDED_BEHIND, _became(hunks[-1]))
        hunks = hunks[:-1]
    seen = _mechanism(golden, observed, hunks)
    part = _part(difference, hunks, seen.key, difference.summary, seen.words)
    texts = tuple(change.key for change in _of_the_text(golden, observed))
    if seen.key == _CONTROL:
        texts = ()
    elif _holds_control(golden, hunks, any):
        texts = (*texts, _CONTROL)
    elif seen.key == _AN_ID:
        texts = (*texts, _OTHERS, _CONTROL)
    yield part.model_copy(update={"perhaps": (*others, *texts)})


_ADDED_BEFORE, _ADDED_BEHIND = "ids are added at the beginning", "ids are added at the end"
_LOST_BEFORE, _LOST_BEHIND = "ids are missing at the beginning", "ids are missing at the end"
_OTHERS = "other ids"
_SAME_TEXT = "the same text in other ids"
_CONTROL = "the text of control tokens is in ordinary ids"
_LESS, _MORE, _ONE_FOR_ONE = "ids are missing", "ids are added", "ids are replaced one for one"
_AN_ID = "an id is another"
_SHOWN = 80
"""Characters of a place that is still one token and what it is joined to."""
_FEW = 2
"""How many ids before or behind the others are told apart from what became of these."""


def _part(difference: Difference, hunks: tuple[Hunk, ...], key: str, told: str, words: str = "") -> Difference:
    words = words or key
    plain = key in (_OTHERS, _SAME_TEXT) or told.startswith((words, ONE_TOO_MANY))
    return Difference(
        summary=told if plain else f"{words}: {told}",
        hunks=hunks,
        causes=(key,),
        kind=difference.kind,
    )


def _became(hunk: Hunk) -> str:
    return f"{hunk.golden or 'nothing'} became {hunk.observed or 'nothing'}"


def _before(hunk: Hunk) -> bool:
    return hunk.at == "0" and not hunk.golden and len(hunk.observed.split()) <= _FEW


def _behind(hunk: Hunk, golden: Tokens) -> bool:
    return hunk.at == str(len(golden.ids)) and not hunk.golden and len(hunk.observed.split()) <= _FEW


def _mechanism(golden: Tokens, observed: Tokens, hunks: Sequence[Hunk]) -> Change:
    wanted, found = golden.ids, observed.ids
    for key, holds in (
        ("the same ids in another order", sorted(wanted) == sorted(found)),
        (_ADDED_BEHIND, found[: len(wanted)] == wanted),
        (_ADDED_BEFORE, len(found) > len(wanted) and found[len(found) - len(wanted) :] == wanted),
        (_LOST_BEHIND, wanted[: len(found)] == found),
        (_LOST_BEFORE, len(found) < len(wanted) and wanted[len(wanted) - len(found) :] == found),
        (_LESS, _within(found, wanted)),
        (_MORE, _within(wanted, found)),
    ):
        if holds:
            return Change(key, key)
    if len(wanted) == len(found) and sum(one != other for one, other in zip(wanted, found, strict=True)) == 1:
        return Change(_AN_ID, _AN_ID)
    if _holds_control(golden, hunks, all):
        return Change(_CONTROL, _CONTROL)
    for change in _of_the_text(golden, observed):
        return change
    key = _ONE_FOR_ONE if len(wanted) == len(found) else _OTHERS
    return Change(key, key)


def _of_the_text(golden: Tokens, observed: Tokens) -> list[Change]:
    """Return what became of the text that the ids stand for, where it is known."""
    if not golden.pieces or not observed.pieces:
        return []
    text, other = "".join(golden.pieces), "".join(observed.pieces)
    if text == other:
        return [Change(_SAME_TEXT, _SAME_TEXT)]
    return [Change(f"text\0{one.key}", f"the text of the ids: {one.words}") for one in changes(text, other)]


def _holds_control(golden: Tokens, hunks: Sequence[Hunk], which: Callable[[Iterable[bool]], bool]) -> bool:
    """Whether a control token stands in the golden at all of these places, or at any."""
    markers = {f"[{piece}]" for piece in golden.pieces or () if len(piece) > 2 and piece.startswith(_MARKER)}
    small = (len(hunk.golden) <= _SHOWN for hunk in hunks)
    here = (any(marker in hunk.golden for marker in markers) for hunk in hunks)
    return bool(hunks) and all(small) and which(here)


def _within(shorter: Sequence[int], longer: Sequence[int]) -> bool:
    rest = iter(longer)
    return all(one in rest for one in shorter)
