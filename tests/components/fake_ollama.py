"""A server in the shapes of Ollama's API (docs.ollama.com; ollama/ollama `api/types.go`, `openai/openai.go`).

Behind it: the reference tokenizer over the real vocabulary, a ChatML template, and three small models. `main` and
`fingerprint` are networks that NumPy computes; `replay` computes with the file on the disk, as a server does that has
it mapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from harness.models.gguf import ModelFile, read_model_file
from harness.probes.fingerprint import Fingerprint
from harness.reference.tokenizer import ReferenceTokenizer
from harness.values import ModelRef
from tests.wire.servers import Asked, Fake, Handler, event, serving

CONTEXT = 2048
MAIN_CONTEXT = 1024
"""Makes the main model another network than the fingerprint model: all draws after the positions differ."""


class Engine:
    """What the fake server computes.

    Args:
        model: The model that it has.
        file: That model's file, read.
        replay: The file of the replay model.
    """

    def __init__(self, model: ModelRef, file: ModelFile, replay: Path) -> None:
        self.file = file
        self.tokenizer = ReferenceTokenizer.from_model_file(file)
        self._networks = {"main": Fingerprint(model, MAIN_CONTEXT), "fingerprint": Fingerprint(model, CONTEXT)}
        tensors = {tensor.name: tensor for tensor in read_model_file(replay).tensors}
        self._rows = _mapped(replay, tensors["output.weight"], np.float16)
        self._positions = _mapped(replay, tensors["position_embd.weight"], np.float32)

    def render(self, messages: Sequence[Any]) -> str:
        turns = [f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in messages]
        return "".join(turns) + "<|im_start|>assistant\n"

    def tokenize(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def numbers(self, name: str, ids: Sequence[int]) -> dict[int, float]:
        """The likeliest next ids with their log-probabilities."""
        if name != "replay":
            return self._networks[name].logprobs(ids, 20)
        logits = self._rows.astype(np.float32) @ self._positions[len(ids) - 1]
        best = np.argsort(-logits, kind="stable")[:20]
        return {int(one): float(logits[one] - logits[best[0]]) for one in best}

    def generate(self, name: str, ids: list[int], limit: int) -> tuple[list[int], list[dict[int, float]], str]:
        """Greedy; the end token is not among what comes back."""
        made: list[int] = []
        rows = []
        while len(made) < limit:
            row = self.numbers(name, [*ids, *made])
            best = max(row, key=lambda one: row[one])
            if best == self.tokenizer.eos_id:
                return made, rows, "stop"
            made.append(best)
            rows.append(row)
        return made, rows, "length"

    def logprobs(self, made: Sequence[int], rows: Sequence[dict[int, float]], top: int) -> list[Any]:
        def one(token: int, number: float) -> dict[str, Any]:
            piece = self.tokenizer.piece(token)
            return {"token": piece.decode("utf-8", "replace"), "logprob": number, "bytes": list(piece)}

        return [
            {**one(token, row[token]), "top_logprobs": [one(*pair) for pair in list(row.items())[:top]]}
            for token, row in zip(made, rows, strict=True)
        ]

    def text(self, ids: Sequence[int]) -> str:
        return b"".join(self.tokenizer.piece(one) for one in ids).decode("utf-8", "replace")


def _mapped(path: Path, tensor: Any, kind: type) -> Any:
    shape = (int(tensor.shape[1]), int(tensor.shape[0]))
    return np.memmap(path, dtype=kind, mode="r", offset=int(tensor.data_offset), shape=shape)


class Ollama:
    """Answers as Ollama does. A test changes `show`, or turns what an older version lacks off.

    Args:
        engine: What it computes with.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        metadata = engine.file.metadata
        self.renders = True
        self.running: Any = []
        self.show: dict[str, Any] = {
            "template": "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}",
            "parameters": 'stop                           "<|im_end|>"',
            "details": {"format": "gguf", "family": "llama", "quantization_level": "Q4_1"},
            "model_info": {
                "general.architecture": "llama",
                "general.parameter_count": sum(int(tensor.n_elements) for tensor in engine.file.tensors),
                "tokenizer.ggml.tokens": metadata["tokenizer.ggml.tokens"],
            },
        }

    def __call__(self, handler: Handler, asked: Asked) -> None:
        routes: dict[str, Callable[[Any], Any]] = {
            "/api/version": lambda _: {"version": "0.99.0"},
            "/api/show": lambda _: self.show,
            "/api/ps": lambda _: {"models": self.running},
            "/api/generate": self._generate,
            "/v1/models": lambda _: {"object": "list", "data": [{"id": "main", "object": "model"}]},
            "/v1/chat/completions": self._chat,
            "/v1/completions": self._complete,
        }
        body = asked.body or {}
        if asked.path not in routes:
            handler.whole(b"404 page not found", 404, "text/plain")
        elif body.get("model", "main") not in ("main", "fingerprint", "replay"):
            handler.json({"error": f"model '{body['model']}' not found"}, 404)
        else:
            answer = routes[asked.path](body)
            if body.get("stream") and "choices" in answer:
                handler.whole(self._streamed(answer), kind="text/event-stream")
            else:
                handler.json(answer)

    def _generate(self, body: Any) -> Any:
        assert body["raw"] is True
        assert body["stream"] is False
        ids = self.engine.tokenize(body["prompt"])
        made, rows, reason = self.engine.generate(body["model"], ids, body["options"]["num_predict"])
        return {
            "model": body["model"],
            "response": self.engine.text(made),
            "done": True,
            "done_reason": reason,
            "prompt_eval_count": len(ids),
            "eval_count": len(made),
            "logprobs": self.engine.logprobs(made, rows, body["top_logprobs"]) if body.get("logprobs") else None,
        }

    def _chat(self, body: Any) -> Any:
        prompt = self.engine.render(body["messages"])
        made: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"]}
        if body.get("_debug_render_only") and self.renders:
            choice = {"index": 0, "message": {"role": "", "content": ""}, "finish_reason": None}
            return {**made, "choices": [choice], "_debug_info": {"rendered_template": prompt}}
        return {**made, **self._answered(body, prompt)}

    def _complete(self, body: Any) -> Any:
        if not isinstance(body["prompt"], str):
            return {"error": {"message": "json: cannot unmarshal array into Go struct field .prompt of type string"}}
        # Ollama's /v1/completions goes through the template.
        found = self._answered(body, self.engine.render([{"role": "user", "content": body["prompt"]}]))
        choice = found["choices"][0]
        return {**found, "choices": [{"index": 0, "text": choice["message"]["content"], "finish_reason": "stop"}]}

    def _answered(self, body: Any, prompt: str) -> Any:
        ids = self.engine.tokenize(prompt)
        made, rows, reason = self.engine.generate(body["model"], ids, body.get("max_tokens") or 64)
        message = {"role": "assistant", "content": self.engine.text(made)}
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": reason}
        if body.get("logprobs") is True:
            choice["logprobs"] = {"content": self.engine.logprobs(made, rows, min(body.get("top_logprobs", 0), 20))}
        return {"choices": [choice], "usage": {"prompt_tokens": len(ids), "completion_tokens": len(made)}}

    @staticmethod
    def _streamed(answer: Any) -> bytes:
        choice = answer["choices"][0]
        first = {"index": 0, "delta": choice["message"], "finish_reason": None}
        last = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": choice["finish_reason"]}
        if "logprobs" in choice:
            first["logprobs"] = choice["logprobs"]
        made = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": answer["model"]}
        return b"".join(event({**made, "choices": [one]}) for one in (first, last)) + event("[DONE]")


@contextmanager
def ollama(engine: Engine) -> Iterator[tuple[Fake, Ollama]]:
    """Run a fake Ollama."""
    answers = Ollama(engine)
    with serving(answers) as fake:
        yield fake, answers
