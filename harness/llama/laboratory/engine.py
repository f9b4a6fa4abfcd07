"""llama.cpp fed by hand, in the process that calls: batches of any rows, every node, weights and cache in reach.

It is meant for a child process (`harness.process.worker`): what is done to it here may abort or hang it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from llama_cpp import llama_cpp as low_level
from numpy.typing import NDArray

from harness.llama.ggml import Nodes, Watcher, sources, tensor_at
from harness.llama.layout import Tensor
from harness.llama.llama_log import log_warnings
from harness.process.owner import as_the_parts

Logits = NDArray[np.float32]
_NO_LOADING_MODE = 0  # llama.h, enum llama_load_mode: pages of our own, which can be written


class Row(NamedTuple):
    """One token of a batch.

    Attributes:
        token: Its id.
        position: Its place in the sequence.
        sequence: The sequence, or several that share it.
    """

    token: int
    position: int
    sequence: int | tuple[int, ...] = 0


class Engine:
    """A model and a context.

    Attributes:
        nodes: Who watches its graph.
        n_vocab: Tokens of the vocabulary.
        n_layer: Layers of the model.
        path: The file.
        vocabulary: llama.cpp's handle of the vocabulary.
        n_ctx: Cells that were asked for; llama.cpp rounds up.
        n_ctx_train: The longest sequence that the model was trained on.
        rotary: Whether positions are rotations.
        cells: Cells of the cache in force.
        flash_attention: Whether attention is computed so.

    Args:
        path: The GGUF.
        n_ctx: Cells of the cache, over all sequences.
        n_seq_max: How many sequences.
        threads: How many threads compute.
        context: Further fields of `llama_context_params`: `n_batch`, `n_ubatch`, `flash_attn_type`, `type_k`, ...
        model: Further fields of `llama_model_params`.

    Raises:
        OSError: llama.cpp does not load it, or makes no such context.
    """

    def __init__(
        self,
        path: str,
        *,
        n_ctx: int = 1024,
        n_seq_max: int = 1,
        threads: int = 2,
        context: Mapping[str, Any] | None = None,
        model: Mapping[str, Any] | None = None,
    ) -> None:
        log_warnings()
        low_level.llama_backend_init()
        self.nodes = Nodes()
        loading = low_level.llama_model_default_params()
        # Blocks as they are in the file, in memory of our own: what a fault edits.
        settings = {"load_mode": _NO_LOADING_MODE, "use_extra_bufts": False, "n_gpu_layers": 0, **(model or {})}
        _set(loading, settings)
        self._model = low_level.llama_model_load_from_file(path.encode(), loading)
        if not self._model:
            raise as_the_parts(OSError(f"llama.cpp does not load {path}"))
        self.path = path
        self.n_ctx = n_ctx
        self._context: Any = None
        self._asked = {
            "n_ctx": n_ctx,
            "n_seq_max": n_seq_max,
            "n_threads": threads,
            "n_threads_batch": threads,
            "n_batch": n_ctx,
            "n_ubatch": n_ctx,
            "kv_unified": True,
            "flash_attn_type": low_level.LLAMA_FLASH_ATTN_TYPE_DISABLED,
            "no_perf": True,
        }
        self.configure(**(context or {}))
        self.vocabulary: Any = low_level.llama_model_get_vocab(self._model)
        self.n_vocab = int(low_level.llama_vocab_n_tokens(self.vocabulary))
        self.n_layer = int(low_level.llama_model_n_layer(self._model))
        self.n_ctx_train = int(low_level.llama_model_n_ctx_train(self._model))
        self.rotary = int(low_level.llama_model_rope_type(self._model)) != low_level.LLAMA_ROPE_TYPE_NONE
        self._batch = low_level.llama_batch_init(n_ctx, 0, n_seq_max)
        self._rows: tuple[Row, ...] = ()

    def configure(self, **settings: Any) -> None:
        """Make a new, empty context with these fields of `llama_context_params` beside those that it was made with.

        Raises:
            OSError: llama.cpp makes no such context.
        """
        parameters = low_level.llama_context_default_params()
        _set(parameters, {**self._asked, **settings})
        parameters.cb_eval = self.nodes.callback
        if self._context is not None:
            low_level.llama_free(self._context)
        self._context = low_level.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise as_the_parts(OSError(f"llama.cpp makes no context with {settings}"))
        self._memory = low_level.llama_get_memory(self._context)
        self.cells = int(low_level.llama_n_ctx(self._context))
        self.flash_attention = parameters.flash_attn_type == low_level.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self._weights: dict[str, Tensor] | None = None
        self._caches: dict[str, Tensor] = {}

    def identity(self) -> dict[str, str]:
        """Return version, processor features and the context's settings."""
        import llama_cpp

        system = low_level.llama_print_system_info().decode("utf-8", errors="replace").strip()
        asked = {name: str(value) for name, value in self._asked.items()}
        return {"llama-cpp-python": str(llama_cpp.__version__), "system": system, **asked}

    @property
    def context(self) -> Any:
        """The `llama_context` in force, for functions that take one; `configure` makes another."""
        return self._context

    def close(self) -> None:
        """Free what it holds."""
        low_level.llama_batch_free(self._batch)
        low_level.llama_free(self._context)
        low_level.llama_model_free(self._model)

    # Feeding

    def feed(self, rows: Sequence[Row], *, only_last: bool = False) -> Logits:
        """Decode a batch and return a copy of every row's logits, `(rows, n_vocab)`.

        Args:
            rows: The batch.
            only_last: Have the logits of the last row alone computed, and its part of the last layer.

        Raises:
            RuntimeError: llama.cpp refuses the batch; the message holds its code.
        """
        batch = self._batch
        batch.n_tokens = len(rows)
        for at, row in enumerate(rows):
            ids = (row.sequence,) if isinstance(row.sequence, int) else row.sequence
            batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.logits[at] = (
                row.token,
                row.position,
                len(ids),
                not only_last or at == len(rows) - 1,
            )
            for place, sequence in enumerate(ids):
                batch.seq_id[at][place] = sequence
        code = low_level.llama_decode(self._context, batch)
        self.nodes.check()
        if code != 0:
            raise as_the_parts(RuntimeError(f"llama_decode returned {code}"))
        address = low_level.llama_get_logits(self._context)
        return np.ctypeslib.as_array(address, shape=(1 if only_last else len(rows), self.n_vocab)).copy()

    def prompt(self, ids: Sequence[int], sequence: int = 0, start: int = 0) -> Logits:
        """Feed ids to one sequence, in batches of what the context takes at once."""
        rows = [Row(token, start + at, sequence) for at, token in enumerate(ids)]
        size = int(low_level.llama_n_batch(self._context))
        return np.concatenate([self.feed(rows[at : at + size]) for at in range(0, len(rows), size)])

    def greedy(self, logits: Logits, steps: int, start: int, sequence: int = 0) -> tuple[list[int], Logits]:
        """Go on from a row of logits: return the ids and the logits that each was chosen from, `(steps, n_vocab)`."""
        ids, rows = [int(logits.argmax())], [logits]
        while len(ids) < steps:
            rows.append(self.feed([Row(ids[-1], start + len(ids) - 1, sequence)])[0])
            ids.append(int(rows[-1].argmax()))
        return ids, np.stack(rows)

    # The cache

    def forget(self, sequence: int = -1, start: int = -1, end: int = -1) -> bool:
        """Remove positions of a sequence, or of all (-1); False where llama.cpp cannot."""
        return bool(low_level.llama_memory_seq_rm(self._memory, sequence, start, end))

    def clear(self) -> None:
        """Empty the cache, its numbers included."""
        low_level.llama_memory_clear(self._memory, True)

    def share(self, source: int, target: int, start: int = -1, end: int = -1) -> None:
        """Let a sequence have positions of another one: the same cells."""
        low_level.llama_memory_seq_cp(self._memory, source, target, start, end)

    def shift(self, sequence: int, start: int, end: int, by: int) -> None:
        """Move positions; the keys are turned accordingly with the next batch."""
        low_level.llama_memory_seq_add(self._memory, sequence, start, end, by)

    def saved(self, sequence: int = 0) -> bytes:
        """Return the state of a sequence."""
        size = low_level.llama_state_seq_get_size(self._context, sequence)
        buffer = (ctypes.c_uint8 * size)()
        written = low_level.llama_state_seq_get_data(self._context, buffer, size, sequence)
        return bytes(buffer[:written])

    def restore(self, state: bytes, sequence: int = 0) -> bool:
        """Set the state of a sequence; False where llama.cpp refuses it."""
        buffer = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        return bool(low_level.llama_state_seq_set_data(self._context, buffer, len(state), sequence))

    # What the graph is made of

    def weights(self) -> Mapping[str, Tensor]:
        """Return the model's tensors by name, as far as a decode uses them. The first call empties the cache."""
        if self._weights is None:
            self._discover()
        assert self._weights is not None
        return self._weights

    def caches(self) -> Mapping[str, Tensor]:
        """Return the cache's tensors by name (`cache_k_l0`, `cache_v_l0`). The first call empties the cache."""
        if self._weights is None:
            self._discover()
        return self._caches

    def _discover(self) -> None:
        """Run one token through and note what its operators read; the cache is empty after that."""
        found: dict[str, Tensor] = {}
        caches: dict[str, Tensor] = {}

        def note(tensor: Tensor) -> None:
            for one in (tensor, *sources(tensor)):
                name = one.name.decode("utf-8", errors="replace")
                if name.endswith((".weight", ".bias")):
                    found[name] = _kept(one)
                base = tensor_at(one.view_src) if one.view_src else one
                if base.name.startswith(b"cache_"):
                    caches[base.name.decode()] = _kept(base)

        with self.nodes.watched(Watcher(lambda name, op: True, before=note)):  # noqa: ARG005
            self.feed([Row(0, 0)])
        self.clear()
        self._weights, self._caches = dict(sorted(found.items())), dict(sorted(caches.items()))


def _kept(tensor: Tensor) -> Tensor:
    """Return a copy of the head of a tensor whose data stay where they are."""
    return Tensor.from_buffer_copy(tensor)


def _set(parameters: Any, settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        if not hasattr(parameters, name):
            raise AttributeError(f"{type(parameters).__name__} has no field {name!r}")
        setattr(parameters, name, value)
