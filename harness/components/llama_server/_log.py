"""What llama.cpp writes into its log while it loads a model, of a server that is started here.

No endpoint shows these. The lines are those of `llama_context`, `llama_kv_cache`, `print_info` and `load_tensors`
(llama.cpp, `src/llama-context.cpp`, `src/llama-kv-cache.cpp`, `src/llama-model.cpp`) at the highest verbosity.
"""

from __future__ import annotations

import re

from harness import settings as names
from harness.settings import Scalar, read_scalar

_LINE = re.compile(r"\b(llama_context|llama_kv_cache|print_info|load_tensors): (.*)")
_PAIR = re.compile(r"(\w[\w ]*?)\s+= (\S+)")
_CACHE = re.compile(r"\bK \((\w+)\).*\bV \((\w+)\)")
_LAYER = re.compile(r"layer\s+(\d+) assigned to device (\S+?),")
_NAMES = {
    ("llama_context", "n_ctx"): names.CONTEXT,
    ("llama_context", "freq_base"): names.ROPE_BASE,
    ("llama_context", "freq_scale"): names.ROPE_SCALE,
    ("llama_context", "flash_attn"): names.FLASH,
    ("print_info", "n_swa"): names.WINDOW,
}


def read_log(text: str) -> dict[str, Scalar]:
    """Return what a log says of settings, by their names. Of what it says twice the later holds.

    The first load may be one that only measures.
    """
    found: dict[str, Scalar] = {}
    layers: dict[int, bool] = {}
    for source, said in _LINE.findall(text):
        pair = _PAIR.match(said)
        if pair and (source, pair[1]) in _NAMES:
            found[_NAMES[source, pair[1]]] = read_scalar(pair[2])
        elif source == "llama_kv_cache" and (cache := _CACHE.search(said)):
            found[names.CACHE_K], found[names.CACHE_V] = cache[1], cache[2]
        elif source == "load_tensors" and (layer := _LAYER.match(said)):
            layers[int(layer[1])] = layer[2] != "CPU"
    if layers:
        found[names.LAYERS] = sum(layers.values())
    return found
