"""Write the tables and the figure of docs/studies/stages.md anew from docs/studies/stages.json."""

from __future__ import annotations

from pathlib import Path

from harness.attribution.size import sizes_of
from harness.attribution.study import load
from harness.checking.noise import load_noise
from harness.errors import UserError
from harness.project.project import Project
from harness.report.attribution.stages import filled, tables_of
from harness.report.attribution.stages_figure import figure_of

ROOT = Path(__file__).parents[1]
STUDIES = ROOT / "docs" / "studies"


def published() -> tuple[str, bytes]:
    """Return the document as it must be, and its figure.

    Raises:
        UserError: the results are missing or damaged, or the document has lost the place of a table.
    """
    study = load(STUDIES / "stages.json")
    first, *_ = study.cases
    noise = load_noise(Project(ROOT), first)
    if noise is None:
        raise UserError(f"no noise was measured of {first!r}")
    sizes = sizes_of(study)
    document = (STUDIES / "stages.md").read_text(encoding="utf-8")
    return filled(document, tables_of(sizes, noise)), figure_of(sizes)


def main() -> None:
    """Write them."""
    document, figure = published()
    (STUDIES / "stages.md").write_text(document, encoding="utf-8")
    (STUDIES / "stages.png").write_bytes(figure)


if __name__ == "__main__":
    main()
