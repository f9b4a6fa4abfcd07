"""What is wrong with a model file by itself: rows of its examination, for a file that nobody has vouched for.

Goldens hold a stack against the file that they were made of; they cannot tell that this file is wrong. Its examination
can, as far as one file contradicts itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harness.checking.compare.outcome import Outcome
from harness.checking.rows import Row
from harness.doctor import Check, examine
from harness.stage import Stage

NO_TEMPLATE: Final = "chat template"
_OF_TEMPLATE: Final = frozenset({NO_TEMPLATE, "template syntax", "generation prompt", "role markers", "turn ending"})
_OF_INFERENCE: Final = frozenset(
    {
        "architecture",
        "hyper-parameters",
        "layers",
        "embedding",
        "attention heads",
        "rope",
        "norm epsilon",
        "tensors",
        "tensor layout",
        "quantization",
        "tensor values",
        "zero tensors",
    }
)


def rows_of_file(path: Path, *, has_template: bool = False) -> tuple[Row, ...]:
    """Return the rows of what a model file contradicts itself in; none where nothing is wrong.

    Args:
        path: The file.
        has_template: Whether a template is given beside it, so that it needs none of its own.

    Raises:
        ModelFileError: the file is damaged.
        MissingPackageError: what reads it is not installed.
    """
    found = examine(path)
    return tuple(_row(path, one) for one in found.checks if _is_wrong(one, has_template=has_template))


def _is_wrong(found: Check, *, has_template: bool) -> bool:
    if found.name in _OF_TEMPLATE and has_template:
        return False
    # For a base model that is as it should be; who asks it to chat needs one.
    return found.status == "bad" or (
        found.name == NO_TEMPLATE and found.status == "warning" and "missing" in found.found
    )


def _row(path: Path, found: Check) -> Row:
    stage = Stage.TOKENIZATION
    if found.name in _OF_TEMPLATE:
        stage = Stage.TEMPLATE
    elif found.name in _OF_INFERENCE:
        stage = Stage.INFERENCE
    return Row(
        of="load",
        name=found.name,
        expected="a file that does not contradict itself",
        found=found.found,
        source=f"the file {path.name} (harness doctor)",
        outcome=Outcome.DIVERGED,
        stage=stage,
        kind="artifact",
        why=f"the file's {found.name}: {found.found}",
        remedy=_TEMPLATE_REMEDY if found.name == NO_TEMPLATE else found.advice,
    )


_TEMPLATE_REMEDY: Final = (
    "take the instruct model's file, or give the template: --template FILE here, llama-server --chat-template-file "
    "FILE, TEMPLATE in Ollama's Modelfile"
)
