"""The defect search: which known defect of the prompt gives the numbers that were observed?

The fingerprint of a prompt cannot be read backwards, but the ways in which stacks are known to get a prompt wrong are
few: each is tried until one gives the numbers of the chat route.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Tokenize = Callable[[str, bool], Sequence[int]]
"""Text to ids; the flag tells whether control tokens in it are parsed."""


@dataclass(frozen=True)
class Candidate:
    """A prompt as a defect would make it.

    Attributes:
        defect: What is wrong, in a few words.
        ids: What the model would be fed.
    """

    defect: str
    ids: tuple[int, ...]


def candidates(
    text: str, ids: Sequence[int], suffix: str | None, special: Mapping[str, int], tokenize: Tokenize
) -> Iterator[Candidate]:
    """Yield what known defects make of a prompt, each other prompt once.

    Args:
        text: The right prompt.
        ids: Its ids.
        suffix: The end of the text that opens the assistant's turn, where known.
        special: The ids of `bos` and `eos`, as far as the vocabulary has them.
        tokenize: Turns text into ids.
    """
    seen = {tuple(ids)}
    for defect, other in _defects(text, tuple(ids), suffix, special, tokenize):
        if other and tuple(other) not in seen:
            seen.add(tuple(other))
            yield Candidate(defect, tuple(other))


def _defects(
    text: str, ids: tuple[int, ...], suffix: str | None, special: Mapping[str, int], tokenize: Tokenize
) -> Iterator[tuple[str, Sequence[int]]]:
    if "bos" in special:
        bos = special["bos"]
        yield "a second BOS is put before the prompt", (bos, *ids)
        if ids[:1] == (bos,):
            yield "the BOS is missing", ids[1:]
    if "eos" in special:
        yield "an end token is put after the prompt", (*ids, special["eos"])
    if suffix:
        yield "the end that opens the assistant's turn is missing", tokenize(text.removesuffix(suffix), True)
        yield "the end that opens the assistant's turn stands twice", tokenize(text + suffix, True)
    yield "the control tokens are read as ordinary text", tokenize(text, False)
    yield "white space at the end is trimmed", tokenize(text.rstrip(), True)
    yield "white space at the start is trimmed", tokenize(text.lstrip(), True)
    yield "a line break is put after the prompt", tokenize(text + "\n", True)
    yield "a space is put before the prompt", tokenize(" " + text, True)
    yield "line breaks are lost", tokenize(text.replace("\n", ""), True)
    yield "line breaks are doubled", tokenize(text.replace("\n", "\n\n"), True)
    for at in range(1, len(ids)):
        yield f"the first {at} ids are cut off", ids[at:]


def search(
    found: Mapping[int, float],
    tried: Iterator[Candidate],
    numbers: Callable[[Sequence[int]], Mapping[int, float]],
    same: Callable[[Mapping[int, float], Mapping[int, float]], bool],
) -> Candidate | None:
    """Return the candidate whose numbers are those found, or None.

    Args:
        found: The chat route's log-probabilities, by id.
        tried: The candidates.
        numbers: Computes the log-probabilities of a prompt.
        same: Tells whether two sets of numbers are of the same prompt.
    """
    return next((candidate for candidate in tried if same(found, numbers(candidate.ids))), None)
