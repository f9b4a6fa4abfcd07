"""Small model files to test with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf


def written(path: Path, tensor: float = 1.0, **keys: Any) -> Path:
    """Write a model file of one tensor and these keys, whose dots are double underscores."""
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in {"llama__block_count": 1, "tokenizer__ggml__eos_token_id": 2, **keys}.items():
        add = writer.add_string if isinstance(value, str) else writer.add_uint32
        add(name.replace("__", "."), value)
    writer.add_tensor("output.weight", gguf.np.full(32, tensor, gguf.np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
