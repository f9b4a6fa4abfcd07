"""What a child process is doing, in memory that outlives it: a page of a file that both processes map."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_HEAD = struct.Struct("<QQ")
_BYTES = 1 << 20


class Journal:
    """The count of texts tried, and the one that is being tried.

    Args:
        path: The file; made where it does not exist.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_BYTES))
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), _BYTES)

    def note(self, count: int, text: str) -> None:
        """Note what is tried next. A text that is longer than the page is cut."""
        data = text.encode("utf-8", errors="surrogatepass")[: _BYTES - _HEAD.size]
        _HEAD.pack_into(self._page, 0, count, len(data))
        self._page[_HEAD.size : _HEAD.size + len(data)] = data

    @property
    def count(self) -> int:
        """How many texts were tried before."""
        return int(_HEAD.unpack_from(self._page)[0])

    @property
    def text(self) -> str:
        """The text that was tried last."""
        length = _HEAD.unpack_from(self._page)[1]
        return self._page[_HEAD.size : _HEAD.size + length].decode("utf-8", errors="surrogatepass")

    def close(self) -> None:
        """Let the page go; the file stays."""
        self._page.close()
