"""One conversation on one template in several engines: the renders that properties look at, each made once."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from pydantic import Field

from harness.errors import UserError
from harness.fuzz.finding import Output
from harness.fuzz.template.marks import Mark, marked, marked_calls
from harness.fuzz.template.openai_form import in_openai_form
from harness.parts import Compiled, PartError, Rendering, TemplateEngine, Tokenizer, limited
from harness.values import Json, Value

SECONDS: Final = 2.0
"""The time that one render may take. Published templates take a millisecond or less."""

_PATIENCE: Final = 5
"""How often a template may be stopped at its limits before it is taken to be so always."""
_LONGEST: Final = 1 << 18
"""Characters of a text. Made-up conversations have some thousands."""
_SHOWN: Final = 1 << 16
"""Characters of a text that a finding shows."""
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class Subject(Value):
    """A template.

    Attributes:
        name: Its name.
        source: Its Jinja source.
        variables: The texts of special tokens as a template asks for them (`bos_token`, ...), and further variables.
        control: The texts of its control tokens, where known.
        shown: The texts of its user-defined tokens, where known.
        file: The GGUF that it is in, whose tokenizer then reads the prompts.
        unread: Why there is no source: one of many templates could not be read.
    """

    name: str
    source: str
    variables: dict[str, Any] = Field(default_factory=dict)
    control: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    file: str | None = None
    unread: str = ""

    def read(self) -> Subject:
        """Return itself.

        Raises:
            UserError: it could not be read.
        """
        if self.unread:
            raise UserError(self.unread)
        return self


class Conversation:
    """A conversation, and the forms of it that properties ask for. One is used for many templates.

    Args:
        data: `messages` in OpenAI's form, and `tools` where some are declared.
    """

    def __init__(self, data: Json) -> None:
        self.data = data
        self.messages: list[Json] = data["messages"]
        self.tools: list[Json] | None = data.get("tools")
        self.text = json.dumps(data, ensure_ascii=False)

    @cached_property
    def marks(self) -> tuple[list[Json], list[Mark]]:
        """The messages with marks in their texts, and the marks."""
        return marked(self.messages)

    @cached_property
    def requests(self) -> list[int]:
        """How many messages each request had that came before the last one: up to a user's or a tool's message."""
        roles = [message.get("role") for message in self.messages]
        return [
            at + 1
            for at, role in enumerate(roles[:-1])
            if role in ("user", "tool") and roles[at + 1] == "assistant" and at + 2 < len(roles)
        ]

    @cached_property
    def is_openai(self) -> bool:
        """Whether it is one that OpenAI's API would take."""
        return in_openai_form(self.messages, self.tools)

    @cached_property
    def has_reasoning(self) -> bool:
        """Whether an earlier answer shows its reasoning, which templates take out of the history by design."""
        return any("reasoning_content" in message for message in self.messages) or "think>" in self.text

    @cached_property
    def calls(self) -> list[Json]:
        """The functions called, as the messages have them."""
        return [call["function"] for message in self.messages for call in message.get("tool_calls") or ()]

    @cached_property
    def marked_calls(self) -> tuple[list[Json], list[Mark], list[Mark]]:
        """The messages with marks in their calls, arguments as mappings, those of names and those of texts."""
        return marked_calls(self.arguments_as.get("mapping", ()))

    @cached_property
    def arguments_as(self) -> Mapping[str, list[Json]]:
        """The messages with all arguments as JSON text, and as mappings; empty where there are none."""
        if not self.calls:
            return {}
        forms: dict[str, list[Json]] = {}
        for form, change in (("text", _as_text), ("mapping", _as_mapping)):
            messages = copy.deepcopy(self.messages)
            try:
                for message in messages:
                    for call in message.get("tool_calls") or ():
                        call["function"]["arguments"] = change(call["function"]["arguments"])
            except ValueError:
                return {}
            forms[form] = messages
        return forms


class Side:
    """One engine with the subject's template in it.

    Attributes:
        name: The engine's.
        compiled: The template; the error where the engine refuses it.
        stopped: How often it had to be stopped at its limits. After a few times it is not rendered again: a template
            that loops would cost its whole time in every conversation.
    """

    def __init__(self, engine: TemplateEngine, source: str) -> None:
        self.name = engine.name
        self.stopped = 0
        self.compiled: Compiled | PartError
        try:
            with limited(SECONDS):
                self.compiled = engine.compile(source)
        except PartError as error:
            self.compiled = error
        except Exception as error:  # noqa: BLE001 - an engine from outside may raise anything
            self.compiled = _raised(error)


