"""Where the stacks, cases and goldens of a run are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError

_PACKAGE = Path(__file__).parents[1]
_SHIPPED = _PACKAGE / "_bundled"


@dataclass(frozen=True)
class Project:
    """A folder with `stacks/` and `golden/` in it."""

    root: Path

    @property
    def stacks(self) -> Path:
        """The folder of the stack definitions, one TOML file each, and `models.toml`."""
        return self.root / "stacks"

    @property
    def golden(self) -> Path:
        """The folder of the cases and the goldens."""
        return self.root / "golden"

    @property
    def is_shipped(self) -> bool:
        """Whether this is the project inside the installed package, which nobody writes into."""
        return self.root.resolve() == _SHIPPED.resolve()


def find_project(root: Path | None = None) -> Project:
    """Return the project to work in: the folder named, else the nearest one upwards, else the one that is shipped.

    Raises:
        UserError: the folder named has no `stacks` in it.
    """
    if root is not None:
        if not (root / "stacks").is_dir():
            raise UserError(f"{root} is no project: it has no folder 'stacks'")
        return Project(root)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "stacks" / "models.toml").is_file():
            return Project(folder)
    # In a checkout (an editable install) the shipped ones are those of the checkout itself.
    return Project(_SHIPPED if _SHIPPED.is_dir() else _PACKAGE.parent)
