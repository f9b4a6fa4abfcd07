"""Where the stacks, cases and goldens of a run are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError

_PACKAGE = Path(__file__).parents[1]
_SHIPPED = _PACKAGE / "_bundled"


@dataclass(frozen=True)
class Project:
    """A folder with `stacks/` and `golden/` in it, and further ones below it: what an upper one has wins.

    What is written goes into the first.

    Attributes:
        root: The first folder.
        below: The folders that add what the first has not.
    """

    root: Path
    below: tuple[Path, ...] = ()

    @property
    def stacks(self) -> Path:
        """The first folder's stack definitions, one TOML file each, and `models.toml`."""
        return self.root / "stacks"

    @property
    def golden(self) -> Path:
        """The first folder's cases and goldens."""
        return self.root / "golden"

    @property
    def layers(self) -> tuple[Project, ...]:
        """Every folder as a project of its own, the first one first."""
        return tuple(Project(root) for root in (self.root, *self.below))

    @property
    def is_shipped(self) -> bool:
        """Whether the first folder is inside the installed package, where nobody writes."""
        return self.root.resolve() == _SHIPPED.resolve()

    def above(self, root: Path) -> Project:
        """Return the project in which a folder comes before these."""
        return Project(root, (self.root, *self.below))


def find_project(root: Path | None = None) -> Project:
    """Return the project to work in, above the one that is shipped.

    It is the folder named, else the nearest one upwards, else the one that is shipped alone.

    Raises:
        UserError: the folder named has no `stacks` in it.
    """
    if root is not None:
        if not (root / "stacks").is_dir():
            raise UserError(f"{root} is no project: it has no folder 'stacks'")
        return _over_the_shipped(root)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "stacks" / "models.toml").is_file():
            return _over_the_shipped(folder)
    return Project(_shipped())


def _over_the_shipped(root: Path) -> Project:
    shipped = _shipped()
    return Project(root) if root.resolve() == shipped.resolve() else Project(root, (shipped,))


def _shipped() -> Path:
    # In a checkout (an editable install) the shipped ones are those of the checkout itself.
    return _SHIPPED if _SHIPPED.is_dir() else _PACKAGE.parent
