"""Rendering with a defect in it, as transformers renders: in a child process, many defects one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.defects.defect import Place
from harness.defects.places import DefectError, planted
from harness.parts import local_time
from harness.process.owner import is_the_parts
from harness.reference.transformers_renderer import TransformersRenderer
from harness.values import CaseOptions, Json


class HurtRenderer:
    """The child's side.

    Args:
        template: The healthy source.
        special_texts: The texts of the special tokens by transformers' names.
    """

    def __init__(self, template: str, special_texts: Mapping[str, str]) -> None:
        self._renderer = TransformersRenderer()
        self._template = template
        self._special_texts = special_texts

    def render(self, given: Json, options: Json, place: str, function: str, arguments: Mapping[str, Any]) -> str | None:
        """Return what a request is rendered to with a defect in the way; None where that raises.

        Args:
            given: `messages`, `tools` and `tool_choice`.
            options: The case's.
            place: Where the defect is planted: `request`, `source` or `environment`.
            function: Its function.
            arguments: Keywords for it.
        """
        edit, template = planted(function, arguments), self._template
        try:
            if place == Place.REQUEST:
                given = edit(given)
            elif place == Place.SOURCE:
                template = edit(template)
            else:
                # A source of its own has an environment of its own.
                template = f"{{# {function} {sorted(arguments.items())} #}}{template}"
                edit(self._renderer.environment(template))
            return self._rendered(template, given, CaseOptions.model_validate(options))
        except Exception as error:
            # A template that is hurt may raise anything.
            if not (is_the_parts(error) or isinstance(error, DefectError)):
                raise
            return None

    def healthy(self, given: Json, options: Json) -> str:
        """Return what a request is rendered to.

        Args:
            given: `messages`, `tools` and `tool_choice`.
            options: The case's.
        """
        return self._rendered(self._template, given, CaseOptions.model_validate(options))

    def _rendered(self, template: str, given: Json, options: CaseOptions) -> str:
        keywords: Json = {**self._special_texts, **options.template_kwargs}
        if given.get("tool_choice") is not None:
            keywords["tool_choice"] = given["tool_choice"]
        return self._renderer.render(
            template,
            given["messages"],
            given["tools"],
            {**keywords, "continue_final_message": options.continue_final_message},
            opens=not options.continue_final_message,
            clock=local_time(options.clock),
        )
