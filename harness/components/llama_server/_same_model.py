"""Whether a llama-server that runs already has the model of the goldens, as far as it shows which one it has.

Sources: llama.cpp, `tools/server/README.md`: `GET /props` (`chat_template`), `GET /v1/models` (`data[].meta`:
`n_vocab`, `n_params`, `size`, the sum of the tensors' bytes).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.errors import UserError
from harness.models.gguf import read_model_file
from harness.stage import StageRefusedError, StageUnobservedError
from harness.values import Json, ModelRef

_REMEDY = "start it with the very file, and with --chat-template-file where models.toml gives a template"


def check_model(model: ModelRef, url: str, get: Callable[[str], Any]) -> None:
    """Make sure that a server can have a model.

    Args:
        model: The model of the goldens.
        url: Where the server is, for the error.
        get: Returns the JSON at a path of the server.

    Raises:
        UserError: it has another one.
    """
    meta, template = _meta(get), shown(get, "/props").get("chat_template")
    if not meta and template is None:
        return
    found = read_model_file(model.path)
    own = model.chat_template or found.metadata.get("tokenizer.chat_template")
    pairs = (
        ("vocabulary", len(found.metadata.get("tokenizer.ggml.tokens", ())), meta.get("n_vocab")),
        ("number of weights", sum(int(tensor.n_elements) for tensor in found.tensors), meta.get("n_params")),
        ("size", sum(int(tensor.n_bytes) for tensor in found.tensors), meta.get("size")),
        ("template", own, template),
    )
    for what, wanted, has in pairs:
        if has is not None and wanted is not None and has != wanted:
            values = "" if what == "template" else f": {has:,}, not {wanted:,}"
            raise UserError(
                f"the llama-server at {url} has not the model {model.name!r}: another {what}{values}", _REMEDY
            )


def _meta(get: Callable[[str], Any]) -> Json:
    listed = shown(get, "/v1/models").get("data")
    first = listed[0] if isinstance(listed, list) and listed else None
    meta = first.get("meta") if isinstance(first, dict) else None
    return {name: one for name, one in meta.items() if isinstance(one, int)} if isinstance(meta, dict) else {}


def shown(get: Callable[[str], Any], path: str) -> Json:
    """Return what a server shows; nothing where it is told not to (`--no-props`, a proxy before it)."""
    try:
        answer = get(path)
    except (StageRefusedError, StageUnobservedError):
        return {}
    return answer if isinstance(answer, dict) else {}
