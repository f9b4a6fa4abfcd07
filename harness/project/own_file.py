"""A model file that no `models.toml` names: it gets a folder of its own in the user's cache, above the project.

The folder is a project of one model, so whatever takes a model's name takes the file. Its goldens are kept there under
the file's hash, and are found again whatever the file is called and wherever it lies.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Final

import platformdirs

from harness.errors import UserError
from harness.models.cache import remembered_sha256
from harness.models.gguf import check_header, read_metadata
from harness.project.documents import read_text, toml_key, toml_value
from harness.project.files import write_file
from harness.project.names import model_name
from harness.project.project import Project
from harness.project.stack import MODELS_FILE, load_models, models_of

FILE_SUFFIX: Final = ".gguf"
_TEMPLATE: Final = "template.jinja"
_DIGITS: Final = 16
_SPLIT: Final = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
"""How llama.cpp names the parts of a split file (`llama_split_path`)."""
_CASES_OF_CALLS: Final = ("call-one", "call-two-parallel", "call-result-follow-up")
_CASES_OF_REASONING: Final = ("reasoning-in-history",)


def is_model_file(text: str) -> bool:
    """Return whether a text names a model file by its path, not a model."""
    path = Path(text)
    return path.suffix == FILE_SUFFIX or len(path.parts) > 1


def with_model_file(project: Project, path: Path, template: Path | None = None) -> tuple[Project, str]:
    """Return the project in which a file is a model, and the model's name.

    A file that the project knows by its hash is that model.

    Args:
        project: The project.
        path: A GGUF.
        template: A chat template that replaces the file's own.

    Raises:
        UserError: the template cannot be read, the file is one part of several, or the cache cannot be written.
        ModelFileError: the file is missing, truncated, not GGUF or of an unknown version.
    """
    split = _SPLIT.search(path.name)
    if split is not None and int(split[2]) > 1:
        raise UserError(
            f"{path.name} is one part of a model that is split into {int(split[2])} files",
            "join them: llama-gguf-split --merge FIRST_PART WHOLE.gguf",
        )
    check_header(path)
    sha256 = remembered_sha256(path)
    source = None if template is None else read_text(template)
    known = load_models(project)
    if source is None:
        for name, entry in known.items():
            if entry.sha256 == sha256 and entry.chat_template is None:
                return project, name
    name = _free_name(path.stem, sha256, known)
    folder = _folder_of(sha256, source)
    fields = _entry(path.resolve(), sha256, source)
    lines = [f"[{toml_key(name)}]", *(f"{key} = {toml_value(value)}" for key, value in fields.items())]
    try:
        (folder / "stacks").mkdir(parents=True, exist_ok=True)
        if source is not None:
            write_file(folder / "stacks" / _TEMPLATE, source.encode("utf-8"))
        _rename(folder, name)
        write_file(folder / "stacks" / MODELS_FILE, ("\n".join(lines) + "\n").encode("utf-8"))
    except OSError as error:
        raise UserError(f"nothing can be kept of {path} in {folder}: {error.strerror}") from error
    return project.above(folder), name


def _rename(folder: Path, name: str) -> None:
    """Give the goldens that are there the name that the file has now."""
    if not (folder / "stacks" / MODELS_FILE).is_file():
        return
    for before in models_of(Project(folder)):
        kept = folder / "golden" / before
        if before != name and kept.is_dir() and not (folder / "golden" / name).exists():
            kept.rename(folder / "golden" / name)


def _folder_of(sha256: str, template: str | None) -> Path:
    suffix = "" if template is None else "-" + hashlib.sha256(template.encode("utf-8")).hexdigest()[:_DIGITS]
    return Path(platformdirs.user_cache_dir("llm-stack-harness")) / "models" / (sha256[:_DIGITS] + suffix)


def _entry(path: Path, sha256: str, template: str | None) -> dict[str, Any]:
    source = template if template is not None else read_metadata(path).get("tokenizer.chat_template")
    entry: dict[str, Any] = {"path": str(path), "sha256": sha256, "description": f"the file {path.name}"}
    if template is not None:
        entry["chat_template"] = _TEMPLATE
    cases: tuple[str, ...] = ()
    if isinstance(source, str) and "<tool_call>" in source and '"arguments"' in source:
        entry["calls"] = "hermes"
        cases += _CASES_OF_CALLS
    if isinstance(source, str) and "<think>" in source:
        entry["reasoning"] = "think"
        cases += _CASES_OF_REASONING
    return {**entry, "cases": list(cases)}


def _free_name(stem: str, sha256: str, known: dict[str, Any]) -> str:
    """Return a name for the model that no other one has: the file's, if it can be one."""
    try:
        name = model_name(stem)
    except ValueError:
        name = f"model-{sha256[:8]}"
    return f"{name}-{sha256[:8]}" if name in known else name
