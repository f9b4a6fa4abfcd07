"""Whose an error is: what leaves the real part's own call is the part's, everything else is ours.

A child process runs the part's code and ours, and either may call the other:

    with the_parts_own():       around exactly the call into the real package
        answer = llm.create_chat_completion(**body)

    llm.tokenize = tapped(tokenize)     code of ours that the part calls, a tap

The innermost of them that an exception leaves says whose it is; so a tap that calls the part again puts `the_parts_own`
around that call. What no context has marked is ours. An error of ours that leaves a tap is noted besides: the part may
swallow it or make an answer of it, and what it then says is worth nothing.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from harness.process.upstream import KNOWN

Item = TypeVar("Item")
Error = TypeVar("Error", bound=BaseException)

_MARK = "_harness_is_the_parts"
_noted: list[Exception] = []


@contextmanager
def the_parts_own() -> Iterator[None]:
    """Tell that what the real part raises in here is its own error."""
    try:
        yield
    except Exception as error:
        _mark(error, True)
        raise


@contextmanager
def our_own() -> Iterator[None]:
    """Tell that what is raised in here, between two calls of the part, is an error of ours."""
    try:
        yield
    except Exception as error:
        if _mark(error, False):
            _noted.append(error)
        raise


def tapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of ours as the part is to call it: what it raises by itself is an error of ours."""
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def items(*given: Any, **more: Any) -> Iterator[Any]:
            with our_own():
                yield from function(*given, **more)

        return items

    @functools.wraps(function)
    def call(*given: Any, **more: Any) -> Any:
        with our_own():
            return function(*given, **more)

    return call


def from_the_part(items: Iterable[Item]) -> Iterator[Item]:
    """Yield what the part yields; what it raises meanwhile is its own error."""
    with the_parts_own():
        yield from items


def as_the_parts(error: Error) -> Error:
    """Return an error of ours that tells, in our words, what the part raised."""
    _mark(error, True)
    return error


def is_the_parts(error: BaseException) -> bool:
    """Whether the real part raised this."""
    return getattr(error, _MARK, False) is True


def noted() -> Exception | None:
    """Return the first error of ours that left a tap since this was last asked, if one did."""
    first = _noted[0] if _noted else None
    _noted.clear()
    return first


def is_unimportable(error: Exception, target: str) -> bool:
    """Whether this is a package that is not there, or that raises while it is imported.

    Args:
        error: What was raised while a target was imported and made.
        target: The target, `package.module:name`; its own package is no part's.
    """
    roots = (_root(__name__), _root(target.partition(":")[0]), "__main__")
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [at for at, frame in enumerate(frames) if _root(frame.f_globals.get("__name__", "")) in roots]
    if any(frame.f_code.co_name == "<module>" for frame in frames[ours[-1] + 1 :] if ours):
        return True
    if not isinstance(error, ImportError) or error.name is None or _root(error.name) in roots:
        return False
    if isinstance(error, ModuleNotFoundError):
        return importlib.util.find_spec(_root(error.name)) is None
    # A shared library of it that cannot be loaded.
    return not str(error).startswith("cannot import name")


def missing_name(error: Exception, target: str) -> tuple[str, str] | None:
    """Return the package that no longer has what we import of it, and what that is; None for any other error.

    Args:
        error: As of `is_unimportable`, where that is False.
        target: The same.
    """
    roots = (_root(__name__), _root(target.partition(":")[0]))
    if not isinstance(error, ImportError) or error.name is None or _root(error.name) in roots:
        return None
    if isinstance(error, ModuleNotFoundError) and _root(error.name) not in KNOWN:
        # A name that somebody got wrong, as likely as a module that was moved.
        return None
    return _root(error.name), str(error).partition(" (")[0]


def _root(module: str) -> str:
    return module.partition(".")[0]


def _mark(error: BaseException, is_parts: bool) -> bool:
    """Say whose an error is, unless that has been said; return whether it had not."""
    if hasattr(error, _MARK):
        return False
    setattr(error, _MARK, is_parts)
    return True
