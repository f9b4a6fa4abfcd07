"""Any server that speaks OpenAI's chat completions: template, tokenization, inference and postprocess.

Such a server promises little, so what it can do is tried first and recorded (`identity`), and what it does not show is
unobserved. A family's profile adds its own endpoints (`_ollama`, `_lm_studio`). Probes that the user has loaded into it
make it show more: a replay model what it makes of known ids, a fingerprint model which ids it was fed.

The profiles are written after the documentation and source of Ollama and LM Studio and held against a server made after
those; they were not run against the real ones. The generic profile is held against llama.cpp's server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from types import TracebackType
from typing import Any, ClassVar, Self

from harness.components.openai_compatible import _lm_studio, _ollama
from harness.components.openai_compatible._loaded import loaded_of
from harness.components.openai_compatible._model import KnownModel
from harness.components.openai_compatible._options import Options
from harness.components.openai_compatible._probed import Prints, Replay, prompt_of
from harness.components.openai_compatible._read import Row, choice_of, count_of, distributions_of, finish_of
from harness.components.openai_compatible._server import Capabilities, Server
from harness.settings import Loaded
from harness.stage import Stage, StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import (
    Case,
    CaseOptions,
    Failure,
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
from harness.wire.chat import body_of_request

_HIDDEN_PROMPT = "OpenAI's API does not show the prompt that a server renders"
_HIDDEN_IDS = "OpenAI's API does not show ids"
_SHORT = 16
"""Ids to generate where a case sets no limit, as OpenAI's completions do."""
_ENDS = frozenset({"max_tokens", "max_completion_tokens", "stop", "tools", "tool_choice"})


