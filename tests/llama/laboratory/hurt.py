"""Engines that are hurt, served in a child process or used in this one."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import numpy as np

from harness.llama.ggml import Watcher, data_of, sources
from harness.llama.laboratory.engine import Engine
from harness.llama.laboratory.trials import Trials
from harness.llama.layout import Tensor

LAYER = "l_out-3"


def tokens_of(tensor: Tensor) -> int:
    """How many tokens the micro-batch has whose activations these are, `(1, 1, tokens, features)`."""
    return data_of(tensor).shape[2]


def after_layer(edit) -> Watcher:
    """A watcher that edits what a layer puts out."""
    return Watcher(lambda name, op: name == LAYER, after=edit)


def batch_sensitive(tokens: int) -> Watcher:
    """Activations of micro-batches of any other size than this one change their sign."""

    def edit(tensor: Tensor) -> None:
        if tokens_of(tensor) != tokens:
            data_of(tensor)[...] *= -1

    return after_layer(edit)


def not_a_number() -> Watcher:
    """A NaN in the activations of every token."""

    def edit(tensor: Tensor) -> None:
        data_of(tensor)[..., 0] = np.nan

    return after_layer(edit)


def positions_end_at(last: int) -> Watcher:
    """Rotary positions beyond one are taken for 0."""

    def edit(tensor: Tensor) -> None:
        positions = data_of(sources(tensor)[1])
        positions[positions >= last] = 0

    return Watcher(lambda name, op: op == "ROPE", before=edit)


@contextlib.contextmanager
def misconfigured(engine: Engine, key: str) -> Iterator[None]:
    """Contexts that are made with this field have their positions scaled besides."""
    real = engine.configure

    def configure(**settings):
        real(**settings, **({"rope_freq_scale": 0.25} if key in settings else {}))

    engine.configure = configure  # type: ignore[method-assign]
    try:
        yield
    finally:
        del engine.configure  # type: ignore[method-assign]


def served(path: str, what: str) -> Trials:
    """Trials of an engine that is hurt whenever a micro-batch has at most three tokens."""
    trials = Trials(path)

    def edit(tensor: Tensor) -> None:
        if tokens_of(tensor) > 3:
            return
        if what == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if what == "hang":
            time.sleep(60)
        data_of(tensor)[...] *= -1

    trials.engine.nodes.watchers.append(after_layer(edit))
    return trials
