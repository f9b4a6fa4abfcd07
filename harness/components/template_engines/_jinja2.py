"""Plain Jinja2, as the author of a server without transformers sets it up."""

from __future__ import annotations

from typing import Never

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from harness.components.template_engines._endings import told
from harness.parts import CLOCK, Rendering
from harness.process.owner import the_parts_own


class Jinja2Engine:
    r"""Jinja2's sandbox with what chat templates are documented to need, and nothing that transformers adds.

    As in transformers: `trim_blocks` and `lstrip_blocks`, `{% break %}` and `{% continue %}`, `raise_exception`,
    `strftime_now`. Otherwise than there:

    * `tojson` is Jinja2's own: keys sorted, non-ASCII characters and `<`, `>`, `&` and `'` as `\uXXXX`, and of the
      arguments only `indent`; its text is `Markup`, so what is added to it with `+` is escaped for HTML.
    * There is no `{% generation %}`.
    * `dict` and `namespace` are Jinja2's own, without the guard of names that begin with an underscore.
    * Messages reach the template as they are: `thinking` and `reasoning` do not become `reasoning_content`.
    * There is no variable `documents` unless it is given.
    """

    name = "jinja2"

    def __init__(self) -> None:
        self._environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        self._environment.globals["raise_exception"] = raise_exception
        self._environment.globals["strftime_now"] = CLOCK.strftime

    def version(self) -> str:
        """Return name and version of what renders."""
        return f"jinja2 {jinja2.__version__}"

    def compile(self, source: str) -> _Compiled:
        """Compile a template; see `harness.parts.TemplateEngine`."""
        with told(), the_parts_own():
            template = self._environment.from_string(source)
        return _Compiled(self._environment, template)


class _Compiled:
    def __init__(self, environment: ImmutableSandboxedEnvironment, template: jinja2.Template) -> None:
        self._environment = environment
        self._template = template

    def render(self, asked: Rendering) -> str:
        """Return the text; see `harness.parts.Compiled`."""
        self._environment.globals["strftime_now"] = asked.local.strftime
        given = {
            **asked.variables,
            "messages": asked.messages,
            "tools": asked.tools,
            "add_generation_prompt": asked.opens,
        }
        with told(), the_parts_own():
            return self._template.render(given)


def raise_exception(message: str) -> Never:
    """What templates call to refuse.

    Raises:
        jinja2.TemplateError: always.
    """
    raise jinja2.TemplateError(message)
