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
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Never, Protocol, Self

from harness.values import Json, Reply

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


class TimedOut(BaseException):
    """A part is interrupted, because its time is over. No `Exception`: nothing that a part catches may hold it."""


STUCK = "SIGPROF"
"""The signal of which a child dies that was stuck; see `end_process_when_stuck`."""
_LEAST_STUCK = 15.0
_stuck_ends = False


def end_process_when_stuck() -> None:
    """Let `limited` end this process, a child of ours, where it cannot interrupt what takes too long.

    What computes in C, as two long lists that are compared, runs no handler of Python's. So the kernel ends the
    process, by SIGPROF, when it has computed for twice the limit, and 15 s at least, as an engine may compile itself.
    """
    global _stuck_ends
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    _stuck_ends = True


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Interrupt what takes longer, and tell what needs too much time, memory or depth as a part's `limit`.

    For the main thread: the interruption is the handler of SIGALRM, which runs between two bytecodes. What computes
    outside Python for long has to have a limit of its own. Memory is limited by whoever made the process.

    Args:
        seconds: The time.

    Raises:
        PartError: of kind `limit`.
    """

    def over(*_: object) -> Never:
        raise TimedOut

    before = signal.signal(signal.SIGALRM, over)
    try:
        try:
            # Again every second: an interruption is lost where Python cannot raise, as in a destructor.
            signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
            if _stuck_ends:
                signal.setitimer(signal.ITIMER_PROF, max(2 * seconds, _LEAST_STUCK))
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            if _stuck_ends:
                signal.setitimer(signal.ITIMER_PROF, 0.0)
    except TimedOut:
        raise PartError("limit", f"no answer in {seconds:g} s", "TimedOut") from None
    except (MemoryError, RecursionError) as error:
        raise PartError("limit", str(error) or "out of memory", type(error).__name__) from error
    finally:
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True)
class Rendering:
    """What a template engine is asked.

    Attributes:
        messages: In OpenAI's form, as they reach the server.
        tools: In OpenAI's form, or None.
        opens: Whether the assistant's turn is opened (`add_generation_prompt`).
        variables: Further variables: the texts of special tokens (`bos_token`, ...) and template variables.
        clock: The time that the template sees; without a zone it is local.
    """

    messages: Sequence[Json]
    tools: Sequence[Json] | None = None
    opens: bool = True
    variables: Mapping[str, Any] = field(default_factory=dict)
    clock: datetime = CLOCK

    @property
    def local(self) -> datetime:
        """The clock as this machine's shows it, without a zone: what `datetime.now()` gives."""
        return local_time(self.clock)

    def own(self) -> Rendering:
        """Return the same, sharing nothing that a template can change: some engines let one append to `messages`."""
        return replace(
            self, messages=copied(self.messages), tools=copied(self.tools), variables=copied(dict(self.variables))
        )


def copied(value: Any) -> Any:
    """Return JSON, with tuples, as a copy of its own; some ten times as fast as `copy.deepcopy`."""
    if isinstance(value, dict):
        return {name: copied(one) for name, one in value.items()}
    if isinstance(value, list):
        return [copied(one) for one in value]
    if isinstance(value, tuple):
        return tuple(copied(one) for one in value)
    return value


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


@dataclass(frozen=True)
class Format:
    """What a parser is made for: a chat template, and the texts that are one token each in the models that have it.

    Attributes:
        name: Its name.
        template: The template's source.
        control: Markers that are control tokens: some servers show those only that their parser wants to see.
        shown: Markers that are user-defined tokens, which every server shows.
        ends: What ends a generation, at most three.
        bos: The text of the token that begins a text.
        words: Further texts that are to be one token, where the parser is given a vocabulary that is made up.
    """

    name: str
    template: str
    control: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    ends: tuple[str, ...] = ("<|im_end|>",)
    bos: str = "<s>"
    words: tuple[str, ...] = ()

    @property
    def markers(self) -> tuple[str, ...]:
        """All texts that are one token by themselves."""
        return tuple(dict.fromkeys((*self.control, *self.shown, *self.ends)))


@dataclass(frozen=True)
class Completion:
    """What a parser is asked: what a model has written, and what it was asked.

    Attributes:
        pieces: The text, in the pieces in which it comes. A piece that is a marker of the format is the marker's
            token; any other is plain text.
        end: The marker that ended it, or None where it was cut off at its greatest length.
        tools: The tools that the model had, in OpenAI's form, or None.
        messages: The conversation before.
        opening: The end of the prompt, which opened the assistant's turn; it may have opened a block of reasoning.
        variables: Template variables.
    """

    pieces: Sequence[str]
    end: str | None = None
    tools: Sequence[Json] | None = None
    messages: Sequence[Json] = ({"role": "user", "content": "a"},)
    opening: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What the model has written."""
        return "".join(self.pieces)


class Parser(Protocol):
    """A parser of replies, made for one format: `make(path, format=...)`. Leaving it ends what it started.

    Attributes:
        name: Its name.
        streams: Whether it parses streams.
    """

    name: str
    streams: bool

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    def version(self) -> str:
        """Return name and version of what parses."""

    def parse(self, asked: Completion, *, stream: bool) -> Reply:
        """Return the reply: content, reasoning, calls with their arguments in the characters that a caller gets.

        Args:
            asked: What was written.
            stream: Whether it is parsed as it comes; the reply then holds its deltas.

        Raises:
            PartError: there is none. Of kind `unsupported`, the parser was not asked; of kind `refused`, its server
                does not let a model write this.
        """


def local_time(clock: datetime) -> datetime:
    """Return a time as this machine's clock shows it, without a zone; one that has none is that already."""
    return clock if clock.tzinfo is None else clock.astimezone().replace(tzinfo=None)


def make(path: str, /, **keywords: Any) -> Any:
    """Make a part in this process, out of the import path of its class.

    Raises:
        ImportError: what it needs is not installed.
        UserError: what it needs beside Python is not there.
        ValueError: the path is no `package.module:Class`.
    """
    module, _, name = path.partition(":")
    if not name:
        raise ValueError(f"{path!r} is no package.module:Class")
    return getattr(importlib.import_module(module), name)(**keywords)
