"""TOML and JSON files that people write: read, validated, and refused with file, line and what was expected."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from harness.errors import UserError

Model = TypeVar("Model", bound=BaseModel)
_LARGEST: Final = 1 << 24
"""Bytes of a file that people write. TOML of this size takes Python some ten seconds."""
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def read_toml(path: Path, model: type[Model]) -> Model:
    """Read a TOML file into a model.

    Raises:
        UserError: the file is missing, is no TOML, or does not fit the model; with the line.
    """
    return _read(path, model, tomllib.loads)


def read_json(path: Path, model: type[Model]) -> Model:
    """Read a JSON file into a model.

    Raises:
        UserError: the file is missing, is no JSON, or does not fit the model; with the line.
    """
    return _read(path, model, json.loads)


def read_text(path: Path) -> str:
    """Read a file that somebody wrote, no line ending changed.

    Raises:
        UserError: it is missing, no file, no UTF-8, or larger than any such file.
    """
    try:
        size = path.stat().st_size
        if not path.is_file() and not path.is_dir():
            # A pipe, whose reader would wait.
            raise UserError(f"{path} cannot be read: it is no file")
        if size > _LARGEST:
            raise UserError(f"{path} has {size:,} bytes; a file of its kind has at most {_LARGEST:,}")
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def toml_value(value: str | bool | Sequence[str]) -> str:
    """Return a value as TOML writes it. Its basic strings and arrays are JSON's, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_key(name: str) -> str:
    """Return a key as TOML writes it."""
    return name if _BARE.fullmatch(name) else toml_value(name)


def _read(path: Path, model: type[Model], parse: Callable[[str], Any]) -> Model:
    text = read_text(path)
    try:
        data = parse(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON: {error.msg} (column {error.colno})") from None
    except ValueError as error:
        # A number of more digits than Python converts.
        raise UserError(f"{path}: cannot be read: {error}") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply to read") from None
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError(validation_message(path, text, error)) from None


def validation_message(path: Path, text: str, error: ValidationError) -> str:
    """Return one line that names the place of the first problem, and how many more there are."""
    problems = error.errors(include_url=False)
    first = problems[0]
    # Of a key that is wrong pydantic says so behind its name.
    location = [part for part in first["loc"] if isinstance(part, str | int) and part != "[key]"]
    where = ".".join(_printable(str(part)) for part in location)
    message = first["msg"].removeprefix("Value error, ")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{path}:{line_of(text, location)}: {where or 'the file'}: {message}{more}"


def _printable(text: str) -> str:
    """Return a key in which what a terminal would not print, or would obey, is an escape."""
    return text if text.isprintable() else json.dumps(text)[1:-1]


def line_of(text: str, location: Sequence[str | int]) -> int:
    """Return the line, from 1, of the deepest key of a location that the text shows, in TOML or JSON."""
    lines = text.split("\n")
    return _line_in_json(lines, location) if _is_json(text) else _line_in_toml(lines, location)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


_TOML_KEY = re.compile(r"""\s*("[^"]*"|'[^']*'|[\w-]+)\s*(\.|=|\]|$)""")


def _line_in_toml(lines: Sequence[str], location: Sequence[str | int]) -> int:
    """Follow tables and keys, and count the entries of lists of tables."""
    best, depth, table = 0, 0, list[str | int]()
    entries: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(lines):
        header = line.strip().startswith("[")
        keys = _toml_keys(line.strip().lstrip("["))
        if header:
            table = list(keys)
            if line.strip().startswith("[["):
                entries[tuple(keys)] = entries.get(tuple(keys), -1) + 1
            for end in range(len(keys), 0, -1):
                if tuple(keys[:end]) in entries:
                    table.insert(end, entries[tuple(keys[:end])])
        elif "=" not in line:
            continue
        place = table if header else [*table, *keys]
        common = 0
        for one, other in zip(place, location, strict=False):
            if one != other:
                break
            common += 1
        if common > depth:
            best, depth = number, common
    return best + 1


def _toml_keys(text: str) -> list[str]:
    keys, place = [], 0
    while match := _TOML_KEY.match(text, place):
        keys.append(match[1].strip("\"'") if match[1][0] in "\"'" else match[1])
        place = match.end()
        if match[2] != ".":
            break
    return keys


def _line_in_json(lines: Sequence[str], location: Sequence[str | int]) -> int:
    found = 0
    for part in location:
        if isinstance(part, int):
            continue
        key = re.compile(rf"{re.escape(json.dumps(part, ensure_ascii=False))}\s*(:|$)")
        match = next((i for i in range(found, len(lines)) if key.search(lines[i])), None)
        if match is None:
            break
        found = match
    return found + 1
