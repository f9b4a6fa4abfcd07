"""Engines that render chat templates, each as a component of the template stage.

Each of them names, as `template_engine`, the class that renders within the caller's own process; see `harness.parts`.
"""

from __future__ import annotations

from typing import ClassVar

from harness.components.template_engines._component import Options, TemplateComponent
from harness.values import Json

_HERE = "harness.components.template_engines"


class TransformersTemplate(TemplateComponent):
    """transformers' own renderer."""

    name: ClassVar[str] = "transformers-template"
    requires: ClassVar[tuple[str, str]] = ("transformers", "reference")
    template_engine: ClassVar[str] = f"{_HERE}._transformers:TransformersEngine"
    continues: ClassVar[bool] = True


class Jinja2(TemplateComponent):
    """Plain Jinja2, without what transformers adds."""

    name: ClassVar[str] = "jinja2"
    requires: ClassVar[tuple[str, str]] = ("jinja2", "fuzz")
    template_engine: ClassVar[str] = f"{_HERE}._jinja2:Jinja2Engine"


class LlamaCppPythonFormatter(TemplateComponent):
    """llama-cpp-python's `Jinja2ChatFormatter`, without an engine."""

    name: ClassVar[str] = "llama-cpp-python-formatter"
    requires: ClassVar[tuple[str, str]] = ("llama-cpp-python", "llama-cpp")
    template_engine: ClassVar[str] = f"{_HERE}._llama_cpp_python:Jinja2FormatterEngine"


class MiniJinja(TemplateComponent):
    """MiniJinja with Python's methods, as servers in Rust set it up."""

    name: ClassVar[str] = "minijinja"
    requires: ClassVar[tuple[str, str]] = ("minijinja", "fuzz")
    template_engine: ClassVar[str] = f"{_HERE}._minijinja:MiniJinjaEngine"


class PlainMiniJinja(TemplateComponent):
    """MiniJinja without Python's methods."""

    name: ClassVar[str] = "minijinja-plain"
    requires: ClassVar[tuple[str, str]] = ("minijinja", "fuzz")
    template_engine: ClassVar[str] = f"{_HERE}._minijinja:PlainMiniJinjaEngine"


class LlamaCppJinja(TemplateComponent):
    """llama.cpp's own Jinja, as llama-server enters it."""

    name: ClassVar[str] = "llama-cpp-jinja"
    requires: ClassVar[tuple[str, str]] = ("ggufdoctor", "fuzz")
    template_engine: ClassVar[str] = f"{_HERE}._llama_cpp:LlamaCppJinjaEngine"


class NodeOptions(Options):
    """What a stack definition may set.

    Attributes:
        node_modules: The folder that holds the npm package; see `HuggingFaceJinjaEngine`.
    """

    node_modules: str | None = None

    def keywords(self) -> Json:
        """Return what the engine is made with."""
        return {"seconds": self.seconds, "node_modules": self.node_modules}


class HuggingFaceJinja(TemplateComponent):
    """The npm package `@huggingface/jinja` under Node."""

    name: ClassVar[str] = "huggingface-jinja"
    requires: ClassVar[tuple[str, str]] = ("", "")
    template_engine: ClassVar[str] = f"{_HERE}._node:HuggingFaceJinjaEngine"
    options: ClassVar[type[Options]] = NodeOptions
