"""The child's side of a template component: an engine that renders one case at a time, within its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from harness.parts import Compiled, PartError, Rendering, TemplateEngine, end_process_when_stuck, limited, make
from harness.values import Json


class Renderer:
    """Serves an engine.

    Args:
        engine: The import path of its class.
        keywords: What it is made with.
        seconds: How long compiling and rendering a case may take, where the engine can be interrupted.
    """

    def __init__(self, engine: str, keywords: Mapping[str, Any], seconds: float) -> None:
        end_process_when_stuck()
        self._engine: TemplateEngine = make(engine, **keywords)
        self._seconds = seconds
        self._compiled: dict[str, Compiled] = {}

    def version(self) -> str:
        """Return name and version of what renders."""
        return self._engine.version()

    def render(
        self,
        source: str,
        messages: Sequence[Json],
        tools: Sequence[Json] | None,
        variables: Mapping[str, Any],
        clock: str,
        opens: bool,
    ) -> Json:
        """Return the text, and with the turn opened what it has less without, as `before`; or how it ended."""
        asked = Rendering(messages, tools, opens, variables, datetime.fromisoformat(clock))
        try:
            with limited(self._seconds):
                compiled = self._of(source)
                text = compiled.render(asked.own())
                closed = Rendering(messages, tools, False, variables, asked.clock)
                return {"text": text, "before": compiled.render(closed.own()) if opens else text}
        except PartError as error:
            return {"kind": error.kind, "message": error.message, "name": error.name, "line": error.line}

    def _of(self, source: str) -> Compiled:
        """Return a template compiled; the last one is kept."""
        if source not in self._compiled:
            self._compiled = {source: self._engine.compile(source)}
        return self._compiled[source]
