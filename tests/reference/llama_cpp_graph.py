"""What llama.cpp computes on the way: named float32 tensors of its graph, read while it runs."""

from __future__ import annotations

import ctypes
from collections.abc import Collection
from pathlib import Path

import numpy as np

_FLOAT32 = 0
_DIMENSIONS = 4


class _Tensor(ctypes.Structure):
    """The head of `struct ggml_tensor`; sizes and strides are innermost first, strides in bytes."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("sizes", ctypes.c_int64 * _DIMENSIONS),
        ("strides", ctypes.c_size_t * _DIMENSIONS),
    )


def llama_cpp_nodes(path: Path, ids: list[int], names: Collection[str], n_ctx: int) -> dict[str, np.ndarray]:
    """Run a fresh sequence in one batch, with one thread, a float32 cache and without flash attention.

    Returns:
        The last tensor of each name, `(positions, features)`; a name that the graph does not have is left out.
    """
    import llama_cpp
    from llama_cpp._ggml import libggml
    from llama_cpp._logger import set_verbose

    libggml.ggml_get_name.restype = ctypes.c_char_p
    libggml.ggml_get_data.restype = ctypes.c_void_p
    for function in (libggml.ggml_get_name, libggml.ggml_get_data):
        function.argtypes = (ctypes.c_void_p,)
    nodes: dict[str, np.ndarray] = {}

    def keep(address: int, ask: bool, _user_data: object) -> bool:
        name = libggml.ggml_get_name(address).decode()
        if ask:
            return name in names
        nodes[name] = _read(_Tensor.from_address(address), libggml.ggml_get_data(address)).reshape(len(ids), -1)
        return True

    params = llama_cpp.llama_context_default_params()
    params.n_ctx = n_ctx
    params.n_threads = params.n_threads_batch = 1
    params.type_k = params.type_v = _FLOAT32
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cb_eval = llama_cpp.ggml_backend_sched_eval_callback(keep)
    set_verbose(False)
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    context = llama_cpp.llama_init_from_model(model, params)
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, True
    status = llama_cpp.llama_decode(context, batch)
    assert status == 0, f"llama_decode returned {status}"
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return nodes


def _read(tensor: _Tensor, data: int) -> np.ndarray:
    assert tensor.type == _FLOAT32
    sizes, strides = tensor.sizes[::-1], tensor.strides[::-1]
    end = sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True)) + 4
    return np.ndarray(tuple(sizes), np.float32, (ctypes.c_char * end).from_address(data), 0, tuple(strides)).copy()
