"""What `llama_cpp.Llama` takes, read from its source: the package itself is imported in a child process only."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

HELD: dict[str, str] = {
    "model_path": "the model is the one that models.toml names",
    "logits_all": "the taps read the last row of the logits, which it moves",
    "embedding": "an engine that embeds generates nothing",
    "pooling_type": "an engine that pools generates nothing",
    "verbose": "what the engine says while it loads is evidence, and is always read",
    "chat_format": "the chat handler is that of the model's template, or of the chat_template in models.toml",
}
"""Keywords of `Llama` that this component sets or rests on, and why."""
_TYPES: dict[str, Any] = {"bool": bool, "int": int, "float": float, "str": str, "List[float]": list[float]}


@cache
def keywords() -> dict[str, Any]:
    """Return the type of each keyword that a document can hold, of the release that is installed.

    A keyword that takes an object of Python's (a chat handler, a draft model) is left out.
    """
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return {}
    tree = ast.parse((Path(spec.origin).parent / "llama.py").read_text(encoding="utf-8"))
    llama = next(one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == "Llama")
    made = next(one for one in llama.body if isinstance(one, ast.FunctionDef) and one.name == "__init__")
    found = {one.arg: _type_of(one.annotation) for one in made.args.kwonlyargs if one.annotation is not None}
    return {name: kind for name, kind in found.items() if kind is not None}


def checked(name: str, value: Any) -> Any:
    """Return a keyword's value as its type.

    Raises:
        ValidationError: it is of another type.
    """
    return TypeAdapter(keywords()[name]).validate_python(value, strict=True)


def _type_of(annotation: ast.expr) -> Any:
    said = ast.unparse(annotation).removeprefix("Optional[")
    return _TYPES.get(said if said in _TYPES else said.removesuffix("]"))
