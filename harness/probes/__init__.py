"""Model files that make black boxes transparent: tiny networks around a real model's vocabulary and template.

Loaded into any server of the llama.cpp family, a *replay* model makes it generate exactly the ids that one wants, so
that what it makes of them is seen; a *fingerprint* model gives first-token numbers that tell which ids it was fed.
"""

from __future__ import annotations

from pathlib import Path

from harness.errors import UserError
from harness.probes.fingerprint import Fingerprint
from harness.probes.replay import write_replay
from harness.values import ModelRef


def write_probes(model: ModelRef, folder: Path, context: int) -> tuple[Path, Path]:
    """Write `replay.gguf` and `fingerprint.gguf` for a server that is started by hand, and return where they are.

    Args:
        model: The model whose vocabulary and template they have.
        folder: Where; it is made if need be.
        context: The most positions.

    Raises:
        ModelFileError: the model's file is damaged.
        UserError: the folder cannot be written.
    """
    replay, fingerprint = folder / "replay.gguf", folder / "fingerprint.gguf"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_replay(model, replay, context)
        Fingerprint(model, context).write(fingerprint)
    except OSError as error:
        raise UserError(f"the probes cannot be written to {folder}: {error.strerror}") from error
    return replay, fingerprint