class Trial:
    """A conversation on a template.

    Args:
        subject: The template.
        sides: It in the engines; the first is the reference.
        conversation: The conversation.
        tokenizer: The model's, where it is known.
    """

    def __init__(
        self, subject: Subject, sides: Sequence[Side], conversation: Conversation, tokenizer: Tokenizer | None = None
    ) -> None:
        self.subject, self.sides, self.conversation, self.tokenizer = subject, sides, conversation, tokenizer
        self.renders = 0
        self._seen: dict[tuple[str, str], str | PartError] = {}

    def render(
        self, side: Side, form: str = "whole", messages: Callable[[], Sequence[Json]] | None = None, opens: bool = True
    ) -> str | PartError:
        """Return what an engine makes of a form of the conversation, or how it ends.

        Args:
            side: The engine.
            form: The form's name; a form is rendered once.
            messages: Its messages; else the conversation's own.
            opens: Whether the assistant's turn is opened.
        """
        key = side.name, form
        if key not in self._seen:
            self._seen[key] = self._rendered(side, messages, opens)
        return self._seen[key]

    def closed(self, side: Side, count: int | None = None) -> str | PartError:
        """Return the render of the first messages without an opened turn."""
        if count is None:
            return self.render(side, "closed", opens=False)
        return self.render(side, f"closed {count}", lambda: self.conversation.messages[:count], opens=False)

    def shown(self, side: Side, form: str = "whole") -> Output:
        """Return what was rendered, as a finding shows it."""
        seen = self._seen[side.name, form]
        by = side.name if form == "whole" else f"{side.name}, {form}"
        return output(by, seen)

    def _rendered(self, side: Side, messages: Callable[[], Sequence[Json]] | None, opens: bool) -> str | PartError:
        asked = Rendering(
            self.conversation.messages if messages is None else messages(),
            self.conversation.tools,
            opens,
            self.subject.variables,
        )
        self.renders += not isinstance(side.compiled, PartError)
        return rendered(side, asked)


def rendered(side: Side, asked: Rendering) -> str | PartError:
    """Return what an engine makes of what it is asked, or how it ends."""
    if isinstance(side.compiled, PartError):
        return side.compiled
    try:
        with limited(SECONDS):
            return _text(side.compiled.render(asked.own()))
    except PartError as error:
        side.stopped += error.kind == "limit"
        if side.stopped >= _PATIENCE:
            side.compiled = error
        return error
    except Exception as error:  # noqa: BLE001 - an engine from outside may raise anything
        return _raised(error)


def _text(seen: Any) -> str:
    """Return what an engine gave.

    Raises:
        PartError: it is no text, none that can be encoded, or far longer than what it was asked.
    """
    if not isinstance(seen, str):
        raise PartError("error", f"it gives no text, but {type(seen).__name__}", "TypeError")
    if len(seen) > _LONGEST:
        raise PartError("limit", f"its text has more than {_LONGEST:,} characters", "TooLong")
    if _SURROGATE.search(seen):
        raise PartError("error", "the text that it gives holds a lone surrogate", "UnicodeEncodeError")
    return str(seen)


def _raised(error: Exception) -> PartError:
    return PartError("error", _encodable(str(error)[:_SHOWN]), type(error).__name__)


def output(by: str, seen: str | PartError) -> Output:
    """Return what a part gave, or how it ended, as a finding shows it."""
    if isinstance(seen, PartError):
        said = f"{seen.name}: {seen.message}" if seen.name else seen.message
        where = f" (line {seen.line})" if seen.line else ""
        return Output(by=by, error=_encodable(f"{seen.kind}: {said}{where}"))
    return Output(by=by, text=seen if len(seen) <= _SHOWN else f"{seen[:_SHOWN]}… ({len(seen):,} characters)")


def _encodable(text: str) -> str:
    """Return text that a file can hold: an error may speak of lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _as_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _as_mapping(arguments: Any) -> Any:
    return json.loads(arguments) if isinstance(arguments, str) else arguments
