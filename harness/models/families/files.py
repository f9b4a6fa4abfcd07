"""Where the families' model files are: in the user's cache, put together when they are first wanted."""

from __future__ import annotations

import os
import tempfile
from importlib.metadata import version
from pathlib import Path

import platformdirs

from harness.errors import UserError
from harness.models.families.registry import FAMILIES
from harness.models.gguf import sha256_of
from harness.process.worker import RemoteError, Worker, WorkerDiedError

_SECONDS = 300.0


def family_file(family: str, sha256: str) -> Path:
    """Return a family's model file. It is put together where it is not there yet, which takes seconds.

    Args:
        family: A name of `FAMILIES`, whose packages are installed.
        sha256: The hash that it must have.

    Raises:
        UserError: the installed packages make another file or none, or it cannot be written.
    """
    folder = Path(platformdirs.user_cache_dir("llm-stack-harness")) / "families"
    path = folder / f"{family}-{sha256[:12]}.gguf"
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as made:
            new = Path(made) / path.name
            build(family, new)
            found = sha256_of(new)
            if found != sha256:
                raise UserError(
                    f"the packages installed make another {family!r} than models.toml means: its SHA-256 is "
                    f"{found[:12]}..., not {sha256[:12]}... ({_versions(family)})",
                    "install the versions it was made of, or enter the new file under a name of its own and record it",
                )
            os.replace(new, path)  # noqa: PTH105 - atomic
    except OSError as error:
        raise UserError(f"the model file of family {family!r} cannot be written: {error}") from error
    return path


def build(family: str, path: Path) -> None:
    """Put a family's model file together, in a child process.

    Raises:
        UserError: its packages are not what they should be.
    """
    with Worker("harness.models.families.build:Builder", {}, seconds=_SECONDS) as worker:
        try:
            worker.call("build", family=family, path=str(path))
        except RemoteError as error:
            said = error.message if error.error in ("UserError", "MissingPackageError") else str(error)
            raise UserError(
                f"the model file of family {family!r} cannot be put together: {said} ({_versions(family)})"
            ) from error
        except WorkerDiedError as death:
            raise UserError(
                f"the model file of family {family!r} cannot be put together: {death.failure.describe()}"
            ) from death


def _versions(family: str) -> str:
    return ", ".join(f"{name} {version(name)}" for name in FAMILIES[family].requires)