class OpenAiCompatible:
    """The stages behind an OpenAI-compatible API."""

    name: ClassVar[str] = "openai-compatible"
    stages: ClassVar[frozenset[Stage]] = frozenset(Stage) - {Stage.CLIENT}
    requires: ClassVar[tuple[str, str]] = ("httpx", "servers")
    own_clock: ClassVar[bool] = True
    """Its templates see the machine's clock."""
    added: ClassVar[frozenset[str]] = frozenset({"logprobs"})
    """What its answers have because they were asked for more."""

    def __init__(self, model: ModelRef, options: Mapping[str, Any]) -> None:
        given = self._options = Options.model_validate(options)
        self._known = KnownModel(None if given.any_model else model)
        self._unchecked = self._server_of(given.url, given.model)
        self._no_contact: Failure | None = None
        self._replay: Replay | None = None
        if given.replay_model is not None and given.replay_file is not None:
            server = self._server_of(given.replay_url or given.url, given.replay_model)
            self._replay = Replay(server, given.replay_file)
        self._prints: Prints | None = None
        if given.fingerprint_model is not None:
            server = self._server_of(given.fingerprint_url or given.url, given.fingerprint_model)
            self._prints = Prints(server, model, given.fingerprint_context)
        self._candidates: list[tuple[Json, tuple[int, ...]]] = []

    def _server_of(self, url: str, name: str) -> Server:
        return Server(url, name, self._known, self._options.api_key_variable, self._options.seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._unchecked.close()
        if self._replay is not None:
            self._replay.close()
        if self._prints is not None:
            self._prints.close()

    def identity(self) -> Mapping[str, str]:
        """Return the server, what its family tells of the model, and what it was seen to do."""
        return {
            "url": self._options.url,
            "profile": self._options.profile,
            "model": self._options.model,
            **self._can.described(),
            **self._told,
        }

    def loaded(self) -> Loaded:
        """Return with which settings the model is loaded, as far as the server tells."""
        return loaded_of(self._server, self._options)

    @cached_property
    def _told(self) -> Mapping[str, str]:
        """What identifies the model; a model that the server has not is a user's error."""
        if self._options.any_model:
            return {}
        if self._options.profile == "ollama":
            return _ollama.check(self._unchecked)
        if self._options.profile == "lm-studio":
            return _lm_studio.check(self._unchecked)
        return {}

    @property
    def _server(self) -> Server:
        """The server, once its model is known to be the goldens' and it was seen what it can do.

        Raises:
            StageFailedError: it does not answer. That is not tried again for every case.
        """
        if self._no_contact is not None:
            raise StageFailedError(self._no_contact)
        try:
            assert self._told is not None
            assert self._unchecked.capabilities is not None
        except StageFailedError as failed:
            self._no_contact = failed.failure
            raise
        return self._unchecked

    @property
    def _can(self) -> Capabilities:
        return self._server.capabilities

    # The stages, one by one

    def render(self, request: Request, options: CaseOptions) -> Prompt:
        """What Ollama renders; no other server of this kind shows its prompt."""
        if self._options.profile != "ollama":
            raise StageUnobservedError(_HIDDEN_PROMPT)
        if options.template_kwargs:
            raise StageUnobservedError("Ollama takes no variables for its template")
        return Prompt(text=_ollama.rendered(self._server, body_of_request(request)), clock=datetime.now())

    def tokenize(self, prompt: Prompt) -> Tokens:
        """No server of this kind shows ids; where a text can be fed as it is, their number is told."""
        server = self._server
        try:
            count = self._fed_text(server, prompt.text, {}, 1)[0]
        except (StageRefusedError, StageUnobservedError):
            count = None
        seen = "" if count is None else f"; of the prompt's text it makes {count}"
        raise StageUnobservedError(f"{_HIDDEN_IDS}{seen}")

    def generate(self, tokens: Tokens, request: Request, forced: Sequence[int] | None) -> Generation:
        """What it computes when fed ids, or their text where its fingerprint proves that it makes these ids of it."""
        settings = {name: value for name, value in request.settings.items() if name not in _ENDS}
        if forced is None:
            stop = {name: request.settings[name] for name in ("stop",) if name in request.settings}
            limit = request.settings.get("max_tokens") or request.settings.get("max_completion_tokens") or _SHORT
            rows, reason = self._fed(tokens.ids, {**settings, **stop}, limit)
            return self._generation(rows, reason)
        rows = []
        for step in range(len(forced)):
            found, _ = self._fed((*tokens.ids, *forced[:step]), settings, 1)
            rows.append(found[0] if found else Row(None, {}))
        chosen = [row.chosen for row in rows if row.chosen is not None and row.top]
        if len(chosen) < len(rows):
            at = next(place for place, row in enumerate(rows) if row.chosen is None or not row.top)
            raise StageUnobservedError(f"it does not show what its model chooses at generated position {at}")
        distributions = distributions_of(rows)
        return Generation(ids=tuple(forced), chosen=tuple(chosen), finish="forced", distributions=distributions)

    def reply(self, generation: Generation, tokens: Tokens, request: Request, *, stream: bool) -> Reply:
        """What the chat route answers when its model generates these ids: needs the replay model in the server.

        Where the template makes another prompt of the request than the golden's, its length is not the postprocess
        stage's doing: the reply's prompt count is then given relative to the golden's.
        """
        body = body_of_request(request)
        self._candidates = [(prompt_of(body), tokens.ids)]
        if self._replay is None:
            raise StageUnobservedError("no replay model is loaded in it (options replay_model and replay_file)")
        assert self._server is not None
        script = generation.ids + generation.beyond
        found, after = self._replay.reply(script, body, stream=stream)
        if found.usage is None or found.usage.prompt_tokens != after:
            return found
        return found.model_copy(update={"usage": found.usage.model_copy(update={"prompt_tokens": len(tokens.ids)})})

    # The whole route

    def url(self) -> str:
        """Where the OpenAI API is."""
        return f"{self._server.api.url}/v1"

    def key_variable(self) -> str | None:
        """The environment variable of the API key."""
        return self._options.api_key_variable

    def answer_seconds(self) -> float:
        """How long one answer may take in all."""
        return self._options.seconds

    def additions(self, case: Case, *, stream: bool) -> Json:
        """Ask for the model by its name in this server, and for log-probabilities where it gives them."""
        named: Json = {"model": self._options.model}
        # Some refuse them for a stream with tools.
        if not self._can.chat_top or (stream and case.body.get("tools")):
            return named
        return {**named, "logprobs": True, "top_logprobs": 1 if stream else self._can.chat_top}

    def seen(self, case: Case, body: Json, answer: Json | Sequence[Json] | None) -> Observation:
        """What the answer shows, what the server renders of the same body, and what its fingerprint proves."""
        del case
        if answer is None:
            return Observation()
        return Observation(
            prompt=self._rendered(body),
            tokens=self._proven(body, answer),
            generation=self._shown(answer),
        )

    def _rendered(self, body: Json) -> Prompt | Unobserved:
        if self._options.profile != "ollama":
            return Unobserved(reason=_HIDDEN_PROMPT)
        try:
            asked = {name: value for name, value in body.items() if name not in ("stream", "stream_options")}
            return Prompt(text=_ollama.rendered(self._server, asked), clock=datetime.now())
        except StageUnobservedError as hidden:
            return hidden.unobserved

    def _proven(self, body: Json, answer: Json | Sequence[Json]) -> Tokens | Unobserved:
        """Return the ids that the isolated runs were given for this body, if the chat route proves to be fed them."""
        count = count_of(answer, "prompt_tokens")
        seen = _HIDDEN_IDS if count is None else f"{_HIDDEN_IDS}; its prompt has {count}"
        if self._prints is None:
            return Unobserved(reason=f"{seen} (a fingerprint model would prove which)")
        ids = next((ids for prompt, ids in self._candidates if prompt == prompt_of(body)), None)
        if ids is None:
            return Unobserved(reason=f"{seen}, and there are none to hold it against")
        try:
            if count in (None, len(ids)) and self._prints.chat_is_fed(ids, body):
                return Tokens(ids=ids)
        except StageUnobservedError as hidden:
            return hidden.unobserved
        return Unobserved(reason=f"{seen}, which are not the {len(ids)} ids that the isolated runs were given")

    def _shown(self, answer: Json | Sequence[Json]) -> Generation | Unobserved:
        if isinstance(answer, dict):
            choice = choice_of(answer)
            rows, reason = self._server.rows(choice), choice.get("finish_reason")
        else:
            choices = [choice_of(chunk) for chunk in answer if chunk.get("choices")]
            rows = [row for choice in choices for row in self._server.rows(choice)]
            reason = next((one["finish_reason"] for one in reversed(choices) if one.get("finish_reason")), None)
        count = count_of(answer, "completion_tokens")
        if count not in (None, len(rows)):
            return Unobserved(reason=f"it generated {count} ids and shows {len(rows)} of them")
        try:
            found = self._generation(rows, reason)
        except StageUnobservedError as hidden:
            return hidden.unobserved
        # A stream is asked for one number a position, and shows none where a piece of a character is held back.
        return found if isinstance(answer, dict) else found.model_copy(update={"distributions": None})

    # Reading

    def _generation(self, rows: Sequence[Row], reason: object) -> Generation:
        ids = [row.chosen for row in rows if row.chosen is not None]
        if not rows or len(ids) < len(rows):
            raise StageUnobservedError("it does not show which ids its model generated")
        finish = finish_of(reason, ids[-1], self._known.vocabulary)
        return Generation(ids=tuple(ids), chosen=tuple(ids), finish=finish, distributions=distributions_of(rows))

    def _fed(self, ids: Sequence[int], settings: Json, limit: int) -> tuple[list[Row], Any]:
        """Feed ids, or their text where the server takes none and makes as many ids of it."""
        if self._can.takes_ids:
            asked = {**settings, "max_tokens": limit, "logprobs": self._can.completions_top or 1}
            choice = choice_of(self._server.complete(ids, asked))
            return self._server.rows(choice), choice.get("finish_reason")
        text = self._known.vocabulary.text_of(ids)
        if text is None:
            raise StageUnobservedError("it takes no ids, and these have no text")
        if self._prints is None:
            raise StageUnobservedError("it takes no ids (a fingerprint model would prove which it makes of a text)")
        if not self._prints.are(ids, self._fed_text(self._prints.server, text, {"temperature": 0}, 1)[1]):
            raise StageUnobservedError("it takes no ids, and makes others of their text")
        return self._fed_text(self._server, text, settings, limit)[1:]

    def _fed_text(self, server: Server, text: str, settings: Json, limit: int) -> tuple[int | None, list[Row], Any]:
        """Feed a text without a template; None for the count where that cannot be done."""
        if self._options.profile == "ollama":
            return _ollama.generated(server, text, settings, limit)
        if not server.capabilities.raw:
            return None, [], None
        more = {"logprobs": server.capabilities.completions_top} if server.capabilities.completions_top else {}
        answer = server.complete(text, {**settings, **more, "max_tokens": limit})
        choice = choice_of(answer)
        return count_of(answer, "prompt_tokens"), server.rows(choice), choice.get("finish_reason")
