"""The errors a user can cause. The runners print them as one line with the remedy and exit with status 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """Something the caller can mend: a wrong name, a broken file, a missing package.

    Args:
        message: What is wrong, and where.
        remedy: What to do about it; empty where the message says it.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross to another process: those of a subclass are not made of these two."""
        return _again, (type(self), self.message, self.remedy)


def _again(kind: type[UserError], message: str, remedy: str) -> UserError:
    error = kind.__new__(kind)
    UserError.__init__(error, message, remedy)
    return error


class NotRunningError(UserError):
    """A server that someone else runs, and that does not run: there is nothing to judge."""


class ModelFileError(UserError):
    """A model file that is missing, truncated, not GGUF or of an unknown version."""


class MissingPackageError(UserError):
    """A component whose optional package is not installed."""

    def __init__(self, feature: str, package: str, extra: str) -> None:
        super().__init__(f"{feature} needs the package {package}", f"run: pip install 'llm-stack-harness[{extra}]'")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for a name that does not exist, with the nearest known one."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = ", ".join(names) if names else "none"
    return UserError(f"no {kind} named {name!r}", f"{hint}known: {listed}")
