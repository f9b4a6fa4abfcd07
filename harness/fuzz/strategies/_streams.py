"""Streams of ids, and the ways to cut a stream into groups."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from harness.fuzz.strategies._texts import texts_for
from harness.parts import PartError, Tokenizer

_RARE = ("\U0001f469\u200d\U0001f680", "𠀀", "\u1e9b\u0323", "ꙮ", "\U000e0041", "𒀱", "\u2028")
"""Characters of several bytes that few vocabularies hold whole."""


def token_streams(tokenizer: Tokenizer, *, max_size: int = 32) -> SearchStrategy[list[int]]:
    """Return a strategy for lists of ids as a model could write them: any ids in any order, also none.

    Among them are control tokens, encoded texts, and ids whose bytes end inside a character.

        @given(token_streams(tokenizer))
        def test_a_stream_is_what_decodes(ids):
            assert b"".join(stream(ids)) == tokenizer.decode(ids)

    Args:
        tokenizer: The tokenizer; it is asked while inputs are drawn.
        max_size: The most ids.

    Raises:
        ValueError: `max_size` is negative, or the tokenizer has no ids.
    """
    if max_size < 0:
        raise ValueError(f"max_size is {max_size}")
    encoded = texts_for(tokenizer, max_pieces=4).map(lambda text: _ids(tokenizer, text))
    control = sorted({*tokenizer.special.values(), *tokenizer.added.values()})
    groups = [
        st.integers(0, tokenizer.size - 1).map(lambda number: [number]),
        *([st.sampled_from(control).map(lambda number: [number])] if control else []),
        st.tuples(st.sampled_from(_RARE), st.integers(0, 16)).map(lambda two: _cut(_ids(tokenizer, two[0]), two[1])),
        encoded,
    ]
    return st.lists(st.one_of(groups), max_size=8).map(
        lambda many: [number for one in many for number in one][:max_size]
    )


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    try:
        return list(tokenizer.encode(text, special=True))
    except PartError:
        return []


def _cut(ids: list[int], at: int) -> list[int]:
    """Return the ids up to one that is inside; all of one."""
    return ids[: 1 + at % len(ids)] if ids else []


def chunkings(length: int) -> SearchStrategy[tuple[int, ...]]:
    """Return a strategy for ways to cut a stream into groups that follow each other.

    A way is the sizes of the groups: each at least one, together the length. It shrinks towards one group.

        @given(chunkings(len(ids)))
        def test_the_cut_does_not_matter(sizes): ...

    Args:
        length: How many items the stream has; of none, the only way is no group.

    Raises:
        ValueError: the length is negative.
    """
    if length < 0:
        raise ValueError(f"a stream of {length} items")
    if length < 2:
        return st.just((1,) * length)
    places = st.lists(st.integers(1, length - 1), unique=True, max_size=min(length - 1, 64))
    return st.one_of(
        st.just((length,)),
        st.just((1,) * length),
        places.map(sorted).map(lambda cuts: tuple(b - a for a, b in zip([0, *cuts], [*cuts, length], strict=True))),
    )
