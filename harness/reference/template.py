"""The reference renderer: transformers' own `render_jinja_template`, which template authors test against; no torch.

Templates are untrusted: they render in a child process with a limit on time and memory.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from harness.errors import MissingPackageError, UserError
from harness.parts import local_time
from harness.process.owner import is_the_parts, our_own
from harness.process.worker import RemoteError, Worker, WorkerDiedError
from harness.reference.transformers_renderer import Clock, TransformersRenderer
from harness.stage import StageFailedError, StageRefusedError
from harness.values import CaseOptions, Json, Prompt, Refusal, Request

SECONDS = 20.0
"""The time a template may take: importing the renderer takes about two seconds, a sane template milliseconds."""
MEMORY = 2 << 30
# Private-use characters: text that a template prints by itself has none.
_DATE_START, _DATE_END = "\ue000", "\ue001"
_DATE = re.compile(f"({_DATE_START}[^{_DATE_END}]*{_DATE_END})")


class ReferenceTemplate:
    """Renders one template as transformers does.

    Args:
        template: The Jinja source.
        special_texts: The texts of the special tokens by transformers' names (`bos_token`, `eos_token`, ...).
        control_tokens: The text of every control token, to find those that the caller's own text spells.
    """

    def __init__(self, template: str, special_texts: Mapping[str, str], control_tokens: Sequence[str]) -> None:
        init = {"template": template, "special_texts": dict(special_texts), "control_tokens": list(control_tokens)}
        self._worker = Worker("harness.reference.template:Renderer", init, seconds=SECONDS, memory=MEMORY, patience=2)

    def __enter__(self) -> ReferenceTemplate:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._worker.close()

    @staticmethod
    def version() -> str:
        """Return the name and version for provenance.

        Raises:
            MissingPackageError: transformers is not installed.
        """
        try:
            versions = [f"{name} {importlib.metadata.version(name)}" for name in ("transformers", "jinja2")]
        except importlib.metadata.PackageNotFoundError as error:
            raise MissingPackageError("the reference renderer", "transformers", "reference") from error
        return f"render_jinja_template of {', '.join(versions)}"

    def render(self, request: Request, options: CaseOptions) -> Prompt:
        """Render a request.

        Raises:
            StageRefusedError: the template raised, or what renders it.
            StageFailedError: it did not end in time, or needed too much memory.
            UserError: transformers has changed inside, and cannot be asked.
            RemoteError: code of ours raised.
        """
        try:
            seen = self._worker.call(
                "render",
                messages=request.messages,
                tools=request.tools,
                tool_choice=request.tool_choice,
                options=options.model_dump(mode="json"),
            )
        except RemoteError as error:
            if error.whose == "unobserved":
                raise UserError(error.message, "install one of those") from error
            if error.whose != "part":
                raise
            message = error.message.strip().splitlines()[0] if error.message.strip() else ""
            raise StageRefusedError(Refusal(error=error.error, message=message)) from error
        except WorkerDiedError as death:
            raise StageFailedError(death.failure) from death
        literals = tuple((start, end) for start, end in seen["literals"])
        dates = tuple((start, end, form) for start, end, form in seen["dates"])
        return Prompt(text=seen["text"], suffix=seen["suffix"], literals=literals, dates=dates)


class _MarkedClock:
    """A clock that tells what it is asked for instead of the time."""

    @staticmethod
    def strftime(form: str, /) -> str:
        """Return the format itself, marked."""
        with our_own():
            return f"{_DATE_START}{form}{_DATE_END}"


class Renderer:
    """The child's side."""

    def __init__(self, template: str, special_texts: Mapping[str, str], control_tokens: Sequence[str]) -> None:
        self._renderer = TransformersRenderer()
        self._template = template
        self._special_texts = special_texts
        longest_first = sorted(control_tokens, key=len, reverse=True)
        self._control_tokens = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def render(self, messages: list[Json], tools: list[Json] | None, tool_choice: Any, options: Json) -> dict[str, Any]:
        """Return the text, the suffix that opens the assistant's turn, and the literal spans."""
        given = CaseOptions.model_validate(options)
        keywords: dict[str, Any] = {**self._special_texts, **given.template_kwargs}
        if tool_choice is not None:
            keywords["tool_choice"] = tool_choice
        if given.continue_final_message:
            text = self._text(messages, tools, given, keywords, opens=False)
            dates = self._dates(text, messages, tools, given, keywords, opens=False)
            return {"text": text, "suffix": "", "literals": [], "dates": dates}
        text = self._text(messages, tools, given, keywords, opens=True)
        before = self._text(messages, tools, given, keywords, opens=False)
        return {
            "text": text,
            "suffix": text[len(before) :] if text.startswith(before) else None,
            "literals": self._literals(text, messages, tools, given, keywords),
            "dates": self._dates(text, messages, tools, given, keywords, opens=True),
        }

    def _text(
        self,
        messages: list[Json],
        tools: list[Json] | None,
        options: CaseOptions,
        keywords: Json,
        *,
        opens: bool,
        clock: Clock | None = None,
    ) -> str:
        return self._renderer.render(
            self._template,
            messages,
            tools,
            {**keywords, "continue_final_message": options.continue_final_message},
            opens=opens,
            clock=clock or local_time(options.clock),
        )

    def _dates(
        self,
        text: str,
        messages: list[Json],
        tools: list[Json] | None,
        given: CaseOptions,
        keywords: Json,
        *,
        opens: bool,
    ) -> list[tuple[int, int, str]]:
        """Return where the template printed the clock, and in which format.

        A render with a clock that prints its format between two private-use characters shows it. Where that does not
        give the text back (the template looks into the date), no span is known and none is returned.
        """
        try:
            rendered = self._text(messages, tools, given, keywords, opens=opens, clock=_MarkedClock())
        except Exception as error:
            # A template may do anything to what it takes for a date.
            if not is_the_parts(error):
                raise
            return []
        spans: list[tuple[int, int, str]] = []
        parts: list[str] = []
        length = 0
        for piece in _DATE.split(rendered):
            is_date = piece.startswith(_DATE_START)
            try:
                shown = given.clock.strftime(piece[1:-1]) if is_date else piece
            except ValueError:
                # What the template asks for is no format.
                return []
            if is_date:
                spans.append((length, length + len(shown), piece[1:-1]))
            parts.append(shown)
            length += len(shown)
        return spans if "".join(parts) == text else []

    def _literals(
        self, text: str, messages: list[Json], tools: list[Json] | None, options: CaseOptions, keywords: Json
    ) -> list[tuple[int, int]]:
        """Return where the caller's own text spells a control token.

        transformers marks such text with two private-use characters; a render of the marked messages shows where it
        went. Where the marks change the render otherwise, the spans are not known and none are returned.
        """
        private = self._renderer.private
        mark = private("mark_control_tokens")
        start, end = private("_CONTROL_TOKEN_START"), private("_CONTROL_TOKEN_END")
        marked = mark(messages, self._control_tokens)
        marked_tools = mark(tools, self._control_tokens)
        if (marked, marked_tools) == (messages, tools):
            return []
        rendered = self._text(marked, marked_tools, options, keywords, opens=True)
        if rendered.replace(start, "").replace(end, "") != text:
            return []
        spans: list[tuple[int, int]] = []
        opened, position = 0, 0
        for character in rendered:
            if character == start:
                opened = position
            elif character == end:
                spans.append((opened, position))
            else:
                position += 1
        return spans
