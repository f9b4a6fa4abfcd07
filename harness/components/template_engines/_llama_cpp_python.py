"""The formatter of llama-cpp-python, without an engine."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from harness.components.template_engines._endings import told
from harness.parts import Rendering
from harness.process.owner import the_parts_own


class Jinja2FormatterEngine:
    """`llama_cpp.llama_chat_format.Jinja2ChatFormatter`. The library is loaded, no model is."""

    name = "llama-cpp-python-formatter"

    def __init__(self) -> None:
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        self._formatter = Jinja2ChatFormatter

    def version(self) -> str:
        """Return name and version of what renders."""
        versions = [f"{name} {importlib.metadata.version(name)}" for name in ("llama-cpp-python", "jinja2")]
        return f"Jinja2ChatFormatter of {', '.join(versions)}"

    def compile(self, source: str) -> _Compiled:
        """Compile a template; see `harness.parts.TemplateEngine`."""
        with told(), the_parts_own():
            formatter = self._formatter(source, eos_token="", bos_token="")
        return _Compiled(formatter)


class _Compiled:
    def __init__(self, formatter: Any) -> None:
        self._formatter = formatter

    def render(self, asked: Rendering) -> str:
        """Return the text; see `harness.parts.Compiled`."""
        # What the formatter is made with; made anew for each render it would compile anew.
        self._formatter.bos_token = asked.variables.get("bos_token", "")
        self._formatter.eos_token = asked.variables.get("eos_token", "")
        self._formatter.add_generation_prompt = asked.opens
        self._formatter.strftime_now = asked.local.strftime
        variables = {name: one for name, one in asked.variables.items() if name not in ("bos_token", "eos_token")}
        with told(), the_parts_own():
            response = self._formatter(messages=asked.messages, tools=asked.tools, **variables)
        return str(response.prompt)
