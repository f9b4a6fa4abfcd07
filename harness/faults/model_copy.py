"""A copy of a GGUF that a defect edits: its metadata, its vocabulary, the bytes of its tensors."""

from __future__ import annotations

from pathlib import Path


class ModelCopy:
    """A model file that is edited in memory and written once.

    Args:
        path: The file that is copied.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def save(self, path: Path) -> Path:
        """Write the edited file and return where it is."""
        raise NotImplementedError(path)
