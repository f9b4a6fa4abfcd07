"""One `llama_cpp.Llama` with taps at each boundary inside it, for both ways to run it: in process and as a server.

Nothing here re-implements what llama-cpp-python does. A run is always its `create_chat_completion`; the taps record
what passes, and an isolated run replaces what passes at one boundary or ends the call at another:

    create_chat_completion -> formatter -> tokenize -> create_completion -> generate -> sample -> ... -> reply
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import llama_cpp
import numpy as np
import time_machine
from llama_cpp import llama_chat_format
from llama_cpp import llama_cpp as low_level

from harness.components.llama_cpp_python._in_force import in_force
from harness.components.llama_cpp_python._library import library_digest, type_name, with_type_ids
from harness.llama.ggml import Nodes
from harness.llama.layout import require_readable, why_unreadable
from harness.llama.llama_log import log_warnings
from harness.process.owner import from_the_part, is_the_parts, tapped, the_parts_own
from harness.process.upstream import gone, private
from harness.process.worker import imported
from harness.settings import Scalar
from harness.stage import StageUnobservedError

PACKAGE = "llama_cpp"
FORMATTER = "chat_formatter"
"""The variable of the chat handler that holds its formatter."""
_PLAIN = (bool, int, float, str, list, dict)
_SAID = ("grammar",)
"""Arguments that are no plain data, of which it is told what they are where they are given."""
_PROBE = ({"role": "user", "content": "probe"},)


class Done(BaseException):
    """Ends a call at the boundary that was asked for; no `except Exception` of the part may swallow it."""


@dataclasses.dataclass
class Plan:
    """What one call replaces, where it ends, and what the taps saw.

    Attributes:
        clock: The time that the formatter sees; None leaves it the machine's.
        prompt: The text that stands in for the rendered one.
        prompt_ids: The ids that stand in for those of the prompt.
        scripted: The ids that stand in for what the engine generates.
        forced: The ids that stand in for what the sampler chooses.
        past_forced: The id that ends the call when those have run out; None ends it with `Done`.
        ran_out: Whether they have.
        until: The boundary at which the call ends with `Done`.
        answer: The call's answer.
        finish_reason: Why it ended, in the part's own word; None for a call that did not end by itself.
        refused: What the formatter raised.
        seen: What passed the boundaries.
        ids: What stands at each generated position.
        chosen: What the sampler chose there.
        logits: And what the engine computed.
    """

    clock: str | None = None

    prompt: str | None = None
    prompt_ids: Sequence[int] | None = None
    scripted: Sequence[int] | None = None
    forced: Sequence[int] | None = None
    past_forced: int | None = None
    ran_out: bool = False
    until: str | None = None
    answer: Any = None
    finish_reason: str | None = None
    refused: Exception | None = None
    seen: dict[str, Any] = dataclasses.field(default_factory=dict)
    ids: list[int] = dataclasses.field(default_factory=list)
    chosen: list[int] = dataclasses.field(default_factory=list)
    logits: list[np.ndarray[Any, Any]] = dataclasses.field(default_factory=list)

    def end_at(self, boundary: str) -> None:
        """End the call if this is the boundary it was asked to reach."""
        if self.until == boundary:
            raise Done


class TappedLlama:
    """One loaded model behind llama-cpp-python's own chat path.

    Args:
        model_path: The GGUF.
        chat_template: A template to use instead of the file's own, passed as users pass it: a `chat_handler`.
        options: Keyword arguments of `llama_cpp.Llama`.
        plants: Defects to plant, as `(module:function, keywords)`; with `watches_nodes` they see the graph's nodes.
        watch: Whether the nodes of its graph are to be seen.

    Raises:
        NotReadableError: a planted defect wants nodes, and they cannot be read.
    """

    def __init__(
        self,
        model_path: str,
        chat_template: str | None,
        options: Mapping[str, Any],
        plants: Sequence[tuple[str, Mapping[str, Any]]] = (),
        watch: bool = False,
    ) -> None:
        log_warnings()
        hooks = [(imported(hook), dict(keywords)) for hook, keywords in plants]
        self.nodes = Nodes()
        watchers = [keywords.pop("watches_nodes", False) for _, keywords in hooks]
        if any(watchers):
            require_readable()
        if (watch or any(watchers)) and why_unreadable() is None:
            self._watch_nodes()
        self.llm = self._load(model_path, options)
        self._given_template = chat_template
        if chat_template is not None:
            formatter = self._formatter_of(chat_template)
            with the_parts_own():
                self.llm.chat_handler = formatter.to_chat_handler()
        self.plan = Plan()
        self._untapped: dict[str, StageUnobservedError] = {}
        self._handlers: tuple[Any, Any] | None = None
        try:
            self._tap_formatter()
        except StageUnobservedError as error:
            self._untapped[FORMATTER] = error
            self._stand_in(chat_template)
        self.tokenize: Callable[..., list[int]] = self._tap("tokenize", self._tokenize)
        self._create_completion = self._tap("create_completion", self._complete)
        self._generate = self._tap("generate", self._generate_tapped)
        self._sample = self._tap("sample", self._sample_tapped)
        self._canned = self._empty_response()
        for hook, keywords in hooks:
            hook(self, **keywords)

    # What the parent calls

    def identity(self) -> dict[str, str]:
        """Return versions, build and effective settings of the running engine."""
        context = self.llm.context_params
        return {
            "llama-cpp-python": str(llama_cpp.__version__),
            "system": low_level.llama_print_system_info().decode("utf-8", errors="replace").strip(),
            "library": library_digest(),
            "n_ctx": str(self.llm.n_ctx()),
            "n_batch": str(self.llm.n_batch),
            "n_ubatch": str(context.n_ubatch),
            "n_threads": str(self.llm.n_threads),
            "n_threads_batch": str(self.llm.n_threads_batch),
            "flash_attn": str(context.flash_attn_type == low_level.LLAMA_FLASH_ATTN_TYPE_ENABLED).lower(),
            "type_k": type_name(context.type_k),
            "type_v": type_name(context.type_v),
            "chat_format": str(self.llm.chat_format) if self.llm.chat_handler is None else "chat_handler",
        }

    def in_force(self) -> dict[str, Scalar]:
        """Return with which settings the model is loaded, by their names."""
        with the_parts_own():
            return in_force(self.llm, self._given_template)

    def model_file(self) -> str:
        """Return the file that the engine has opened."""
        return str(self.llm.model_path)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the engine's own text of each id, for a reader."""
        detokenize = private(self.llm, "_model.detokenize", PACKAGE)
        with the_parts_own():
            return [detokenize([i], special=True).decode("utf-8", errors="replace") for i in ids]

    # The taps, in the order a request passes them

    def format(self, **arguments: Any) -> llama_chat_format.ChatFormatterResponse:
        """Stand in for the formatter that the handler would call."""
        plan = self.plan
        plan.seen["messages"] = arguments["messages"]
        plan.seen["tools"] = arguments.get("tools")
        plan.seen["tool_choice"] = arguments.get("tool_choice")
        if plan.prompt is not None:
            response = dataclasses.replace(self._canned, prompt=plan.prompt)
            # The caller's settings alone are looked at, or nothing may cut what is forced.
            if plan.until == "create_completion" or plan.forced is not None:
                response = dataclasses.replace(response, stop=None)
        else:
            try:
                with _clock(plan.clock), the_parts_own():
                    response = self.formatter(**arguments)
            except Exception as error:
                if plan.until is not None or not is_the_parts(error):
                    raise
                # What the handler would have asked for is still to be seen; the completion call then raises this.
                plan.refused = error
                return dataclasses.replace(self._canned, prompt="", stop=None)
        plan.seen["prompt"] = response.prompt
        plan.seen["stop"] = _as_list(response.stop)
        plan.end_at("formatter")
        return response

    def _tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        plan = self.plan
        if plan.prompt_ids is not None:
            return list(plan.prompt_ids)
        with the_parts_own():
            return self.tokenize(text, add_bos, special)

    def _complete(self, prompt: list[int], **arguments: Any) -> Any:
        plan = self.plan
        plan.seen["settings"] = arguments
        if plan.refused is not None:
            raise plan.refused
        plan.seen["prompt_ids"] = list(prompt)
        plan.end_at("create_completion")
        with the_parts_own():
            answer = self._create_completion(prompt=prompt, **arguments)
        if not isinstance(answer, dict):
            return tapped(self._noting)(plan, answer)
        plan.finish_reason = answer["choices"][0]["finish_reason"]
        return answer

    def _noting(self, plan: Plan, chunks: Iterator[Any]) -> Iterator[Any]:
        for chunk in from_the_part(chunks):
            plan.finish_reason = chunk["choices"][0]["finish_reason"]
            yield chunk

    def _generate_tapped(self, tokens: Sequence[int], **arguments: Any) -> Iterator[int]:
        plan = self.plan
        plan.seen["fed"] = [int(t) for t in tokens]
        plan.seen["sampler"] = arguments
        plan.end_at("generate")
        if plan.scripted is None:
            yield from from_the_part(self._generate(tokens, **arguments))
            return
        # The code around the loop reads how far the context is evaluated: up to the token before the one it gets.
        evaluated = [*plan.seen["fed"]]
        self._pretend(evaluated)
        for token in plan.scripted:
            yield token
            evaluated.append(token)
            self._pretend(evaluated)

    def _pretend(self, evaluated: Sequence[int]) -> None:
        self.llm.n_tokens = len(evaluated)
        private(self.llm, "input_ids", PACKAGE)[: len(evaluated)] = evaluated

    def _sample_tapped(self, *arguments: Any, idx: int | None = None, **keywords: Any) -> int:
        plan = self.plan
        position = len(plan.chosen)
        if plan.forced is not None and position == len(plan.forced):
            if plan.past_forced is None:
                raise Done
            plan.ran_out = True
            return plan.past_forced
        row = idx - self.llm.n_tokens if idx is not None else -1
        pointer = low_level.llama_get_logits_ith(self.llm.ctx, row)
        plan.logits.append(np.ctypeslib.as_array(pointer, shape=(self.llm.n_vocab(),)).copy())
        with the_parts_own():
            choice = int(self._sample(*arguments, idx=idx, **keywords))
        token = choice if plan.forced is None else plan.forced[position]
        plan.chosen.append(choice)
        plan.ids.append(token)
        return token

    # What the taps saw, in the form that the parent reads

    def _all_seen(self, plan: Plan) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if "settings" in plan.seen and "messages" in plan.seen:
            found["request"] = self._request_seen(plan)
        if "prompt" in plan.seen:
            found["prompt"] = self._prompt_seen(plan)
        if "prompt_ids" in plan.seen:
            found["prompt_ids"] = self._fed(plan)
        if plan.chosen:
            found["generation"] = self._generation_seen(plan)
        return found

    def _request_seen(self, plan: Plan) -> dict[str, Any]:
        settings = _plain_settings(plan.seen.get("settings", {}), added=plan.seen.get("stop", []))
        return {
            "messages": plan.seen["messages"],
            "tools": plan.seen["tools"],
            "tool_choice": plan.seen["tool_choice"],
            "settings": settings,
            "defaults": _defaults_in(settings),
        }

    def _prompt_seen(self, plan: Plan) -> dict[str, Any]:
        return {"text": plan.seen["prompt"], "stop": plan.seen["stop"]}

    def _fed(self, plan: Plan) -> list[int]:
        fed = plan.seen.get("fed", plan.seen.get("prompt_ids"))
        assert fed is not None
        return list(fed)

    def _generation_seen(self, plan: Plan) -> dict[str, Any]:
        settings = _plain_settings(plan.seen["sampler"], added=[])
        return {
            "ids": plan.ids,
            "chosen": plan.chosen,
            "finish": self._finish(plan),
            "logits": np.stack(plan.logits),
            "digests": [hashlib.sha256(row.tobytes()).hexdigest() for row in plan.logits],
            "settings": settings,
            "defaults": _defaults_in(settings),
        }

    def _finish(self, plan: Plan) -> str:
        if low_level.llama_vocab_is_eog(private(self.llm, "_model.vocab", PACKAGE), plan.ids[-1]):
            return "end_token"
        if plan.finish_reason is None or plan.ran_out:
            return "forced"
        return "length" if plan.finish_reason == "length" else "stop"

    # Setting up

    def _load(self, model_path: str, options: Mapping[str, Any]) -> Any:
        """Load the model. Verbose, because otherwise the binding sends what llama.cpp says while loading to nowhere."""
        keywords = with_type_ids(options)
        with the_parts_own():
            llm = llama_cpp.Llama(model_path, verbose=True, **keywords)
        llm.verbose = False
        return llm

    def _formatter_of(self, template: str) -> llama_chat_format.Jinja2ChatFormatter:
        """Return the formatter that `Llama` itself would make of a file's template."""
        text_of = private(self.llm, "_model.token_get_text", PACKAGE)
        with the_parts_own():
            eos, bos = self.llm.token_eos(), self.llm.token_bos()
            return llama_chat_format.Jinja2ChatFormatter(
                template=template,
                eos_token=text_of(eos) if eos != -1 else "",
                bos_token=text_of(bos) if bos != -1 else "",
                stop_token_ids=[eos],
            )

    def _tap(self, name: str, tap: Callable[..., Any]) -> Callable[..., Any]:
        """Put a tap in the place of a method, and return the method; note where there is none."""
        try:
            method: Callable[..., Any] = private(self.llm, name, PACKAGE)
        except StageUnobservedError as error:
            self._untapped[name] = error
            return tap
        setattr(self.llm, name, tapped(tap))
        return method

    def _need(self, *boundaries: str) -> None:
        """Say so where a boundary that a run needs has no tap.

        Raises:
            StageUnobservedError: one of them has none.
        """
        for name in boundaries:
            if name in self._untapped:
                raise StageUnobservedError(self._untapped[name].unobserved.reason)

    def _follow(self, plan: Plan) -> None:
        """Have the next call follow a plan."""
        self.plan = plan
        if self._handlers is not None:
            real, stand_in = self._handlers
            self.llm.chat_handler = real if plan.prompt is None else stand_in
        elif plan.prompt is not None:
            self._need(FORMATTER)

    def _tap_formatter(self) -> None:
        """Put the tap where the chat handler keeps its formatter, and keep that one to be called."""
        handlers = private(self.llm, "_chat_handlers", PACKAGE)
        handler: Any = (
            self.llm.chat_handler
            or handlers.get(self.llm.chat_format)
            or private(llama_chat_format, "get_chat_completion_handler", PACKAGE)(self.llm.chat_format)
        )
        code = getattr(handler, "__code__", None)
        names = code.co_freevars if code is not None else ()
        if FORMATTER not in names:
            what = getattr(handler, "__name__", type(handler).__name__)
            raise gone(PACKAGE, f"no variable {FORMATTER!r} in {what} of the chat format {self.llm.chat_format!r}")
        cell = handler.__closure__[names.index(FORMATTER)]
        self.formatter: Callable[..., llama_chat_format.ChatFormatterResponse] = cell.cell_contents
        cell.cell_contents = tapped(self.format)

    def _stand_in(self, chat_template: str | None) -> None:
        """Where the formatter cannot be tapped, let another one stand in for it in calls that replace its text.

        So the other stages go on. What the real one renders is not seen.
        """
        template = chat_template or (self.llm.metadata or {}).get("tokenizer.chat_template")
        if template is None:
            return
        self.formatter = self._formatter_of(template)
        with the_parts_own():
            handler = llama_chat_format.chat_formatter_to_chat_completion_handler(tapped(self.format))
        self._handlers = self.llm.chat_handler, handler

    def _empty_response(self) -> llama_chat_format.ChatFormatterResponse:
        """Return a response with the real formatter's own flags (stop, added_special, criteria) and no prompt.

        The template is not rendered for it: what is wrong with a template must show at its own stage.
        """
        formatter: Any = getattr(self, "formatter", None)
        if formatter is None:
            return llama_chat_format.ChatFormatterResponse(prompt="")
        with the_parts_own():
            if isinstance(formatter, llama_chat_format.Jinja2ChatFormatter):
                formatter = type(formatter)(
                    template="",
                    eos_token=formatter.eos_token,
                    bos_token=formatter.bos_token,
                    stop_token_ids=list(formatter.stop_token_ids or ()),
                )
            response: llama_chat_format.ChatFormatterResponse = formatter(messages=list(_PROBE))
        return response

    def _watch_nodes(self) -> None:
        """Have every new context report its graph's nodes to `nodes`: a call for each, which is not for nothing."""
        make = low_level.llama_context_default_params

        def with_callback() -> Any:
            parameters = make()
            parameters.cb_eval = self.nodes.callback
            return parameters

        low_level.llama_context_default_params = with_callback


