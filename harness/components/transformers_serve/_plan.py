"""What one call to the server replaces, and what its taps see of it."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import time_machine


@dataclasses.dataclass
class Plan:
    """One call.

    Attributes:
        clock: The time that the template sees; None leaves the machine's.
        prompt: Stands in for the rendered text; the template is then not rendered.
        ids: Stand in for the prompt's ids.
        forced: What follows at each position, whatever is chosen there.
        ends: Generation ends before it begins.
        text: The rendered text.
        fed: The ids that the model was fed.
        config: The generation's settings.
        logits: The model's own, one row a position.
        chosen: What is likeliest once the settings have been applied, at each position.
        out: The ids generated.
        error: What ended the call.
    """

    clock: str | None = None
    prompt: str | None = None
    ids: Sequence[int] | None = None
    forced: Sequence[int] | None = None
    ends: bool = False

    text: str | None = None
    fed: list[int] | None = None
    config: Any = None
    logits: list[np.ndarray[Any, Any]] = dataclasses.field(default_factory=list)
    chosen: list[int] = dataclasses.field(default_factory=list)
    out: list[int] | None = None
    error: Exception | None = None
    over: threading.Event = dataclasses.field(default_factory=threading.Event)
    begun: bool = False

    def wait(self) -> None:
        """Wait until the model has ended; the last event of a stream is sent before that."""
        if self.begun:
            self.over.wait()

    def finish(self, error: Exception | None = None) -> None:
        """Note that the call is over."""
        self.error = self.error or error
        self.over.set()

    def pinned(self) -> Any:
        """Return the plan's clock as a context. A naive time is local, so that a template prints the same everywhere.

        It is held while the template renders only: a server's event loop needs a clock that goes.
        """
        if self.clock is None:
            return contextlib.nullcontext()
        when = datetime.datetime.fromisoformat(self.clock)
        return time_machine.travel(when.astimezone() if when.tzinfo is None else when, tick=False)
