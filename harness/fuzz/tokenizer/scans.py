"""What is asked of a whole vocabulary once, and not of each text."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Sequence

from harness.fuzz.finding import Broken, size_of
from harness.fuzz.tokenizer.asking import Asked, encoded, normalized, output
from harness.fuzz.tokenizer.properties import disagreements
from harness.parts import PartError, Tokenizer

_STREAMS, _IDS = 400, 8

PIECES = "the tokenizers of a group have the same bytes for each id"
CONTROLS = "the text of a control token, where control texts are parsed, is this one id"

ROLES = "the tokenizers of a group have the same control and user-defined tokens"

Shown = tuple[Broken, list[int] | str, int]
"""What is broken, the shortest ids or text that show it, and how many ids do."""


def entries(tokenizers: Sequence[Tokenizer], seconds: float = math.inf) -> tuple[list[dict[str, int]], list[Shown]]:
    """Ask tokenizers for each entry of the vocabulary: its bytes, encoded again as plain text.

    The result is the entry `itself`, or it is `unreachable` by merges. Not asked: `control` and `added` tokens, those
    of `no text` (unused, or parts of characters), and those whose text is `not normal` in the declared normal form. A
    tokenizer that does not answer leaves them `no answer`, and the time that is over leaves them `not asked`: llama.cpp
    compiles some pre-tokenizers' regexes anew at every call, about a millisecond each.

    Args:
        tokenizers: The tokenizers.
        seconds: The time budget. Entries are asked in a shuffled order, so that a scan that is cut is a sample.

    Returns:
        For each tokenizer how many entries there are of each class, and where the tokenizers disagree on an entry's
        text: for each root cause the property `agreement` as its shortest text breaks it, this text, and how many do.
    """
    counts: list[Counter[str]] = [Counter() for _ in tokenizers]
    found: dict[tuple[str, str, str], tuple[Broken, str, int]] = {}
    special, added = ([{*getattr(one, kind).values()} for one in tokenizers] for kind in ("special", "added"))
    order = list(range(max(one.size for one in tokenizers)))
    random.Random(0).shuffle(order)  # noqa: S311 - an order, no secret
    ends = time.monotonic() + seconds
    for token in order:
        over = time.monotonic() > ends
        text = text_of(tokenizers[0], [token])
        asked = Asked(tokenizers, text or "")
        for number, tokenizer in enumerate(tokenizers):
            if token in special[number] or token in added[number]:
                counts[number]["control" if token in special[number] else "added"] += 1
            elif token < tokenizer.size:
                counts[number]["not asked" if over else _class(asked, number, token)] += 1
        if over or not text or any(token in one for one in (*special, *added)):
            continue
        for broken in disagreements(asked, (False,)) or ():
            before = found.get(broken.key, (broken, text, 0))
            shortest = min(before[:2], (broken, text), key=lambda one: size_of(one[1]))
            found[broken.key] = (*shortest, before[2] + 1)
    return [dict(one) for one in counts], list(found.values())


def _class(asked: Asked, number: int, token: int) -> str:
    tokenizer = asked.tokenizers[number]
    if not asked.text:
        return "no text"
    if normalized(tokenizer, asked.text) != asked.text:
        return "not normal"
    answer = asked.answer(number, special=False)
    if isinstance(answer, PartError):
        return "no answer"
    return "itself" if answer == [token] else "unreachable"


def drift(tokenizer: Tokenizer, number: int) -> float:
    """Return the share of random streams of ids whose text has other ids: what retokenizing a reply would change.

    Streams whose bytes are no text do not count.

    Args:
        tokenizer: The tokenizer.
        number: The seed.
    """
    chance = random.Random(number)  # noqa: S311 - a sample, no secret
    controls = {*tokenizer.special.values()}
    ordinary = [token for token in range(tokenizer.size) if token not in controls]
    texts = [(ids, text_of(tokenizer, ids)) for ids in (chance.choices(ordinary, k=_IDS) for _ in range(_STREAMS))]
    asked = [(ids, text) for ids, text in texts if text is not None]
    changed = sum(encoded(tokenizer, text, special=False) != ids for ids, text in asked)
    return changed / len(asked) if asked else 0.0


def text_of(tokenizer: Tokenizer, ids: Sequence[int]) -> str | None:
    """Return the text of ids; None where their bytes are none."""
    try:
        return tokenizer.decode(ids).decode("utf-8")
    except (UnicodeDecodeError, PartError):
        return None


def broken_pieces(tokenizers: Sequence[Tokenizer]) -> list[Shown]:
    """Return where ids have other bytes than in the first tokenizer."""
    first = tokenizers[0]
    broken: list[Shown] = []
    for other in tokenizers[1:]:
        wrong = [token for token in range(max(first.size, other.size)) if _piece(first, token) != _piece(other, token)]
        if wrong:
            shown = tuple(output(one, [wrong[0]] if wrong[0] < one.size else []) for one in (first, other))
            message = f"{len(wrong)} ids have other bytes"
            path = f"{first.name} / {other.name}"
            found = Broken(name="pieces", path=path, cause="other bytes", message=message, shown=shown)
            broken.append((found, wrong[:1], len(wrong)))
    return broken


def broken_roles(tokenizers: Sequence[Tokenizer]) -> list[Shown]:
    """Return the control and user-defined tokens that one tokenizer has, and the first has not, or otherwise."""
    first = tokenizers[0]
    broken: list[Shown] = []
    for other in tokenizers[1:]:
        for kind in ("special", "added"):
            one, two = ({*getattr(tokenizer, kind).values()} for tokenizer in (first, other))
            for has, lacks, only in ((first, other, one - two), (other, first, two - one)):
                if only:
                    name = "control" if kind == "special" else "user-defined"
                    cause = f"{has.name} alone has {name} tokens"
                    example = [min(only)]
                    shown = tuple(output(tokenizer, example) for tokenizer in (has, lacks))
                    path = f"{first.name} / {other.name}"
                    message = f"{len(only)} {name} tokens are so in {has.name} alone"
                    found = Broken(name="roles", path=path, cause=cause, message=message, shown=shown)
                    broken.append((found, example, len(only)))
    return broken


def broken_controls(tokenizers: Sequence[Tokenizer]) -> list[Shown]:
    """Return the tokenizers that do not find each of their control tokens."""
    broken: list[Shown] = []
    for tokenizer in tokenizers:
        asked = {
            token: answer
            for text, token in tokenizer.special.items()
            if not isinstance(answer := encoded(tokenizer, text, special=True), PartError)
        }
        wrong = [token for token, answer in asked.items() if answer != [token]]
        if wrong:
            message = f"{len(wrong)} control tokens are not found by their text"
            shown = (output(tokenizer, asked[wrong[0]]),)
            found = Broken(name="controls", path=tokenizer.name, cause="not found", message=message, shown=shown)
            broken.append((found, wrong[:1], len(wrong)))
    return broken


def _piece(tokenizer: Tokenizer, token: int) -> bytes | None:
    try:
        return tokenizer.decode([token])
    except PartError:
        return None
