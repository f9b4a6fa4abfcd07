"""Names of models, cases and stacks: each is also the name of a file or a folder, so it must be no more than a name."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Final

from pydantic import AfterValidator

LONGEST: Final = 200
"""Bytes of a name. A file's may have 255, and what is added to it (`.isolated-stream.npz`) takes some."""
_INVISIBLE: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control and format characters, lone surrogates, and separators of lines."""
_MODEL_FILES: Final = ("provenance.toml", "noise.json", "nodes.json", "checksums.json")
"""What lies beside the cases' folders."""
_CASES: Final = "cases"
"""What lies beside the models' folders."""


def plain_name(name: str) -> str:
    """Return a name that is safe as one part of a path.

    Raises:
        ValueError: it is not; says why.
    """
    if not name or name != name.strip():
        raise ValueError(f"{name!r} is no plain name: it is empty, or begins or ends with white space")
    if name.startswith(".") or ".." in name:
        raise ValueError(f"{name!r} is no plain name: it begins with a dot, or has two in a row")
    if any(one in "/\\" for one in name):
        raise ValueError(f"{name!r} is no plain name: it has a slash or a backslash")
    if any(unicodedata.category(one) in _INVISIBLE for one in name):
        raise ValueError(f"{name!r} is no plain name: it has a character that cannot be seen")
    if len(name.encode("utf-8")) > LONGEST:
        raise ValueError(f"{name[:40]!r}... is no plain name: it has more than {LONGEST} bytes")
    return name


def model_name(name: str) -> str:
    """Return the name of a model: a plain name that is not the folder of the cases.

    Raises:
        ValueError: it is not; says why.
    """
    if plain_name(name) == _CASES:
        raise ValueError(f"{name!r} cannot be the name of a model: golden/{_CASES} is the folder of the cases")
    return name


def case_name(name: str) -> str:
    """Return the name of a case: a plain name that is not one of the files beside the cases' goldens.

    Raises:
        ValueError: it is not; says why.
    """
    if plain_name(name) in _MODEL_FILES:
        raise ValueError(f"{name!r} cannot be the name of a case: a file beside the goldens has it")
    return name


PlainName = Annotated[str, AfterValidator(plain_name)]
"""A name of a file or a folder, and no path."""
ModelName = Annotated[str, AfterValidator(model_name)]
"""The name of a model, whose goldens have a folder of this name."""
CaseName = Annotated[str, AfterValidator(case_name)]
"""The name of a case, whose golden has a folder of this name."""
