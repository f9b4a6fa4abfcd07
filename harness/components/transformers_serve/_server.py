"""The child's side: the real `transformers serve` in this process, and taps that watch each boundary inside it.

Nothing here re-implements what the server does. A run is always a request to its chat route; the taps record what
passes, and an isolated run replaces what passes at one boundary:

    chat route -> render_jinja_template -> tokenizer -> generate -> logits processors -> ... -> response
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers
import transformers.tokenization_utils_base
from transformers.cli.serve import Serve
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from harness.components.transformers_serve._plan import Plan
from harness.process.owner import our_own, tapped, the_parts_own
from harness.process.ports import check_ours, free_port
from harness.process.upstream import private
from harness.wire.api import connection

_LIBRARY: Any = transformers
"""Without its annotations, which know nothing of what is replaced here."""
_POLL = 0.02
_PACKAGE = "transformers"
_LONG = 86_400.0
"""Seconds; the parent keeps the time."""
_PACKAGES = ("transformers", "torch", "tokenizers", "accelerate")


class Server:
    """A server that runs, with one model pinned.

    Args:
        folder: Where the GGUF is.
        file: Its name.
        chat_template: A template to use instead of the file's own, set on the tokenizer as users do.
        options: Keyword arguments of `Serve`.
        threads: PyTorch's threads within an operation.
        name_architecture: Name the model's class where its configuration does not.
    """

    def __init__(
        self,
        folder: str,
        file: str,
        chat_template: str | None,
        options: Mapping[str, Any],
        threads: int | None,
        name_architecture: bool,
    ) -> None:
        _LIBRARY.utils.logging.disable_progress_bar()
        if threads is not None:
            torch.set_num_threads(threads)
        self._named = "of the file"
        if name_architecture:
            self._name_architecture()
        self._model_name = f"{folder}:{file}"
        self._port = free_port()
        self.plan = Plan()
        with the_parts_own():
            serve = Serve(
                force_model=self._model_name,
                host="127.0.0.1",
                port=self._port,
                log_level="error",
                non_blocking=True,
                **options,
            )
        threading.Thread(target=_end_with_main, daemon=True).start()
        loaded: Any = next(iter(private(serve, "_model_manager.loaded_models", _PACKAGE).values()))
        self.model: Any = private(loaded, "model", _PACKAGE)
        self.tokenizer: Any = private(loaded, "processor", _PACKAGE)
        if chat_template is not None:
            self.tokenizer.chat_template = chat_template
        self._tap(private(serve, "_chat_handler", _PACKAGE))
        self._http = connection(_LONG)
        server = private(serve, "server", _PACKAGE)
        while not server.started:
            check_ours(os.getpid(), self._port)
            time.sleep(_POLL)

    # What the parent calls

    def url(self) -> str:
        """Return where the server listens."""
        return f"http://127.0.0.1:{self._port}/v1"

    def model_name(self) -> str:
        """Return the name by which a request must call the pinned model."""
        return self._model_name

    def identity(self) -> dict[str, str]:
        """Return versions and effective settings."""
        return {
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
            "model class": f"{type(self.model).__name__}, {self._named}",
            "device": str(self.model.device),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "attention": str(private(self.model.config, "_attn_implementation", _PACKAGE)),
            "threads": str(torch.get_num_threads()),
            "cpu": torch.backends.cpu.get_cpu_capability(),
        }

    def begin(self, clock: str) -> None:
        """Have the next request, which comes from outside, watched."""
        self.plan.wait()
        self.plan = Plan(clock=clock)

    def seen(self) -> dict[str, Any]:
        """Return what the taps saw of the request since `begin`."""
        self.plan.wait()
        return self._seen(self.plan)

    def run(self, body: Mapping[str, Any], stream: bool, **planned: Any) -> dict[str, Any]:
        """Make a request under a plan and return its answer and what the taps saw."""
        self.plan.wait()
        self.plan = plan = Plan(**planned)
        content = json.dumps({**body, "model": self._model_name, "stream": stream}).encode("ascii")
        with the_parts_own():
            answer = self._http.post(
                f"{self.url()}/chat/completions", content=content, headers={"Content-Type": "application/json"}
            )
        plan.wait()
        # One byte, one character: the parent reads what may be no UTF-8.
        return {"status": answer.status_code, "data": answer.content.decode("latin-1"), **self._seen(plan)}

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the text of each id, for a reader."""
        with the_parts_own():
            return [self.tokenizer.decode([one]) for one in ids]

    # The taps, in the order a request passes them

    def _tap(self, handler: Any) -> None:
        self._handle_request = private(handler, "handle_request", _PACKAGE)
        handler.handle_request = self._handle
        module = _LIBRARY.tokenization_utils_base
        self._render_template = private(module, "render_jinja_template", _PACKAGE)
        module.render_jinja_template = tapped(self._render)
        # Only a class can have a `__call__`.
        kind, tokenize = type(self.tokenizer), tapped(self._tokenize)
        self.tokenizer.__class__ = type(
            kind.__name__, (kind,), {"__call__": lambda me, *given, **more: tokenize(kind, me, *given, **more)}
        )
        self._generate = private(self.model, "generate", _PACKAGE)
        self.model.generate = tapped(self._generate_tapped)
        self._logits_processors = private(self.model, "_get_logits_processor", _PACKAGE)
        self.model._get_logits_processor = tapped(self._processors)

    async def _handle(self, body: dict[str, Any], request_id: str) -> Any:
        with our_own():
            plan = self.plan
            plan.begun = True
            try:
                with the_parts_own():
                    return await self._handle_request(body, request_id)
            except Exception as error:
                plan.finish(error)
                raise

    def _render(self, *given: Any, **more: Any) -> Any:
        plan = self.plan
        if plan.prompt is not None:
            return [plan.prompt], []
        with plan.pinned(), the_parts_own():
            rendered = self._render_template(*given, **more)
        plan.text = rendered[0][0]
        return rendered

    def _tokenize(self, kind: type[Any], tokenizer: Any, *given: Any, **more: Any) -> Any:
        with the_parts_own():
            encoded = kind.__call__(tokenizer, *given, **more)
        if self.plan.ids is not None and more.get("return_tensors") is not None:
            encoded["input_ids"] = torch.tensor([list(self.plan.ids)])
            encoded["attention_mask"] = torch.ones_like(encoded["input_ids"])
        return encoded

    def _generate_tapped(self, **more: Any) -> Any:
        plan = self.plan
        plan.fed = more["input_ids"][0].tolist()
        plan.config = more["generation_config"]
        try:
            if plan.ends:
                found = _nothing(more)
            else:
                with the_parts_own():
                    found = self._generate(**more)
                plan.out = found[0].tolist()[len(plan.fed) :]
        except Exception as error:
            plan.finish(error)
            raise
        plan.finish()
        return found

    def _processors(self, *given: Any, **more: Any) -> Any:
        with the_parts_own():
            own = self._logits_processors(*given, **more)
        return _LIBRARY.LogitsProcessorList([_First(self.plan), *own, _Last(self.plan, self._end())])

    def _end(self) -> int:
        end = self.model.generation_config.eos_token_id
        return int(end[0] if isinstance(end, list) else end)

    # What the taps saw, in the form that the parent reads

    def _seen(self, plan: Plan) -> dict[str, Any]:
        error = plan.error
        return {
            "text": plan.text,
            "ids": plan.fed,
            "generation": None if plan.out is None else self._generation(plan, plan.out),
            "error": None if error is None else {"error": type(error).__name__, "message": str(error)},
        }

    def _generation(self, plan: Plan, out: Sequence[int]) -> dict[str, Any]:
        return {
            "ids": out,
            "chosen": out if plan.forced is None else plan.chosen,
            "finish": self._finish(plan, out),
            "logits": np.stack(plan.logits),
            "digests": [hashlib.sha256(row.tobytes()).hexdigest() for row in plan.logits],
            "settings": _settings(plan.config),
        }

    def _finish(self, plan: Plan, out: Sequence[int]) -> str:
        if plan.forced is not None:
            return "forced"
        ends = plan.config.eos_token_id
        if out[-1] in (ends if isinstance(ends, list) else [ends]):
            return "end_token"
        return "length" if len(out) >= plan.config.max_new_tokens else "stop"

    def _name_architecture(self) -> None:
        """Give a configuration that names no class the one that transformers has for text of its model type."""
        original = _LIBRARY.AutoConfig.from_pretrained

        @our_own()
        def named(*given: Any, **more: Any) -> Any:
            with the_parts_own():
                made = original(*given, **more)
            for config in made if isinstance(made, tuple) else (made,):
                known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
                if known is not None and getattr(config, "architectures", ()) is None:
                    config.architectures = [known]
                    self._named = "named by the harness: the file's configuration names none, and serve stops at that"
            return made

        _LIBRARY.AutoConfig.from_pretrained = named


