"""The replay model: it generates the ids that one writes into it, whatever it is asked.

With all token embeddings, attention and feed-forward weights zero, what the network computes at a position rests on the
position's embedding alone. Position p of the script has a direction of its own; the output row of a token is the sum of
the directions of the positions where it is to come. So any ids can follow each other, repeated ones too.

llama.cpp maps a model file into memory. What is written into the file while a server has it open is what the server
computes with next, so one server replays any number of scripts without being started again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.models.gguf import read_model_file
from harness.probes.file import vocabulary_size, write_probe
from harness.probes.gpt2 import NAME, skeleton
from harness.values import ModelRef

LONGEST = 255
"""The most ids of a script, where nothing else is said."""
_WEIGHT = 4.0
"""Makes the scripted id lead by 4 x the root of the width, at least 64 nats, which no sampling setting turns."""


def write_replay(model: ModelRef, path: Path, context: int, longest: int = LONGEST) -> dict[str, int]:
    """Write a replay model without a script, and return where each tensor's data begins in the file.

    Raises:
        ModelFileError: the model's file is damaged.
    """
    # One direction for each position of a script, and one for every position outside of it.
    values, tensors = skeleton(longest + 1, context, vocabulary_size(model.path))
    return write_probe(path, model.path, model.chat_template, values, tensors)


class ReplayModel:
    """A replay model in a file.

    Args:
        model: The model whose vocabulary and template it has.
        path: Where to write it.
        context: The most positions of prompt and script together.
        longest: The most ids of a script; an odd number of at least 255.

    Raises:
        ModelFileError: the model's file is damaged.
    """

    def __init__(self, model: ModelRef, path: Path, context: int, longest: int = LONGEST) -> None:
        places = write_replay(model, path, context, longest)
        size = vocabulary_size(model.path)
        self._attach(path, context, longest, size, places["output.weight"], places["position_embd.weight"])

    @classmethod
    def existing(cls, path: Path) -> Self:
        """Open a replay model that a server has mapped already. It is kept on exit, with its last script.

        Raises:
            ModelFileError: the file is missing or damaged.
            UserError: it is no replay model, or cannot be written.
        """
        found = read_model_file(path)
        tensors = {tensor.name: tensor for tensor in found.tensors}
        rows, positions = tensors.get("output.weight"), tensors.get("position_embd.weight")
        probe = found.metadata.get("general.name") == NAME and found.architecture == "gpt2"
        if not probe or rows is None or positions is None or int(rows.shape[0]) <= LONGEST:
            raise UserError(f"{path} is no replay model", "name the file that was written as one")
        made = cls.__new__(cls)
        try:
            longest, size = int(rows.shape[0]) - 1, int(rows.shape[1])
            places = int(rows.data_offset), int(positions.data_offset)
            made._attach(path, int(positions.shape[1]), longest, size, *places)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}") from error
        made._kept = True
        # Rows of an earlier script would join those of the next one.
        data: NDArray[np.float16] = rows.data
        made._written = {int(row) for row in np.flatnonzero(data.any(axis=1))}
        return made

    def _attach(self, path: Path, context: int, longest: int, size: int, rows: int, positions: int) -> None:
        self.path = path
        self._context = context
        self._longest = longest
        self._size = size
        self._rows = rows
        self._positions = positions
        self._written: set[int] = set()
        self._turned = range(context)
        self._kept = False
        self._file = os.open(path, os.O_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self._file)
        if not self._kept:
            self.path.unlink(missing_ok=True)

    def script(self, ids: Sequence[int], after: int) -> None:
        """Make the model generate these ids after a prompt of so many.

        Args:
            ids: What it is to generate, an end token included if it shall end.
            after: The number of ids of the prompt.

        Raises:
            ValueError: the script is longer than the model takes, does not fit the context, or has an id that is none
                of the vocabulary's.
        """
        if len(ids) > self._longest:
            raise ValueError(f"a script has at most {self._longest} ids, not {len(ids)}")
        if not all(0 <= one < self._size for one in ids):
            raise ValueError(f"a script has ids below {self._size}")
        if not 1 <= after <= self._context - len(ids):
            raise ValueError(f"{after} prompt and {len(ids)} scripted ids do not fit {self._context} positions")
        width = self._longest + 1
        outside = np.zeros((len(self._turned), width), dtype=np.float32)
        outside[:, self._longest] = 1
        self._write_positions(self._turned, outside)
        # The last id of the prompt gives the first of the script.
        self._turned = range(after - 1, after - 1 + len(ids))
        self._write_positions(self._turned, np.eye(len(ids), width, dtype=np.float32))
        rows = {token: np.zeros(width, dtype=np.float16) for token in self._written | set(ids)}
        for step, token in enumerate(ids):
            rows[token][step] = _WEIGHT
        for token, row in rows.items():
            os.pwrite(self._file, row.tobytes(), self._rows + token * row.nbytes)
        self._written = set(ids)

    def _write_positions(self, places: range, rows: NDArray[np.float32]) -> None:
        os.pwrite(self._file, rows.tobytes(), self._positions + places.start * (self._longest + 1) * rows.itemsize)
