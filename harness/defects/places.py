"""What a defect's function is given where text becomes ids and where ids become an answer, and how it is called."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.errors import UserError
from harness.process.owner import as_the_parts
from harness.values import Json

Answer = Json | list[Json]
"""A chat completion, or the chunks of a streamed one."""


class DefectError(Exception):
    """The function of a defect raised something itself."""


@dataclass(frozen=True)
class Tokenizing:
    """A prompt that was made ids of.

    Attributes:
        text: The prompt.
        ids: Its ids, as the healthy part makes them.
        encode: The healthy part's tokenizer: `encode(text, parsed)`, where `parsed` reads control tokens as such; it
            adds no BOS.
        bos: The id of the BOS, or None.
        eos: The id of the end token, or None.
    """

    text: str
    ids: tuple[int, ...]
    encode: Callable[[str, bool], Sequence[int]]
    bos: int | None = None
    eos: int | None = None


@dataclass(frozen=True)
class Generated:
    """What an answer was made of.

    Attributes:
        pieces: The bytes of each generated id, control tokens included; empty where the part does not show its ids.
        body: The request's body, as far as the part saw it.
    """

    pieces: tuple[bytes, ...]
    body: Mapping[str, Any]


def planted(hook: str, arguments: Mapping[str, Any]) -> Callable[..., Any]:
    """Return the function of a defect, ready to be called; what it raises is a `DefectError`.

    Args:
        hook: Where it is, as `module:function` or `file.py:function`.
        arguments: Keywords for it.

    Raises:
        UserError: there is no such function.
    """
    name, _, function = hook.rpartition(":")
    module = module_at(Path(name)) if name.endswith(".py") else importlib.import_module(name)
    found = getattr(module, function, None)
    if found is None:
        raise UserError(f"{name} has no function {function!r}")
    return partial(_called, found, dict(arguments))


def module_at(path: Path) -> ModuleType:
    """Import a file, once, under its absolute path as its name.

    Raises:
        UserError: it is not there, or raises while it is imported.
    """
    name = str(path.resolve())
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(f"{path} is no Python file", "name a file of decorated functions")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _called(function: Callable[..., Any], arguments: Mapping[str, Any], *given: Any) -> Any:
    try:
        return function(*given, **arguments)
    except Exception as error:
        # The defect is in the part, whose error this is.
        raise as_the_parts(DefectError(f"{type(error).__name__}: {error}")) from error
