"""Cases: what is asked, and of which models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import RootModel, ValidationError

from harness.errors import UserError, unknown_name
from harness.project.documents import read_json
from harness.project.names import case_name
from harness.project.project import Project
from harness.project.stack import ModelEntry, load_models
from harness.values import Case


def case_names(project: Project) -> tuple[str, ...]:
    """Return the names of all cases. Hidden files are none.

    Raises:
        UserError: a file's name is no case's.
    """
    files = [path for layer in project.layers for path in (layer.golden / "cases").glob("*.json")]
    files = [path for path in files if not path.name.startswith(".")]
    for path in files:
        try:
            case_name(path.stem)
        except ValueError as error:
            raise UserError(f"a case's file in {path.parent}: {error}", "rename the file") from None
    return tuple(sorted({path.stem for path in files}))


def load_case(project: Project, name: str) -> Case:
    """Load one case.

    Raises:
        UserError: no such case, or its file is wrong.
    """
    names = case_names(project)
    if name not in names:
        raise unknown_name("case", name, names)
    path = next(path for layer in project.layers if (path := layer.golden / "cases" / f"{name}.json").exists())
    return read_json(path, Case).model_copy(update={"name": name})


def case_of_body(path: Path) -> Case:
    """Return a case of a request body as it was sent: a JSON file with a chat-completions body and nothing else.

    What it says of streaming is left out, as a run says that.

    Raises:
        UserError: the file cannot be read, or holds no such body.
    """
    body = read_json(path, _Body).root
    asked = {name: value for name, value in body.items() if name not in ("stream", "stream_options", "model")}
    try:
        return Case(name=path.stem, description=f"The body in {path.name}.", covers=(), body=asked)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise UserError(f"{path} is no chat-completions body: {problem}") from None


class _Body(RootModel[dict[str, Any]]):
    pass


def cases_for(project: Project, model: str, wanted: Sequence[str] = ()) -> tuple[Case, ...]:
    """Return the cases that are asked of a model, all or those wanted.

    Raises:
        UserError: a case that is wanted does not exist, or a case's file is wrong.
    """
    names = wanted or case_names(project)
    entry = load_models(project).get(model)
    return tuple(case for case in (load_case(project, name) for name in names) if _is_asked(case, model, entry))


def is_asked(project: Project, case: Case, model: str) -> bool:
    """Return whether a case is asked of a model: one names the other, or it is for all models that take such."""
    return _is_asked(case, model, load_models(project).get(model))


def _is_asked(case: Case, model: str, entry: ModelEntry | None) -> bool:
    if model in case.models or (entry is not None and case.name in entry.cases):
        return True
    return not case.models and not (entry is not None and entry.named_only)
