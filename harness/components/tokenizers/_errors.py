"""What a tokenizer raises, told in the words that all parts share."""

from __future__ import annotations

from collections.abc import Sequence

from harness.parts import PartError
from harness.process.owner import as_the_parts


def no_answer(error: Exception) -> PartError:
    """Return the error for what a tokenizer raised."""
    kind = type(error).__name__
    message = " ".join(str(error).split()) or kind
    return as_the_parts(PartError("error", message[:300], name=kind))


def no_such_token(token: int, size: int) -> PartError:
    """Return the error for an id outside the vocabulary."""
    return as_the_parts(PartError("refused", f"no token {token} in a vocabulary of {size}", name="IndexError"))


def no_bytes(error: Exception, ids: Sequence[int], size: int) -> PartError:
    """Return the error for ids that a tokenizer did not decode."""
    outside = next((one for one in ids if not 0 <= one < size), None)
    return no_answer(error) if outside is None else no_such_token(outside, size)


def not_parsed(name: str) -> PartError:
    """Return the error of a tokenizer that never makes a text a control token."""
    return PartError("unsupported", f"{name} has no call that makes control tokens of a text")
