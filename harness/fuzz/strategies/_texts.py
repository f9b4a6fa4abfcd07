"""Texts: plain ones, adversarial ones, and ones made of a tokenizer's own vocabulary."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from harness.fuzz.strategies._adversity import PIECES, Adversity, chosen
from harness.parts import PartError, Tokenizer

_PLAIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,?!-:éøß"
_MOST_PIECES = 6


def texts(
    *,
    adversarial: Collection[Adversity] = (),
    control: Collection[str] = (),
    added: Collection[str] = (),
    max_size: int = 20,
) -> SearchStrategy[str]:
    """Return a strategy for texts that are not empty and hold no lone surrogate.

    A plain text has letters, spaces and a little punctuation, and no space at its ends. It shrinks towards "a".

        @given(texts(adversarial=("whitespace", "control-tokens"), control=("<|im_end|>",)))

    Args:
        adversarial: What may stand in a text beside; those of `ADVERSITIES` that speak of texts, others change nothing.
        control: The texts of control tokens, for `control-tokens`.
        added: The texts of added tokens, for `added-tokens`.
        max_size: The most characters of a plain text, or of a plain part of an adversarial one.

    Raises:
        UserError: no adversity has this name.
        ValueError: texts are missing, or given for nothing, or empty, or hold a lone surrogate; `max_size` is under 1.
    """
    if max_size < 1:
        raise ValueError(f"max_size is {max_size}: a text has at least one character")
    names = chosen(adversarial, control, added)
    # No st.text: it has an order of its own, in which ":" and "A" come before "a".
    letters = st.lists(st.sampled_from(_PLAIN), min_size=1, max_size=max_size)
    plain = letters.map(lambda drawn: "".join(drawn).strip() or "a")
    pieces: list[SearchStrategy[str]] = [
        st.sampled_from(PIECES[name]) for name in PIECES if name in names and name != "digits"
    ]
    if "digits" in names:
        pieces.append(st.text(st.sampled_from("0123456789"), min_size=1, max_size=12))
    pieces += [near(sorted(marks)) for marks in (control, added) if marks]
    made = [plain]
    if pieces:
        made.append(joined(st.one_of(plain, *pieces)))
    if "long" in names:
        made.append(st.sampled_from(PIECES["long"]))
    return st.one_of(made)


def joined(pieces: SearchStrategy[str], most: int = _MOST_PIECES) -> SearchStrategy[str]:
    """Return a strategy for texts that are one to so many pieces next to each other."""
    return st.lists(pieces, min_size=1, max_size=most).map("".join)


def near(marks: Sequence[str]) -> SearchStrategy[str]:
    """Return a strategy for texts around one of some marks: whole, with a neighbour, doubled, cut at either end."""
    mark = st.sampled_from(marks)
    neighbour = st.sampled_from(("", " ", "a", "\n", "<", ">", "1"))
    cut = st.tuples(mark, st.integers(1, 1000), st.booleans()).map(_cut)
    return st.one_of(mark, st.tuples(neighbour, mark, neighbour).map("".join), mark.map(lambda text: text + text), cut)


def _cut(drawn: tuple[str, int, bool]) -> str:
    text, at, ends = drawn
    at = at % len(text) or 1
    return (text[-at:] if ends else text[:at]) or text


def texts_for(tokenizer: Tokenizer, *, special: bool = True, max_pieces: int = 8) -> SearchStrategy[str]:
    """Return a strategy for texts that are hard for this tokenizer.

    They are made of its own vocabulary's entries, halves of two entries across which merges reach, the neighbourhood of
    its control and added tokens, and all adversarial texts. They may be one piece; they are never empty.

        @given(texts_for(tokenizer))
        def test_both_agree(text):
            assert ours.encode(text, special=False) == tokenizer.encode(text, special=False)

    Args:
        tokenizer: The tokenizer; it is asked while inputs are drawn.
        special: Whether whole texts of control tokens may occur.
        max_pieces: The most pieces of a text.

    Raises:
        ValueError: `max_pieces` is under 1, or the tokenizer has no ids.
    """
    if max_pieces < 1:
        raise ValueError(f"max_pieces is {max_pieces}: a text has at least one piece")
    if tokenizer.size < 1:
        raise ValueError(f"the tokenizer {tokenizer.name!r} has no ids")
    reserved = sorted(text for text in tokenizer.special if text)
    added = sorted(text for text in tokenizer.added if text)
    adversarial = [piece for name in PIECES if name != "long" for piece in PIECES[name]]
    entry = st.integers(0, tokenizer.size - 1).map(lambda number: _entry(tokenizer, number))
    # Of two texts, that of fewer choices is the smaller one to Hypothesis: without "a", that is the entry of id 0.
    pieces = [
        st.just("a"),
        texts(max_size=8),
        st.sampled_from(adversarial),
        entry,
        st.tuples(entry, entry).map(_crossing),
    ]
    pieces += [near(marks) for marks in (reserved, added) if marks]
    made = joined(st.one_of(pieces), max_pieces).map(lambda text: text or "a")
    if special or not reserved:
        return made
    return made.map(lambda text: _without(text, reserved))


def _crossing(two: tuple[str, str]) -> str:
    """Return the end of one entry before the beginning of another."""
    left, right = two
    return left[len(left) // 2 :] + right[: len(right) // 2 + 1]


def _entry(tokenizer: Tokenizer, number: int) -> str:
    """Return an entry of the vocabulary as text; what is no whole character is left out."""
    try:
        return tokenizer.decode([number]).decode("utf-8", "ignore")
    except PartError:
        return ""


def _without(text: str, marks: Sequence[str]) -> str:
    """Return a text with the last character of each mark in it removed until no mark is left."""
    while found := next((mark for mark in marks if mark in text), None):
        text = text.replace(found, found[:-1])
    return text or "a"
