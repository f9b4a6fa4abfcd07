"""The form of an answer: JSON that is none of what it should be is the server's failure, never an error of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from harness.stage import StageFailedError
from harness.values import Failure

T = TypeVar("T")
_NO_FORM = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError)
"""What taking values out of JSON raises where it has another form, or numbers beyond every type."""


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Take values out of an answer; keep nothing else inside, as its errors would be told of the server.

    Raises:
        StageFailedError: the answer has another form; `what` says what it is not.
    """
    try:
        yield
    except _NO_FORM as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise StageFailedError(Failure(reason="broken", message=f"{what} ({said})")) from error


def bytes_of(value: Any) -> bytes:
    """Return the bytes that a list of numbers is; a number alone, of which `bytes` makes so many zeros, is none.

    Raises:
        TypeError: it is no list, or holds something else.
        ValueError: a number is none of a byte.
    """
    if not isinstance(value, list):
        raise TypeError(f"{type(value).__name__} is no list of bytes")
    return bytes(value)


def field(answer: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """Return a field of an answer.

    Raises:
        StageFailedError: it is missing or of another type.
    """
    value = answer.get(name)
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    found = type(value).__name__ if name in answer else "missing"
    message = f"the field {name} of the answer is {found}, not {kind.__name__}"
    raise StageFailedError(Failure(reason="broken", message=message))
