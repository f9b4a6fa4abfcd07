"""mistral.rs through its Python package: `Runner.send_chat_completion_request`, observed by the numbers it shows.

It shows neither prompt nor ids. A second runner whose template passes text through gives the numbers of any text; where
they are those of the chat route, the chat route was fed that text. What cannot be proved in this way is unobserved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

from harness.components.forcing import Position, force
from harness.components.mistralrs_runner._options import Options
from harness.process.child import Child
from harness.process.worker import Worker
from harness.stage import Stage, StageRefusedError, StageUnobservedError
from harness.values import (
    Case,
    CaseOptions,
    Distributions,
    Generation,
    Json,
    ModelRef,
    Observation,
    Prompt,
    Refusal,
    Reply,
    Request,
    Tokens,
    Unobserved,
)
from harness.wire.chat import body_of, body_of_request, reply_of, request_of

SAME = 1e-4
"""Nats within which two first-token log-probabilities are of the same prompt (seen for the same one: 0)."""
_PROMPT = ("messages", "tools", "tool_choice", "chat_template_kwargs")
_NOT_NUMBERS = frozenset({"messages", "tools", "tool_choice", "chat_template_kwargs", "max_tokens", "stop"})


class MistralRs:
    """The five stages of the package `mistralrs`, as far as its own numbers show them."""

    name: ClassVar[str] = "mistralrs"
    stages: ClassVar[frozenset[Stage]] = frozenset(Stage)
    requires: ClassVar[tuple[str, str]] = ("mistralrs", "mistralrs")
    own_clock: ClassVar[bool] = True
    """Its templates see the machine's clock."""
    variations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "as configured": {},
        "again": {},
        "1 thread": {"threads": 1},
        "2 threads": {"threads": 2},
        "no prefix cache": {"prefix_cache_n": 0},
        "cache f32": {"cache_f32": True},
    }
    """Settings under which the engine is as healthy as under any other."""

    def __init__(self, model: ModelRef, options: Mapping[str, Any]) -> None:
        self._options = Options.model_validate(options)
        self._file = model.path
        init = {"path": str(model.path.resolve()), "chat_template": model.chat_template}
        worker = Worker(
            "harness.components.mistralrs_runner._engine:Engine",
            {**init, **self._options.model_dump(include={"dtype", "prefix_cache_n"})},
            seconds=self._options.seconds,
            file=model.path,
            environment=self._options.environment(),
        )
        self._child = Child(worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._child.close()

    def identity(self) -> Mapping[str, str]:
        """Return the version and the settings."""
        found: Mapping[str, str] = self._child.call("identity")
        return found

    def model_file(self) -> Path:
        """Return the file that it is started with."""
        return self._file

    def noise_class(self) -> str:
        """Return the class of settings whose noise is of one kind."""
        return f"dtype {self._options.dtype}, cache {'f32' if self._options.cache_f32 else 'f16'}"

    # The five stages

    def request(self, case: Case) -> Request:
        """What `ChatCompletionRequest` takes of the body; it shows nothing of what it makes of that."""
        body = body_of(case)
        self._child.call("accepts", body=body)
        return request_of(body)

    def render(self, request: Request, options: CaseOptions) -> Prompt:
        """A text that the chat route's first numbers prove to be what it rendered."""
        _refuse_what_it_cannot_be_asked(options)
        body = {name: value for name, value in body_of_request(request).items() if name in _PROMPT}
        seen = self._child.call("chat", body={**body, "temperature": 0.0, "max_tokens": 1}, stream=False)
        if "error" in seen:
            refused = Refusal.of(**seen["error"])
            if seen["at"] == "request":
                raise StageUnobservedError(f"its request does not take these messages ({refused.error})")
            if refused.context:
                raise StageUnobservedError("it refuses a prompt of this length, and shows no numbers of it")
            raise StageRefusedError(refused)
        return self._proved(body, _row(seen["rows"]), seen["answer"]["usage"]["prompt_tokens"])

    def tokenize(self, prompt: Prompt) -> Tokens:
        """What its tokenizer makes of the text, with the flag that the chat route sets."""
        return self._tokens(self._child.call("tokenize", text=prompt.text))

    def generate(self, tokens: Tokens, request: Request, forced: Sequence[int] | None) -> Generation:
        """What follows the text of these ids, where the text gives the same ids again.

        It takes no ids to force. It is left to run from each point where it left the forced ids, so that every
        position is seen after exactly these. That is done at temperature 0, where the numbers are the model's own.
        """
        if forced is None:
            settings = {name: value for name, value in request.settings.items() if name not in _NOT_NUMBERS}
            ends = {name: request.settings[name] for name in ("max_tokens", "stop") if name in request.settings}
            seen = self._child.call("go_on", text=self._text(tokens.ids), settings={**settings, **ends})
            found = self._generation(seen["rows"], seen["finish"], request.settings)
            if isinstance(found, Unobserved):
                raise StageUnobservedError(found.reason)
            return found

        def run(done: int, count: int) -> list[Position]:
            text = self._text((*tokens.ids, *forced[:done]))
            settings = {"temperature": 0.0, "max_tokens": count}
            seen = self._child.call("go_on", text=text, settings=settings)["rows"]
            if not seen["chosen"] or -1 in seen["chosen"]:
                raise StageUnobservedError(f"it does not show what it chose after {done} of the ids")
            rows = zip(seen["chosen"], seen["ids"], seen["logprobs"], strict=True)
            return [Position(int(chosen), ids, logprobs) for chosen, ids, logprobs in rows]

        return force(forced, run, {})

    def reply(self, generation: Generation, tokens: Tokens, request: Request, *, stream: bool) -> Reply:
        """Always unobserved.

        Raises:
            StageUnobservedError: always.
        """
        del generation, tokens, request, stream
        raise StageUnobservedError("mistral.rs cannot be given ids to answer with; only its chained reply is seen")

    def chat(self, case: Case, *, stream: bool) -> Observation:
        """The real call from end to end."""
        _refuse_what_it_cannot_be_asked(case.options)
        body = body_of(case)
        seen = self._child.call("chat", body=body, stream=stream)
        if "error" in seen:
            refused = Refusal.of(**seen["error"])
            if seen["at"] == "request":
                return Observation(request=refused)
            return Observation(request=request_of(body), broke=refused)
        reply = reply_of(seen["answer"])
        found: dict[str, Any] = {"request": request_of(body), "reply": reply}
        try:
            count = None if reply.usage is None else reply.usage.prompt_tokens
            found["prompt"] = self._proved(body, _row(seen["rows"]), count)
            found["tokens"] = self.tokenize(found["prompt"])
        except StageUnobservedError as hidden:
            found["prompt"] = hidden.unobserved
        rows = self._with_end(seen["rows"], reply) if stream else seen["rows"]
        found["generation"] = self._generation(rows, reply.finish_reason, case.body)
        return Observation(**found)

    # Proofs

    def _proved(self, body: Json, row: dict[int, float], count: int | None) -> Prompt:
        """Return the text that gives these first numbers.

        Raises:
            StageUnobservedError: none is known that does.
        """
        if row:
            variables = body.get("chat_template_kwargs", {})
            texts = self._child.call(
                "candidates", messages=body["messages"], tools=body.get("tools"), variables=variables
            )
            for text in texts:
                if count is not None and len(self._child.call("tokenize", text=text)) != count:
                    continue
                first = self._child.call("go_on", text=text, settings={"temperature": 0.0, "max_tokens": 1})
                if _same(row, _row(first["rows"])):
                    return Prompt(text=text, clock=datetime.now())
        raise StageUnobservedError(
            "the chat route shows no prompt, and no text that Jinja2 renders of this template gives its numbers"
        )

    def _text(self, ids: Sequence[int]) -> str:
        """Return the text that is tokenized to exactly these ids.

        Raises:
            StageUnobservedError: there is none: it takes text, not ids.
        """
        text = str(self._child.call("text", ids=list(ids)))
        if tuple(self._child.call("tokenize", text=text)) != tuple(ids):
            raise StageUnobservedError("it takes text, not ids, and the text of these ids is tokenized to others")
        return text

    # What it shows

    def _tokens(self, ids: Sequence[int]) -> Tokens:
        return Tokens(ids=tuple(ids), pieces=tuple(self._child.call("pieces", ids=list(ids))))

    def _generation(self, rows: Json, finish: str | None, asked: Mapping[str, Any]) -> Generation | Unobserved:
        chosen = tuple(int(one) for one in rows["chosen"])
        if not chosen or -1 in chosen:
            return Unobserved(reason="it does not show which ids it chose")
        # At another temperature they are not the model's own numbers.
        plain = asked.get("temperature") == 0 and len(rows["ids"])
        ended: Literal["end_token", "length", "stop"] = "length" if finish == "length" else "stop"
        return Generation(
            ids=chosen,
            chosen=chosen,
            finish="end_token" if chosen[-1] in self._child.call("ends") else ended,
            distributions=Distributions.kept(rows["logprobs"], rows["ids"]) if plain else None,
        )

    def _with_end(self, rows: Json, reply: Reply) -> Json:
        """A stream shows no row for the end token; it is counted, and where a file names one end only, it is that."""
        ends = self._child.call("ends")
        counted = None if reply.usage is None else reply.usage.completion_tokens
        if reply.finish_reason == "stop" and counted == len(rows["chosen"]) + 1 and len(ends) == 1:
            return {**rows, "chosen": [*rows["chosen"], ends[0]]}
        return rows


def _refuse_what_it_cannot_be_asked(options: CaseOptions) -> None:
    """Say so where `ChatCompletionRequest` has no argument for what the case wants.

    Raises:
        StageUnobservedError: always, for such a case.
    """
    if options.continue_final_message:
        raise StageUnobservedError("mistral.rs cannot be asked to continue the last message")


def _row(rows: Json) -> dict[int, float]:
    """Return the first position's log-probabilities, by id."""
    if not len(rows["ids"]):
        return {}
    return dict(zip(rows["ids"][0].tolist(), rows["logprobs"][0].tolist(), strict=True))


def _same(one: Mapping[int, float], other: Mapping[int, float]) -> bool:
    shared = one.keys() & other.keys()
    # At the end of both lists, ids within the tolerance of each other may change places.
    return len(shared) >= len(one) - 1 > 0 and all(abs(one[i] - other[i]) < SAME for i in shared)