def _plain_settings(arguments: Mapping[str, Any], added: Sequence[str]) -> dict[str, Any]:
    """Return the settings that are plain data, without the stop strings that the formatter added."""
    plain = {
        name: value for name, value in arguments.items() if type(value) in _PLAIN and name not in ("model", "stream")
    }
    for name in _SAID:
        if arguments.get(name) is not None:
            plain[name] = type(arguments[name]).__name__
    if "temp" in plain:
        plain["temperature"] = plain.pop("temp")
    if "stop" in plain:
        stop = _as_list(plain["stop"])
        if added and stop[len(stop) - len(added) :] == list(added):
            stop = stop[: len(stop) - len(added)]
        plain["stop"] = stop
    return plain


def _defaults_in(settings: Mapping[str, Any]) -> list[str]:
    """Return the settings that have the binding's own default, or are of no call's that a user makes."""
    known = inspect.signature(llama_cpp.Llama.create_chat_completion).parameters
    return [name for name, value in settings.items() if name not in _SAID and _is_default(known.get(name), value)]


def _is_default(parameter: inspect.Parameter | None, value: Any) -> bool:
    if parameter is None or (parameter.default is None and value in ([], {})):
        return True
    return bool(parameter.default == value)


def _as_list(value: str | Sequence[str] | None) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def _clock(moment: str | None) -> contextlib.AbstractContextManager[Any]:
    """Pin the clock; a naive time is local, so that a template prints the same everywhere."""
    if moment is None:
        return contextlib.nullcontext()
    when = datetime.datetime.fromisoformat(moment)
    return time_machine.travel(when.astimezone() if when.tzinfo is None else when, tick=False)
