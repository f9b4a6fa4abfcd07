"""MiniJinja, the Rust engine of servers, through its Python package."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Never

import minijinja

from harness.components.template_engines._endings import one_line
from harness.parts import CLOCK, Kind, PartError, Rendering
from harness.process.owner import the_parts_own

FUEL = 20_000_000
"""Instructions that a template may take: about half a second. A conversation of a hundred turns takes some 10,000."""
_NAME = "template"
_UNDEFINED = re.compile(r"`(\w+)` is undefined")
_ABOUT_UNDEFINED = re.compile(r"\bundefined\b")
_LIMITS = re.compile(r"too many elements|too large|recursion limit|too deep|memory")
_KINDS: dict[str, Kind] = {
    "SyntaxError": "syntax",
    "BadEscape": "syntax",
    "OutOfFuel": "limit",
    "UndefinedError": "undefined",
}


class _RefusedError(Exception):
    """What `raise_exception` raises: it comes through MiniJinja as it is."""


class MiniJinjaEngine:
    """MiniJinja as servers set it up: `trim_blocks` and `lstrip_blocks`, `raise_exception`, `strftime_now`, `.strip()`.

    mistral.rs (`pipeline/chat_template.rs`) sets all of these. It also rewrites the source before compiling it
    (`[::-1]` to `|reverse`, no `{% generation %}`) and has a `tojson` of its own, compact and escaped for HTML.
    text-generation-inference (`infer/chat_template.rs`) sets the same but for the two about blanks. Here nothing is
    rewritten, and `tojson` is MiniJinja's own.

    What a template may do is limited by fuel. Memory is not: where Rust gets none, it ends the process.

    Args:
        pycompat: Whether Python's methods of texts, lists and objects exist.
    """

    name = "minijinja"

    def __init__(self, *, pycompat: bool = True) -> None:
        self._pycompat = pycompat

    def version(self) -> str:
        """Return name and version of what renders."""
        return f"minijinja {importlib.metadata.version('minijinja')}{'' if self._pycompat else ' without pycompat'}"

    def compile(self, source: str) -> _Compiled:
        """Compile a template; see `harness.parts.TemplateEngine`."""
        environment = minijinja.Environment(trim_blocks=True, lstrip_blocks=True, fuel=FUEL, pycompat=self._pycompat)
        environment.add_global("raise_exception", raise_exception)
        environment.add_global("strftime_now", CLOCK.strftime)
        with _told(), the_parts_own():
            environment.add_template(_NAME, source)
        return _Compiled(environment)


class PlainMiniJinjaEngine(MiniJinjaEngine):
    """MiniJinja without Python's methods, as its Rust crate is by default."""

    name = "minijinja-plain"

    def __init__(self) -> None:
        super().__init__(pycompat=False)


class _Compiled:
    def __init__(self, environment: minijinja.Environment) -> None:
        self._environment = environment

    def render(self, asked: Rendering) -> str:
        """Return the text; see `harness.parts.Compiled`."""
        self._environment.add_global("strftime_now", asked.local.strftime)
        given: dict[str, Any] = {
            **asked.variables,
            "messages": asked.messages,
            "tools": asked.tools,
            "add_generation_prompt": asked.opens,
        }
        with _told(), the_parts_own():
            return self._environment.render_template(_NAME, **given)


def raise_exception(message: Any) -> Never:
    """What templates call to refuse.

    Raises:
        _RefusedError: always.
    """
    raise _RefusedError(message)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except minijinja.TemplateError as error:
        raise _ending(error) from error
    except _RefusedError as error:
        raise PartError("refused", one_line(error), "raise_exception") from error
    except UnicodeEncodeError as error:
        raise PartError("unsupported", "the text holds a lone surrogate", "UnicodeEncodeError") from error
    except (MemoryError, RecursionError, OverflowError) as error:
        raise PartError("limit", one_line(error) or "out of memory", type(error).__name__) from error
    except Exception as error:
        raise PartError("error", one_line(error), type(error).__name__) from error
    except BaseException as error:
        # A panic of Rust is no Exception, so that nobody holds it by mistake; it leaves Python as it was.
        if type(error).__name__ != "PanicException":
            raise
        raise PartError("error", one_line(error), "PanicException") from error


def _ending(error: minijinja.TemplateError) -> PartError:
    said = one_line(error.detail or error.kind)
    kind = _KINDS.get(error.kind, "error")
    if kind == "error" and _LIMITS.search(said):
        kind = "limit"
    missed = _UNDEFINED.search(said)
    if kind == "undefined" or missed or (error.kind == "InvalidOperation" and _ABOUT_UNDEFINED.search(said)):
        return PartError("undefined", said, missed[1] if missed else "", error.line)
    if error.kind == "UnknownFunction":
        # Jinja2 says of the same call that the variable is undefined.
        return PartError("undefined", said, said.removesuffix(" is unknown"), error.line)
    return PartError(kind, said, error.kind, error.line)
