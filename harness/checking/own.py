"""An error of our own, as the outcome of what was being done: one line, its place, and the whole traceback."""

from __future__ import annotations

import re
import traceback

from harness.process.worker import RemoteError
from harness.values import OwnError
from harness.wire.secrets import without_secrets

_FRAME = re.compile(r'^  File ".*[/\\](harness[/\\][^"]+)", line (\d+), in (\S+)$', re.MULTILINE)


class OwnSeenError(Exception):
    """What was being done cannot go on, as code of ours had raised in the stage that it looks at.

    Attributes:
        own: What it raised.
    """

    def __init__(self, own: OwnError) -> None:
        super().__init__(own.describe())
        self.own = own


def own_error(error: Exception) -> OwnError:
    """Return the value for an exception of ours, in this process or in a child's; no key is in it."""
    if isinstance(error, OwnSeenError):
        return error.own
    whole = "".join(traceback.format_exception(error))
    kind, message, place = type(error).__name__, str(error), _place(whole)
    if isinstance(error, RemoteError):
        whole = f"{error.traceback}\nasked by\n\n{whole}"
        kind, message, place = error.error, error.message, _place(error.traceback)
    return OwnError(error=kind, message=without_secrets(message), place=place, traceback=without_secrets(whole))


def _place(whole: str) -> str:
    """Return the last place of ours in a traceback: function, file and line."""
    found = _FRAME.findall(whole)
    if not found:
        return ""
    file, line, function = found[-1]
    return f"{function}, {file}:{line}"
