"""Where templates come from: a file, a folder, a GGUF, a model of the project, a stack, or an installed package."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from harness.errors import UserError
from harness.fuzz.template.trial import Subject
from harness.models.gguf import read_metadata
from harness.project.project import Project
from harness.project.stack import load_models, load_stack, resolve_model, stack_names
from harness.values import ModelRef

NEUTRAL: Final = {"bos_token": "<s>", "eos_token": "</s>"}
"""The texts of special tokens for a template that stands alone: nothing tells which its model has."""
_LARGEST: Final = 1 << 20
"""Bytes of a template. The largest published ones have 30 thousand."""
_SUFFIXES: Final = (".jinja", ".jinja2", ".j2")
_KEY: Final = "tokenizer.chat_template"
_ROLES: Final = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
_CONTROL, _USER_DEFINED = 3, 4


def subjects(project: Project, name: str) -> list[Subject]:
    """Return the templates that a name stands for.

    Args:
        project: Where models and stacks are.
        name: A file (`.jinja`, `tokenizer_config.json`, `.gguf`), a folder with templates in it, the name of a model
            or a stack of the project, or an installed package (its import name).

    Raises:
        UserError: it is none of these, or there is no template in it.
        ModelFileError: the GGUF cannot be read.
    """
    path = Path(name)
    if path.is_dir():
        found = list(_of_folder(path))
    elif path.is_file():
        found = list(_of_file(path))
    elif name in load_models(project):
        found = list(_of_model(resolve_model(project, name)))
    elif name in stack_names(project):
        models = [resolve_model(project, model) for model in load_stack(project, name).models]
        found = [subject for model in models for subject in _of_model(model)]
    elif (folder := _package(name)) is not None:
        found = list(_of_folder(folder))
    else:
        raise UserError(
            f"no template at {name!r}: it is no file, folder, model, stack or installed package",
            "name a .jinja file, a GGUF, a folder, a model of stacks/models.toml, or a package as it is imported",
        )
    if not found:
        raise UserError(f"there is no chat template in {name}", f"templates end in {', '.join(_SUFFIXES)}")
    return found


def _of_folder(folder: Path) -> Iterator[Subject]:
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES and path.is_file()):
        # One of many that cannot be read does not keep the others from being tried.
        try:
            source, unread = _read(path), ""
        except UserError as error:
            source, unread = "", error.message
        name = str(path.relative_to(folder)).encode("utf-8", "backslashreplace").decode("utf-8")
        yield Subject(name=name, source=source, variables=dict(NEUTRAL), unread=unread)


def _of_file(path: Path) -> Iterator[Subject]:
    if path.suffix == ".gguf":
        yield from _of_model(ModelRef(name=path.name, path=path, sha256=""))
    elif path.suffix == ".json":
        yield from _of_config(path)
    else:
        yield Subject(name=path.name, source=_read(path), variables=dict(NEUTRAL))


def _of_config(path: Path) -> Iterator[Subject]:
    """Yield the templates of a `tokenizer_config.json`, with the special tokens that it names."""
    try:
        config = json.loads(_read(path))
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    given = config.get("chat_template") if isinstance(config, dict) else None
    variables = {name: text for name in NEUTRAL if (text := _text(config.get(name))) is not None} if given else {}
    many = given if isinstance(given, list) else [{"name": "default", "template": given}]
    for one in many:
        if isinstance(one, dict) and isinstance(one.get("template"), str):
            name = path.name if one.get("name") == "default" else f"{path.name}, {one.get('name')}"
            yield Subject(name=name, source=one["template"], variables=variables)


def _text(token: Any) -> str | None:
    """Return a special token's text: tokenizer_config.json has a text, or an object around it."""
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None


def _of_model(model: ModelRef) -> Iterator[Subject]:
    metadata = read_metadata(model.path)
    tokens, types = (metadata.get(f"tokenizer.ggml.{key}") or [] for key in ("tokens", "token_type"))
    variables = {}
    for role, name in _ROLES.items():
        place = metadata.get(f"tokenizer.ggml.{role}_token_id")
        if isinstance(place, int) and 0 <= place < len(tokens):
            variables[name] = str(tokens[place])
    control, shown = (
        tuple(str(text) for text, kind in zip(tokens, types, strict=False) if kind == wanted)
        for wanted in (_CONTROL, _USER_DEFINED)
    )
    templates = {key: str(value) for key, value in metadata.items() if key.startswith(_KEY)}
    templates.pop(f"{_KEY}s", None)
    if model.chat_template is not None:
        templates = {_KEY: model.chat_template}
    for key, source in templates.items():
        name = model.name if key == _KEY else f"{model.name}, {key.removeprefix(_KEY + '.')}"
        yield Subject(name=name, source=source, variables=variables, control=control, shown=shown, file=str(model.path))


def _package(name: str) -> Path | None:
    """Return the folder of an installed package; its code is not run."""
    if not name.replace("_", "").replace("-", "").isalnum():
        return None
    try:
        found = importlib.util.find_spec(name.replace("-", "_"))
    except (ImportError, ValueError):
        return None
    folders = list(found.submodule_search_locations or ()) if found is not None else []
    return Path(folders[0]) if folders else None


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise UserError(f"{path} has {path.stat().st_size:,} bytes: no chat template has so many")
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
