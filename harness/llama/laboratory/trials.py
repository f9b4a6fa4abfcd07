"""The child process in which an engine's invariants are tried."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from llama_cpp import llama_cpp as low_level

from harness.llama.laboratory.comparing import Choice, claim
from harness.llama.laboratory.engine import Engine
from harness.llama.laboratory.invariants import invariants_named

_CONTEXT, _SEQUENCES = 1024, 4


class Trials:
    """One engine, tried again and again.

    One thread, except where a property is about threads: llama.cpp's threads wait for each other by spinning, which on
    a shared machine takes longer than the work.

    Args:
        path: The GGUF.

    Raises:
        OSError: llama.cpp does not load it.
    """

    def __init__(self, path: str) -> None:
        self.engine = Engine(path, n_ctx=_CONTEXT, n_seq_max=_SEQUENCES, threads=1)

    def facts(self) -> dict[str, Any]:
        """Return what inputs are made of: the number of ids, and which of them are control tokens."""
        ids = range(self.engine.n_vocab)
        control = [i for i in ids if low_level.llama_vocab_is_control(self.engine.vocabulary, i)]
        return {"n_vocab": self.engine.n_vocab, "control": control}

    def attempt(self, invariant: str, ids: Sequence[int], choice: int) -> list[dict[str, Any]]:
        """Try an invariant and return what was seen, `Seen` as plain data. What the engine refuses is wrong."""
        (asked,) = invariants_named([invariant])
        function = getattr(importlib.import_module(asked.module), asked.name)
        seen = []
        try:
            seen += [one.model_dump() for one in function(self.engine, ids, Choice(choice))]
        except (RuntimeError, OSError) as refused:
            seen.append(claim("the engine does what it is asked", str(refused)).model_dump())
        return seen