class _First:
    """Sees the model's logits before any setting is applied."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    @our_own()
    def __call__(self, _: Any, scores: Any) -> Any:
        self._plan.logits.append(scores[0].detach().to(torch.float32).cpu().numpy().copy())
        return scores


class _Last:
    """Sees what would be chosen, and forces what is to follow; after that, the end."""

    def __init__(self, plan: Plan, end: int) -> None:
        self._plan = plan
        self._end = end

    @our_own()
    def __call__(self, _: Any, scores: Any) -> Any:
        plan = self._plan
        plan.chosen.append(int(scores[0].argmax()))
        if plan.forced is None:
            return scores
        position = len(plan.chosen) - 1
        only = torch.full_like(scores, float("-inf"))
        only[0, plan.forced[position] if position < len(plan.forced) else self._end] = 0
        return only


def _nothing(given: Mapping[str, Any]) -> Any:
    """Return what `generate` gives when it generates nothing."""
    streamer = given.get("streamer")
    if streamer is not None:
        streamer.put(given["input_ids"])
        streamer.end()
    return given["input_ids"]


def _settings(config: Any) -> dict[str, Any]:
    """Return the settings in force, by their OpenAI or llama.cpp names. What samples nothing has no temperature."""
    sampling = {"temperature": config.temperature, "top_p": config.top_p, "top_k": config.top_k}
    in_force = sampling if config.do_sample else {"temperature": 0}
    return {
        **{name: value for name, value in in_force.items() if value is not None},
        "repeat_penalty": config.repetition_penalty or 1.0,
        "max_tokens": config.max_new_tokens,
        "stop": list(config.stop_strings or ()),
    }


def _end_with_main() -> None:
    """End the process with its main thread; the server's own threads would keep it."""
    threading.main_thread().join()
    os._exit(0)
