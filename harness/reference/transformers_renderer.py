"""transformers' own renderer of chat templates, in this process, at a time that is given. It loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from harness.parts import copied
from harness.process.owner import our_own, the_parts_own
from harness.process.upstream import private
from harness.values import Json

_PACKAGE = "transformers"


class Clock(Protocol):
    """What a template's `strftime_now` asks."""

    def strftime(self, form: str, /) -> str:
        """Return the time in this format."""


class _Standing:
    """Stands in for the class `datetime` in the library's module: there the time is always the same."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self) -> Clock:
        """Return the time."""
        with our_own():
            return self._clock


class TransformersRenderer:
    """`render_jinja_template` and the environment that it compiles in.

    The clock is set by the name `datetime` in the library's module, which its `strftime_now` looks up and nothing else
    there does. So a render pays nothing for it, and the code that prints the date stays the library's.

    Attributes:
        library: The module `transformers.utils.chat_template_utils`.

    Raises:
        ImportError: transformers is not installed.
    """

    def __init__(self) -> None:
        # Imported here: it takes two seconds, and a parent process never needs it.
        from transformers.utils import chat_template_utils

        self.library: Any = chat_template_utils

    def compile(self, source: str) -> None:
        """Compile a template. The library keeps the last 128; whatever Jinja2 raises comes through."""
        self._compiled(source)

    def environment(self, source: str) -> Any:
        """Return the Jinja2 environment in which a template is compiled; whatever Jinja2 raises comes through."""
        return self._compiled(source).environment

    def given(self, messages: Sequence[Json]) -> list[Json]:
        """Return messages as a template gets them: reasoning under all names that templates know it by."""
        plain = self.private("_plain_template_data")
        aliased: list[Json] = self.private("_alias_reasoning_fields")(plain(list(messages)))
        return aliased

    def private(self, name: str) -> Any:
        """Return what the library does not promise to keep.

        Raises:
            StageUnobservedError: it is gone.
        """
        return private(self.library, name, _PACKAGE)

    def _compiled(self, source: str) -> Any:
        compile_template = self.private("_compile_jinja_template")
        with the_parts_own():
            return compile_template(source)

    def render(
        self,
        source: str,
        messages: Sequence[Json],
        tools: Sequence[Json] | None,
        variables: Mapping[str, Any],
        *,
        opens: bool,
        clock: Clock,
    ) -> str:
        """Return the text; whatever the template raises comes through, marked as its own. It gets copies.

        Args:
            source: The template.
            messages: The messages.
            tools: The tools, or None.
            variables: Keywords for `render_jinja_template`: what it has no argument for, the template sees.
            opens: Whether the assistant's turn is opened (`add_generation_prompt`).
            clock: What `strftime_now` asks; a `datetime` without a zone, as the real clock gives.
        """
        real, render = self.private("datetime"), self.private("render_jinja_template")
        self.library.datetime = _Standing(clock)
        try:
            given = {"conversations": [copied(messages)], "tools": copied(tools), **copied(dict(variables))}
            with the_parts_own():
                rendered, _ = render(chat_template=source, add_generation_prompt=opens, **given)
        finally:
            self.library.datetime = real
        assert isinstance(rendered[0], str)
        return rendered[0]
