"""What a real part offers to those who call it thousands of times: an object that lives in the caller's process.

A component is called once a case, through its own child process. The search for disagreements calls a part for every
made-up input, so it makes the parts in a child process of its own. A component names the class for that by its import
path in a class attribute: `template_engine`, `tokenizer` or `parser` (`package.module:Class`). Outsiders' components do
it the same way.
"""

from __future__ import annotations

import importlib
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from harness.values import Json

CLOCK = datetime(2026, 1, 2, 3, 4, 5)
"""The time that templates see, where nothing else is said."""

Kind = Literal["syntax", "refused", "undefined", "error", "limit", "unsupported"]
"""How a part can end without an answer: it does not compile; it raised on purpose (`raise_exception`); it needs a
variable that nobody passed; it raised otherwise; it needed too much time or memory; it cannot be asked this."""


class PartError(Exception):
    """A part gave no answer.

    Attributes:
        kind: How it ended.
        message: What it said, in one line, without memory addresses or paths of the machine.
        name: The class of the exception that the part raised, or the variable that it missed.
        line: The line of the template, where known; from 1.
    """

    def __init__(self, kind: Kind, message: str, name: str = "", line: int | None = None) -> None:
        super().__init__(message)
        self.kind, self.message, self.name, self.line = kind, message, name, line


@dataclass(frozen=True)
class Rendering:
    """What a template engine is asked.

    Attributes:
        messages: In OpenAI's form, as they reach the server.
        tools: In OpenAI's form, or None.
        opens: Whether the assistant's turn is opened (`add_generation_prompt`).
        variables: Further variables: the texts of special tokens (`bos_token`, ...) and template variables.
        clock: The time that the template sees.
    """

    messages: Sequence[Json]
    tools: Sequence[Json] | None = None
    opens: bool = True
    variables: Mapping[str, Any] = field(default_factory=dict)
    clock: datetime = CLOCK


class Compiled(Protocol):
    """A template that one engine has compiled."""

    def render(self, asked: Rendering) -> str:
        """Return the text.

        Raises:
            PartError: there is none.
        """


class TemplateEngine(Protocol):
    """A template engine in this process.

    It stops by itself what takes too long or too much memory, or a signal's handler that raises can interrupt it.
    """

    name: str

    def version(self) -> str:
        """Return name and version of what renders."""

    def compile(self, source: str) -> Compiled:
        """Compile a template.

        Raises:
            PartError: of kind `syntax`.
        """


class Tokenizer(Protocol):
    """A tokenizer in this process.

    Attributes:
        name: Its name.
        size: How many ids there are.
        special: The texts that are one id where special tokens are parsed, with it: control tokens.
        added: The texts that are one id wherever they stand (user-defined tokens), with it.
        bos: The id that begins a text, where there is one.
    """

    name: str
    size: int
    special: Mapping[str, int]
    added: Mapping[str, int]
    bos: int | None

    def version(self) -> str:
        """Return name and version of what tokenizes."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the ids of a text. No BOS and no EOS is added.

        Args:
            text: The text.
            special: Whether texts of control tokens become these tokens.

        Raises:
            PartError: there are none.
        """

    def decode(self, ids: Sequence[int]) -> bytes:
        """Return the bytes of ids, control tokens by their texts; nothing is cleaned up, nothing replaced.

        Raises:
            PartError: there are none.
        """


def make(path: str, **keywords: Any) -> Any:
    """Make a part in this process, out of the import path of its class.

    Raises:
        ImportError: what it needs is not installed.
        ValueError: the path is no `package.module:Class`.
    """
    module, _, name = path.partition(":")
    if not name:
        raise ValueError(f"{path!r} is no package.module:Class")
    return getattr(importlib.import_module(module), name)(**keywords)


class TimedOut(BaseException):
    """Raised into what runs too long. No `Exception`, so that no template's engine catches it."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Stop what takes too long, in the main thread of a process.

    Raises:
        PartError: of kind `limit`: it took too long, too much memory, or too deep a recursion.
    """

    def stop(*_: object) -> None:
        raise TimedOut

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except TimedOut:
        raise PartError("limit", f"took longer than {seconds:g} s") from None
    except MemoryError:
        raise PartError("limit", "needed too much memory") from None
    except RecursionError:
        raise PartError("limit", "recursion too deep") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
