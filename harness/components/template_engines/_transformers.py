"""transformers' own renderer, which template authors test against."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from typing import Any

from harness.components.template_engines._endings import told
from harness.parts import Rendering
from harness.reference.transformers_renderer import TransformersRenderer


class TransformersEngine:
    """`render_jinja_template` of transformers, with its environment and all that it does to messages first.

    A variable `continue_final_message` is the library's argument of that name.
    """

    name = "transformers-template"

    def __init__(self) -> None:
        self._renderer = TransformersRenderer()

    def version(self) -> str:
        """Return name and version of what renders."""
        versions = [f"{name} {importlib.metadata.version(name)}" for name in ("transformers", "jinja2")]
        return f"render_jinja_template of {', '.join(versions)}"

    def compile(self, source: str) -> _Compiled:
        """Compile a template; see `harness.parts.TemplateEngine`."""
        with told():
            self._renderer.compile(source)
        return _Compiled(self._renderer, source)

    def environment(self, source: str) -> Any:
        """Return the Jinja2 environment that compiles a template, for whoever counts what of it is reached."""
        with told():
            return self._renderer.environment(source)

    def given(self, asked: Rendering) -> Rendering:
        """Return what is asked with the messages as the template gets them."""
        return replace(asked, messages=self._renderer.given(asked.messages))


class _Compiled:
    def __init__(self, renderer: TransformersRenderer, source: str) -> None:
        self._renderer = renderer
        self._source = source

    def render(self, asked: Rendering) -> str:
        """Return the text; see `harness.parts.Compiled`."""
        with told():
            return self._renderer.render(
                self._source, asked.messages, asked.tools, asked.variables, opens=asked.opens, clock=asked.local
            )
