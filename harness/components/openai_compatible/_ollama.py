"""What Ollama shows beside OpenAI's API.

Sources: docs.ollama.com, "Show model details", "Generate a response", "OpenAI compatibility"; ollama/ollama,
`api/types.go` (`ShowResponse`, `GenerateRequest.Raw`, `Logprob`, `DebugInfo.RenderedTemplate`) and `openai/openai.go`
(`ChatCompletionRequest.DebugRenderOnly`, `ChatCompletion.DebugInfo`). `_debug_render_only` is not in the documentation:
it loads the model, renders, and answers with the prompt instead of a reply.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.components.openai_compatible._read import Row, rows_of
from harness.components.openai_compatible._server import Server
from harness.errors import UserError
from harness.stage import StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Failure, Json

MOST_LOGPROBS = 20

_TAKEN = frozenset(
    {
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "stop",
        "repeat_penalty",
        "presence_penalty",
        "frequency_penalty",
    }
)
_JINJA = "{%"
"""Go templates, in which Ollama's own are written, have no such sign."""


def check(server: Server) -> dict[str, str]:
    """Make sure that the server's model is the one of the goldens, and return what identifies it.

    Raises:
        UserError: it is another one, or the server has none of this name.
    """
    known = server.known
    try:
        shown: Json = server.api.post("/api/show", {"model": server.name, "verbose": True})
    except StageRefusedError as refused:
        raise UserError(
            f"Ollama at {server.root} has no model {server.name!r} ({refused.refusal.line})",
            f"make it from the very file: a Modelfile with 'FROM <file>', then: ollama create {server.name}",
        ) from refused
    except StageUnobservedError as hidden:
        raise UserError(
            f"the server at {server.root} is no Ollama: {hidden}", "leave out the profile, or name the server's own"
        ) from hidden
    info = _objects(shown, "model_info")
    architecture = info.get("general.architecture")
    tokens = info.get("tokenizer.ggml.tokens")
    # Arrays are there only with `verbose`; an older version leaves them empty all the same.
    size = len(tokens) if isinstance(tokens, list) and tokens else info.get(f"{architecture}.vocab_size")
    template = shown.get("template")
    jinja = template if isinstance(template, str) and _JINJA in template else None
    pairs = (
        ("architecture", known.architecture, architecture),
        ("vocabulary", known.vocabulary.size, size),
        ("number of weights", known.parameters, info.get("general.parameter_count")),
        ("template", known.chat_template, jinja),
    )
    for what, wanted, found in pairs:
        if found is not None and found != wanted:
            values = "" if what == "template" else f" ({found}, not {wanted})"
            raise UserError(
                f"the model {server.name!r} of Ollama at {server.root} is not the one of the goldens: "
                f"another {what}{values}",
                "make it from the very file, or record goldens for the one that it is",
            )
    details = _objects(shown, "details")
    return {
        "ollama": str(_objects(server.api.get("/api/version")).get("version")),
        "quantization": str(details.get("quantization_level")),
        "template source": str(shown.get("template_source", "jinja" if jinja else "not shown")),
        "parameters": " ".join(str(shown.get("parameters", "")).split()),
    }


def rendered(server: Server, body: Mapping[str, Any]) -> str:
    """Return the prompt that the chat route makes of a body.

    Raises:
        StageUnobservedError: this version does not show it.
    """
    # A version that does not know the field answers; it then shall not do so at length.
    answer = server.chat({**body, "max_tokens": 1, "_debug_render_only": True})
    text = _objects(answer, "_debug_info").get("rendered_template")
    if not isinstance(text, str):
        raise StageUnobservedError("this version of Ollama does not know _debug_render_only, so it hides its prompt")
    return text


def generated(server: Server, text: str, settings: Mapping[str, Any], limit: int) -> tuple[int | None, list[Row], Any]:
    """Return how many ids a text has, and what is generated after it without a template (`raw`), and why that ends."""
    options = {name: value for name, value in settings.items() if name in _TAKEN}
    answer: Json = server.api.post(
        "/api/generate",
        {
            "model": server.name,
            "prompt": text,
            "raw": True,
            "stream": False,
            "logprobs": True,
            "top_logprobs": MOST_LOGPROBS,
            "options": {**options, "num_predict": limit},
        },
    )
    count = _objects(answer).get("prompt_eval_count")
    rows = rows_of(answer.get("logprobs"), server.known.vocabulary)
    return (count if isinstance(count, int) else None), rows, answer.get("done_reason")


def _objects(answer: Any, *path: str) -> Json:
    """Return an object inside an answer, empty where there is none."""
    if not isinstance(answer, dict):
        raise StageFailedError(Failure(reason="broken", message="the answer is no object"))
    found: Json = answer
    for name in path:
        found = found[name] if isinstance(found.get(name), dict) else {}
    return found
