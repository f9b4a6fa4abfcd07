"""What two model files differ in: keys of their metadata, and tensors by the bytes that they have."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

from harness.models.gguf import raw_entries, tensor_places

_KEYS, _TENSORS = 6, 3
"""How many are named."""
_SAYS_LITTLE = "general."
"""How keys begin that say what a file is called and where it comes from; they are named last."""


@dataclass(frozen=True)
class FileDifference:
    """What is not the same in two files.

    Attributes:
        keys: Keys of the metadata that one of them lacks, or that have another value.
        tensors: Tensors that one of them lacks, or that have another shape, type or other bytes.
    """

    keys: tuple[str, ...]
    tensors: tuple[str, ...]

    def describe(self) -> str:
        """Return it in a few words."""
        keys = _listed("key", "keys", self.keys, _KEYS)
        parts = [*keys, *_listed("tensor", "tensors", self.tensors, _TENSORS)]
        return f"it differs in {' and '.join(parts)}" if parts else "it says the same in other bytes"


def difference(one: Path, other: Path) -> FileDifference:
    """Return what two files differ in.

    Raises:
        ModelFileError: one of them is no readable GGUF.
        MissingPackageError: the package `gguf` is not installed.
    """
    entries, others = raw_entries(one), raw_entries(other)
    keys = [key for key in dict.fromkeys((*entries, *others)) if entries.get(key) != others.get(key)]
    places, their = tensor_places(one), tensor_places(other)
    names = [name for name in dict.fromkeys((*places, *their)) if name not in places or name not in their]
    with _mapped(one) as left, _mapped(other) as right:
        for name in places.keys() & their.keys():
            a, b = places[name], their[name]
            same = (a.dimensions, a.type) == (b.dimensions, b.type)
            if not same or left[a.begin : a.begin + a.size] != right[b.begin : b.begin + b.size]:
                names.append(name)
    order = [*places, *(name for name in their if name not in places)]
    keys.sort(key=lambda key: key.startswith(_SAYS_LITTLE))
    return FileDifference(tuple(keys), tuple(name for name in order if name in names))


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _listed(one: str, several: str, names: tuple[str, ...], most: int) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return [f"the {one if len(names) == 1 else several} {', '.join(names[:most])}{more}"]
