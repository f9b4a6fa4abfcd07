"""What must hold of tokenizers, each property an object that can be chosen by its name.

A property that a tokenizer cannot be asked for (it answers `unsupported`) is not judged on it.
"""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.fuzz.finding import Broken, cause_of
from harness.fuzz.tokenizer.asking import Asked, difference, encoded, normalized, output
from harness.parts import PartError, Tokenizer


@dataclass(frozen=True)
class Property:
    """A property of tokenizers.

    Attributes:
        name: Its name.
        sentence: What must hold.
        check: Returns how a text breaks it, given what the tokenizers make of it; None where it is judged on none.
    """

    name: str
    sentence: str
    check: Callable[[Asked], list[Broken] | None]

    def broken(self, tokenizers: Sequence[Tokenizer], text: str) -> list[Broken]:
        """Return how a text breaks it on these tokenizers."""
        return self.check(Asked(tokenizers, text)) or []


def disagreements(asked: Asked, ways: Sequence[bool]) -> list[Broken] | None:
    """Return where tokenizers differ from the first that answers, one for each pair; None where fewer than two answer.

    Args:
        asked: What was asked.
        ways: Whether control texts are parsed: one way, or one after the other.
    """
    broken: dict[str, Broken] = {}
    pairs = 0
    for special in ways:
        first: int | None = None
        for number, tokenizer in enumerate(asked.tokenizers):
            answer = asked.answer(number, special=special)
            if isinstance(answer, PartError):
                if answer.kind != "unsupported":
                    broken.setdefault(tokenizer.name, _no_ids(asked, number, answer, special))
                continue
            if first is None:
                first = number
                continue
            pairs += 1
            if answer != asked.answer(first, special=special):
                path = f"{asked.tokenizers[first].name} / {tokenizer.name}"
                if path not in broken:
                    broken[path] = _disagreement(asked, path, (first, number), special)
    return list(broken.values()) if broken or pairs else None


def _agreement(asked: Asked) -> list[Broken] | None:
    return disagreements(asked, (False, True))


def _mode(special: bool) -> str:
    return "control texts parsed" if special else "plain text"


def _no_ids(asked: Asked, number: int, answer: PartError, special: bool) -> Broken:
    shown = [output(one, asked.answer(n, special=special)) for n, one in enumerate(asked.tokenizers)]
    name = asked.tokenizers[number].name
    cause = f"{answer.kind} {answer.name}: {cause_of(answer.message)}"
    message = f"{name} gives no ids: {answer.message}"
    return Broken(name="agreement", path=name, cause=cause, message=message, shown=tuple(shown))


def _disagreement(asked: Asked, path: str, pair: tuple[int, int], special: bool) -> Broken:
    cause = difference(asked, *pair, special=special)
    return Broken(
        name="agreement",
        path=path,
        cause=cause,
        message=f"other ids for {asked.text!r:.80} ({_mode(special)}): {cause}",
        shown=tuple(output(asked.tokenizers[n], asked.answer(n, special=special), _mode(special)) for n in pair),
    )


_Seen = tuple[str, Sequence[int]] | None
"""What breaks a property on one tokenizer: the cause, and the ids that show it."""


class _UnjudgedError(Exception):
    """A property cannot be judged on this tokenizer with this text."""


def _each(check: Callable[[Asked, int], _Seen], name: str) -> Callable[[Asked], list[Broken] | None]:
    """Return the check of a property that each tokenizer has on its own.

    Args:
        check: Returns the cause and the ids that show it, or None where all is well. It raises where it cannot judge.
        name: The property's name.
    """

    def checked(asked: Asked) -> list[Broken] | None:
        broken = []
        judged = 0
        for number, tokenizer in enumerate(asked.tokenizers):
            try:
                found = check(asked, number)
            except _UnjudgedError:
                continue
            except PartError as error:
                found = f"{error.kind} {error.name}: {cause_of(error.message)}", asked.ids(number, special=False) or []
            judged += 1
            if found is not None:
                cause, ids = found
                message = f"{tokenizer.name} with {asked.text!r:.80}: {cause}"
                shown = (output(tokenizer, list(ids)),)
                broken.append(Broken(name=name, path=tokenizer.name, cause=cause, message=message, shown=shown))
        return broken if judged else None

    return checked


