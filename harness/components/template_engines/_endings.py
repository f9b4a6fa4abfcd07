"""How a template ends without a text, in the words of `PartError`, and what an engine that is no Python cannot take."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from harness.parts import PartError
from harness.process.owner import is_the_parts

_LONGEST = 2000
"""Characters of a message: a template can raise one of any length."""
_ADDRESS = re.compile(r"\b0x[0-9a-f]{4,}\b")
_UNDEFINED = re.compile(r"'(\w+)' is undefined")


def one_line(said: object) -> str:
    """Return the first line of a message, the same in every run: without addresses, surrogates escaped, and cut."""
    text = _ADDRESS.sub("0x", str(said)[:_LONGEST]).encode("utf-8", "backslashreplace").decode("utf-8")
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def as_json(value: Any) -> bytes:
    """Return a value as JSON for an engine that is no Python.

    Raises:
        PartError: of kind `unsupported`, JSON cannot hold it.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError:
        raise PartError("unsupported", "the text holds a lone surrogate", "UnicodeEncodeError") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise PartError("unsupported", one_line(error), type(error).__name__) from error


@contextmanager
def told() -> Iterator[None]:
    """Tell what Jinja2, or a template in it, raises: what `the_parts_own` marks. An error of ours goes through.

    Raises:
        PartError: it raised.
    """
    try:
        yield
    except PartError:
        raise
    except Exception as error:
        if not is_the_parts(error):
            raise
        raise _ending(error) from error


def _ending(error: Exception) -> PartError:
    # Imported here: the engines that are no Jinja2 do not need it.
    from jinja2 import TemplateSyntaxError, UndefinedError

    name, said = type(error).__name__, one_line(error)
    if isinstance(error, TemplateSyntaxError):
        return PartError("syntax", said, name, error.lineno)
    if isinstance(error, SyntaxError):
        # Jinja2 makes Python of the template, and Python refuses it: too many blocks within each other.
        return PartError("syntax", one_line(error.msg), name)
    function, line = _place(error.__traceback__)
    if isinstance(error, MemoryError | RecursionError | OverflowError):
        return PartError("limit", said or "out of memory", name, line)
    if isinstance(error, UndefinedError):
        missed = _UNDEFINED.fullmatch(said)
        return PartError("undefined", said, missed[1] if missed else "", line)
    return PartError("refused" if function == "raise_exception" else "error", said, name, line)


def _place(traceback: TracebackType | None) -> tuple[str, int | None]:
    """Return the function that raised, and the last line of the template on the way there."""
    function, line = "", None
    while traceback is not None:
        code = traceback.tb_frame.f_code
        function = code.co_name
        if code.co_filename in ("<template>", "<unknown>"):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return function, line
