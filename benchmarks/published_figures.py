"""Write what our documents say of the harness measured on itself: figures out of published results, and the catalogue.

The results are written by `harness attribute STACK --out FOLDER --publish docs/studies/attribution.json`. Each block
stands between two comments, and what stands around it is left as it is.

    python -m benchmarks.published_figures
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.attribution.published import load_published
from harness.defects.catalogue import catalogue
from harness.project.files import write_file
from harness.report.attribution.readme import CATALOGUE, FIGURES, TABLES, catalogue_table, figures, replaced, tables

ROOT = Path(__file__).parents[1]
RESULTS = Path("docs", "studies", "attribution.json")


def blocks(root: Path) -> Iterator[tuple[Path, str, str]]:
    """Return each document with the name of a block in it and what must stand there.

    Args:
        root: The folder of the documents; figures are left out where it holds no results.

    Raises:
        UserError: the results are damaged.
    """
    yield root / "docs" / "defects.md", CATALOGUE, catalogue_table(catalogue().values())
    if (root / RESULTS).exists():
        stacks = load_published(root / RESULTS).stacks
        yield root / "README.md", FIGURES, figures(stacks)
        yield root / "docs" / "studies" / "attribution.md", TABLES, tables(stacks)


def main() -> None:
    """Write every block."""
    for path, name, block in blocks(ROOT):
        before = path.read_text(encoding="utf-8")
        after = replaced(before, name, block)
        if after != before:
            write_file(path, after.encode("utf-8"))
        print(f"{path.relative_to(ROOT)}: {name}: {'as it was' if after == before else 'written'}")


if __name__ == "__main__":
    main()