def _ids(asked: Asked, number: int, *, special: bool = False) -> list[int]:
    ids = asked.ids(number, special=special)
    if ids is None:
        raise _UnjudgedError
    return ids


def _round_trip(asked: Asked, number: int) -> _Seen:
    tokenizer = asked.tokenizers[number]
    ids = _ids(asked, number)
    found = tokenizer.decode(ids)
    if found == normalized(tokenizer, asked.text).encode("utf-8"):
        return None
    if found == unicodedata.normalize("NFC", asked.text).encode("utf-8"):
        return "it normalizes (NFC) and does not declare it", ids
    given = len(asked.text.encode("utf-8"))
    return "fewer bytes come back" if len(found) < given else "other bytes come back", ids


def _only_where_asked(asked: Asked, number: int) -> _Seen:
    ids = _ids(asked, number)
    if {*asked.tokenizers[number].special.values()}.isdisjoint(ids):
        return None
    return "plain text became a control token", ids


def _bos(asked: Asked, number: int) -> _Seen:
    tokenizer: Any = asked.tokenizers[number]
    bos = tokenizer.bos
    if bos is None or asked.text.startswith(tokenizer.decode([bos]).decode("utf-8", errors="replace")):
        raise _UnjudgedError
    _ids(asked, number)
    for special in (False, True):
        ids = asked.ids(number, special=special)
        if ids and ids[0] == bos and bos in tokenizer.special.values():
            return "encode adds a BOS", ids
    if not hasattr(tokenizer, "prompt"):
        return None
    try:
        prompt = tokenizer.prompt(asked.text)
    except PartError:
        return None
    behind = asked.ids(number, special=True)
    if behind is None:
        behind = asked.ids(number, special=False)
    begin = [bos] if tokenizer.adds_bos else []
    if behind is None or prompt == begin + behind:
        return None
    if prompt[:2] == [bos, bos]:
        return "a prompt begins with two BOS", prompt
    if begin and prompt[:1] != begin:
        return "a prompt begins without the BOS that is declared", prompt
    return "a prompt is not its text's ids behind the BOS", prompt


def _streaming(asked: Asked, number: int) -> _Seen:
    tokenizer = asked.tokenizers[number]
    ids = _ids(asked, number)
    whole = tokenizer.decode(ids)
    pieces = [tokenizer.decode([one]) for one in ids]
    if b"".join(pieces) != whole:
        return "the pieces of the ids are not the whole", ids
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    emitted = [decoder.decode(piece) for piece in pieces] + [decoder.decode(b"", final=True)]
    if "".join(emitted) != whole.decode("utf-8", errors="replace"):
        return "a stream emits parts of characters", ids
    return None


def _boundary(asked: Asked, number: int) -> _Seen:
    tokenizer = asked.tokenizers[number]
    if not tokenizer.special:
        raise _UnjudgedError
    controls = list(tokenizer.special)
    control = controls[len(asked.text) % len(controls)]
    half = (len(asked.text) + 1) // 2
    texts = asked.text[:half], asked.text[half:]
    joined = encoded(tokenizer, control.join(texts), special=True)
    before, after = (encoded(tokenizer, text, special=True) for text in texts)
    if isinstance(joined, PartError) or isinstance(before, PartError) or isinstance(after, PartError):
        raise _UnjudgedError
    if joined == [*before, tokenizer.special[control], *after]:
        return None
    return "the ids beside a control token depend on each other", joined


PROPERTIES: Mapping[str, Property] = {
    one.name: one
    for one in (
        Property("agreement", "all tokenizers of a group give the same ids for the same text", _agreement),
        Property(
            "round-trip",
            "the ids of a text decode to its bytes, or to those of its declared normal form",
            _each(_round_trip, "round-trip"),
        ),
        Property(
            "control-only-where-asked",
            "plain text never becomes a control token",
            _each(_only_where_asked, "control-only-where-asked"),
        ),
        Property(
            "bos",
            "encoding adds no BOS, and a prompt has exactly the one that is declared",
            _each(_bos, "bos"),
        ),
        Property(
            "streaming",
            "the pieces of the ids, one by one, are the bytes of the whole, and no part of a character is emitted",
            _each(_streaming, "streaming"),
        ),
        Property(
            "boundary",
            "the ids of texts around a control token are those that each text has alone",
            _each(_boundary, "boundary"),
        ),
    )
}
