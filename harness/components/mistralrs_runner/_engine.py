"""The child's side: `mistralrs.Runner`, once as a program has it and once with a template that passes text through.

The package shows neither its prompt nor ids. Asked for log-probabilities it shows what it chose and the likeliest ids
at each position; the second runner shows the same of any text, which makes the two comparable.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import mistralrs
import numpy as np

from harness.components.mistralrs_runner import _candidates
from harness.process.owner import is_the_parts, the_parts_own

TOP = 256
"""How many log-probabilities are asked for at a position."""
_VERBATIM = "{{ messages[0]['content'] }}"
_NAMES = {"stop": "stop_seqs", "tools": "tool_schemas", "n": "n_choices"}
_CHOICES = {"auto": mistralrs.ToolChoice.Auto, "none": mistralrs.ToolChoice.NoTools}
_SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown"}
_DTYPES = {"auto": "Auto", "f32": "F32", "f16": "F16", "bf16": "BF16"}


class Engine:
    """Two runners around one file.

    Args:
        path: The GGUF.
        chat_template: A template to use instead of the file's own, passed as programs pass it: `jinja_explicit`.
        dtype: The type of activations.
        prefix_cache_n: How many prompts a runner remembers; None leaves its own default.
    """

    def __init__(self, path: str, chat_template: str | None, dtype: str, prefix_cache_n: int | None) -> None:
        self._path = Path(path)
        self._dtype = dtype
        self._more = {} if prefix_cache_n is None else {"prefix_cache_n": prefix_cache_n}
        self._read_file(chat_template)
        self._chat_runner = self._runner(chat_template)
        self._plain_runner: Any = None
        self._firsts: dict[str, dict[str, Any]] = {}

    # What the parent calls

    def identity(self) -> dict[str, str]:
        """Return the version and the settings."""
        return {
            "mistralrs": importlib.metadata.version("mistralrs"),
            "dtype": self._dtype,
            "cache": "f32" if os.environ.get("MISTRALRS_CPU_KV_F32") == "1" else "f16",
            "threads": os.environ.get("RAYON_NUM_THREADS", "its own default"),
            "prefix_cache_n": str(self._more.get("prefix_cache_n", "its own default")),
            "max_sequence_length": str(self._chat_runner.max_sequence_length()),
        }

    def accepts(self, body: Mapping[str, Any]) -> None:
        """Make a `ChatCompletionRequest` of a body. What it has no argument for it refuses itself."""
        self._request(self._chat_runner, body)

    def chat(self, body: Mapping[str, Any], stream: bool) -> dict[str, Any]:
        """Make the call as a program does, with log-probabilities asked for."""
        at = "request"
        try:
            request = self._request(self._chat_runner, body, stream=stream, logprobs=True, top_logprobs=TOP)
            at = "call"
            with the_parts_own():
                made = self._chat_runner.send_chat_completion_request(request)
                chunks = list(made) if stream else None
        except Exception as error:
            if not is_the_parts(error):
                raise
            return {"at": at, "error": _described(error)}
        if chunks is None:
            return {"answer": _whole(made), "rows": self._rows(made.choices[0].logprobs.content)}
        rows = [one for chunk in chunks for one in (choice.logprobs for choice in chunk.choices) if one is not None]
        return {"answer": [_chunk(chunk) for chunk in chunks], "rows": self._rows(rows)}

    def go_on(self, text: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Feed a text as it is and return the rows of what follows; a first row alone is remembered."""
        if settings.get("max_tokens") == 1 and text in self._firsts:
            return self._firsts[text]
        if self._plain_runner is None:
            self._plain_runner = self._runner(_VERBATIM)
        body = {"messages": [{"role": "user", "content": text}], **settings}
        request = self._request(self._plain_runner, body, logprobs=True, top_logprobs=TOP)
        with the_parts_own():
            made = self._plain_runner.send_chat_completion_request(request)
        choice = made.choices[0]
        found = {"rows": self._rows(choice.logprobs.content), "finish": choice.finish_reason}
        self._firsts[text] = {"rows": _head(found["rows"]), "finish": "length"}
        return found

    def candidates(
        self, messages: Sequence[Any], tools: Sequence[Any] | None, variables: Mapping[str, Any]
    ) -> list[str]:
        """Return the texts that the chat route may have rendered of these messages."""
        return _candidates.candidates(self._template, self._special_texts, messages, tools, variables)

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text."""
        with the_parts_own():
            ids: list[int] = self._chat_runner.tokenize_text(text, True, None)
        return ids

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of ids, control tokens included."""
        with the_parts_own():
            return str(self._chat_runner.detokenize_text(list(ids), False))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the text of each id, for a reader."""
        return [self.text([one]) for one in ids]

    def ends(self) -> list[int]:
        """Return the ids that the file names as ends of an answer."""
        return self._ends

    # The runners

    def _runner(self, template: str | None) -> Any:
        folder, name = str(self._path.parent), self._path.name
        kind = getattr(mistralrs.ModelDType, _DTYPES[self._dtype])
        which = mistralrs.Which.GGUF(quantized_model_id=folder, quantized_filename=name, dtype=kind)
        given = {"which": which, "token_source": "none", **self._more}
        if template is None:
            with the_parts_own():
                return mistralrs.Runner(**given)
        with tempfile.NamedTemporaryFile("w", suffix=".jinja", encoding="utf-8", newline="") as file:
            file.write(template)
            file.flush()
            with the_parts_own():
                return mistralrs.Runner(jinja_explicit=file.name, **given)

    def _request(self, runner: Any, body: Mapping[str, Any], **more: Any) -> Any:
        arguments = {_NAMES.get(name, name): value for name, value in body.items()}
        arguments |= arguments.pop("chat_template_kwargs", {})
        if isinstance(arguments.get("stop_seqs"), str):
            arguments["stop_seqs"] = [arguments["stop_seqs"]]
        if "tool_schemas" in arguments:
            arguments["tool_schemas"] = [json.dumps(tool, ensure_ascii=False) for tool in arguments["tool_schemas"]]
        if isinstance(arguments.get("tool_choice"), str):
            arguments["tool_choice"] = _CHOICES.get(arguments["tool_choice"], arguments["tool_choice"])
        with the_parts_own():
            return mistralrs.ChatCompletionRequest(model=runner.list_models()[0], **arguments, **more)

    def _rows(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Return rows of log-probabilities as arrays, likeliest first, and what was chosen at each."""
        width = min((len(row.top_logprobs) for row in rows), default=0)
        tops = [row.top_logprobs[:width] for row in rows]
        return {
            "chosen": [self._chosen(row) for row in rows],
            "ids": np.array([[one.token for one in top] for top in tops], dtype=np.int32).reshape(len(rows), width),
            "logprobs": np.array([[one.logprob for one in top] for top in tops], dtype=np.float32).reshape(
                len(rows), width
            ),
        }

    def _chosen(self, row: Any) -> int:
        """Return the id of a row, of which only the text and the log-probability are shown; -1 where several fit."""
        fitting = [one.token for one in row.top_logprobs if one.logprob == row.logprob]
        if len(fitting) > 1:
            fitting = [one for one in fitting if self.text([one]) == row.token]
        return int(fitting[0]) if len(fitting) == 1 else -1

    def _read_file(self, chat_template: str | None) -> None:
        fields = gguf.GGUFReader(str(self._path)).fields

        def value(name: str) -> Any:
            return fields[name].contents() if name in fields else None

        self._template = chat_template if chat_template is not None else str(value("tokenizer.chat_template"))
        ids = {name: value(f"tokenizer.ggml.{role}_token_id") for name, role in _SPECIAL.items()}
        tokens = fields["tokenizer.ggml.tokens"]
        self._special_texts = {name: tokens.contents(one) for name, one in ids.items() if one is not None}
        ends = (value("tokenizer.ggml.eos_token_id"), value("tokenizer.ggml.eot_token_id"))
        self._ends = sorted({int(one) for one in ends if one is not None})


def _head(rows: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[:1] for name, values in rows.items()}


def _described(error: Exception) -> dict[str, str]:
    return {"error": type(error).__name__, "message": str(error)}


def _whole(made: Any) -> dict[str, Any]:
    """Return a response as OpenAI writes it; every attribute has its name there."""
    choice = made.choices[0]
    return {
        "choices": [{"message": _message(choice.message), "finish_reason": choice.finish_reason}],
        "usage": _usage(made.usage),
    }


def _chunk(made: Any) -> dict[str, Any]:
    choices = [{"delta": _message(one.delta), "finish_reason": one.finish_reason} for one in made.choices]
    return {"choices": choices, "usage": _usage(made.usage)}


def _message(message: Any) -> dict[str, Any]:
    whole = {
        "role": message.role,
        "content": message.content,
        "reasoning_content": message.reasoning_content,
        "tool_calls": [_call(call) for call in message.tool_calls or ()] or None,
    }
    return {name: value for name, value in whole.items() if value is not None}


def _call(call: Any) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": call.function.arguments}
    return {"index": call.index, "id": call.id, "type": "function", "function": function}


def _usage(usage: Any) -> dict[str, int] | None:
    if usage is None:
        return None
    return {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
