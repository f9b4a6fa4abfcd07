"""llama.cpp's own server, over HTTP: template, tokenization, inference and postprocess.

Three servers stand behind it, each started when it is first needed: one with the model, one with the replay model (what
does the server make of ids that are known?) and one with the fingerprint model (was it fed the ids that it says?).
A server that runs elsewhere is observed as far as it shows itself.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from harness.components.forcing import Position, force
from harness.components.llama_server._loaded import loaded_of
from harness.components.llama_server._options import Options, around_its_model
from harness.components.llama_server._read import (
    generation_of,
    generation_of_logprobs,
    logprobs_of,
    positions_of,
    prompt_tokens_of,
    streamed_ids,
    verbose_of,
)
from harness.components.llama_server._running import Running
from harness.errors import UserError
from harness.probes.fingerprint import SAME_SERVER, Fingerprint, same
from harness.probes.replay import ReplayModel
from harness.probes.search import candidates, search
from harness.settings import Loaded
from harness.stage import SETTINGS_ELSEWHERE, Stage, StageUnobservedError
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
from harness.wire.form import field
from harness.wire.limits import Patience

TOP = 256
"""How many log-probabilities of a position the isolated run is asked for."""
CHAT_TOP = 64
"""How many the chat route is: it writes each twice, which takes it half as long again as computing the position."""
_MARKS = 20
"""How many of the fingerprint model's log-probabilities are held against each other."""
_PROMPT = ("messages", "tools", "tool_choice", "chat_template_kwargs")
_CHAT = "/v1/chat/completions"
_CERTAIN = 1e4
"""A logit bias that no logit outweighs."""
_FIRST = {"max_tokens": 1, "temperature": 0, "n_probs": _MARKS, "cache_prompt": False}
_ENDS = frozenset({"max_tokens", "stop"})


class LlamaServer:
    """The stages behind llama-server's HTTP API."""

    name: ClassVar[str] = "llama-server"
    stages: ClassVar[frozenset[Stage]] = frozenset(Stage) - {Stage.CLIENT}
    requires: ClassVar[tuple[str, str]] = ("httpx", "servers")
    own_clock: ClassVar[bool] = True
    """Its templates see the machine's clock."""
    added: ClassVar[frozenset[str]] = frozenset({"__verbose", "logprobs"})
    """What its answers have because they were asked for more, and because it logs everything."""
    shows_generated_ids: ClassVar[bool] = True
    """Whether the ids that it shows of an answer are those that were generated, and not made of their texts."""
    parser: ClassVar[str] = "harness.components.llama_server.parser:LlamaServerParser"
    variations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "as configured": {},
        "1 thread": {"parameters": {"cpuparams.n_threads": 1, "cpuparams_batch.n_threads": 1}},
        "n_batch 32": {"parameters": {"n_batch": 32}},
    }
    """Settings under which the engine is as healthy as under any other."""
    elsewhere: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "no flash attention": {"parameters": {"flash_attn_type": 0}},
    }
    """Healthy settings that a server may have been started with elsewhere, which does not show them."""

    def __init__(self, model: ModelRef, options: Mapping[str, Any]) -> None:
        self._options = Options.model_validate(options)
        # The probes are made around the file that is served.
        self._model = model.model_copy(update={"path": self._options.file or model.path})
        self._folder = tempfile.TemporaryDirectory(prefix="harness-")
        self._plants: list[tuple[str, Mapping[str, Any]]] = []
        self._main = Running(self._model, self._options)
        self._replay: tuple[Running, ReplayModel] | None = None
        self._fingerprint: Running | None = None
        self._proofs: dict[str, Tokens | Unobserved] = {}
        self._not_probed = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._close()
        self._folder.cleanup()

    def identity(self) -> Mapping[str, str]:
        """Return the build and the settings that the server shows."""
        properties = self._main.properties()
        settings = properties.get("default_generation_settings")
        return {
            **self._main.identity(),
            "build": str(properties.get("build_info")),
            "n_ctx": str(settings.get("n_ctx")) if isinstance(settings, dict) else "not shown",
            **{name: str(value) for name, value in self._options.parameters.items()},
        }

    @staticmethod
    def around_its_model(options: Mapping[str, Any]) -> dict[str, Any]:
        """Return options without what names another file than the model's."""
        return around_its_model(options)

    def model_file(self) -> Path | None:
        """Return the file that `/props` shows; of the package, which is started here, else the one it was given."""
        return self._main.model_file()

    def loaded(self) -> Loaded:
        """Return what it was asked for and what is in force, as far as its endpoints and its log show it."""
        return loaded_of(self._main, self._options, self._model.chat_template is not None)

    def noise_class(self) -> str:
        """Return the class of settings whose noise is of one kind."""
        if self._options.url is not None:
            return SETTINGS_ELSEWHERE
        given = self._options.parameters
        cache = f"{given.get('cache_type_k', 'f16')}/{given.get('cache_type_v', 'f16')}"
        return f"cache {cache}, flash attention {given.get('flash_attn_type', 'auto')}"

    def plant(self, hook: str, **keywords: Any) -> None:
        """Plant a defect: `hook` (`module:function`) is called in new children with what each serves and the keywords.

        Every server gets it, the probes' too: they are the same code around other weights.

        Raises:
            UserError: the server runs elsewhere.
        """
        if self._options.url is not None:
            raise UserError("nothing can be planted in a server that runs already", "name a binary instead of its url")
        self._plants.append((hook, keywords))
        self._restart()

    def unplant(self) -> None:
        """Remove every planted defect; the next call starts clean servers."""
        self._plants.clear()
        self._restart()

    def _restart(self) -> None:
        self._close()
        self._main = Running(self._model, self._options, plants=self._plants)
        self._replay = self._fingerprint = None
        self._proofs.clear()
        for name in ("_bos_text", "_prints_bos"):
            self.__dict__.pop(name, None)

    def _close(self) -> None:
        self._main.close()
        if self._replay is not None:
            self._replay[0].close()
            self._replay[1].__exit__(None, None, None)
        if self._fingerprint is not None:
            self._fingerprint.close()

    # The stages, one by one

    def render(self, request: Request, options: CaseOptions) -> Prompt:  # noqa: ARG002 - it has its own clock
        """What `/apply-template` renders; the chained run shows whether the chat route does the same."""
        text = self._main.shown("/apply-template", body_of_request(request), "prompt")
        if not isinstance(text, str):
            raise StageUnobservedError("the prompt in the answer of /apply-template is no text")
        return Prompt(text=self._bos_text + text if self._prints_bos else text, clock=datetime.now())

    def tokenize(self, prompt: Prompt) -> Tokens:
        """What `/tokenize` makes of a prompt with the flags of the chat route: a BOS if due, control tokens parsed."""
        return self._tokenized(prompt.text)

    def generate(self, tokens: Tokens, request: Request, forced: Sequence[int] | None) -> Generation:
        """What `/completion` computes when fed ids; forced ones by letting it run and correcting it."""
        settings = {name: value for name, value in request.settings.items() if name not in _ENDS}
        if forced is None:
            more = {"n_predict": request.settings.get("max_tokens", -1), "stop": request.settings.get("stop", [])}
            return generation_of(self._main.complete(tokens.ids, {**settings, **more}, TOP))
        in_force: Json = {}

        def run(done: int, count: int) -> list[Position]:
            # Only the first call evaluates the prompt; the others go on from it, as generating does.
            asked = {**settings, "n_predict": count, "cache_prompt": done > 0}
            ids = (*tokens.ids, *forced[:done])
            found = generation_of(self._main.complete(ids, asked, TOP))
            in_force.update(found.settings)
            return positions_of(found) or self._inside_a_character(ids, asked, found.chosen)

        generation = force(forced, run, in_force)
        left = {name: value for name, value in in_force.items() if name not in _ENDS}
        return generation.model_copy(update={"settings": left})

    def _inside_a_character(self, ids: Sequence[int], asked: Json, chosen: Sequence[int]) -> list[Position]:
        """Return the position of the first id chosen, which ends inside a character: the server drops its numbers.

        They are those before sampling, so they are the same when another id is made to be chosen.
        """
        if not chosen:
            return []
        bias = {"logit_bias": [[self._plain_id(), _CERTAIN]], "cache_prompt": True, "n_predict": 1}
        again = positions_of(generation_of(self._main.complete(ids, {**asked, **bias}, TOP)))
        return [position._replace(chosen=chosen[0]) for position in again]

    def _plain_id(self) -> int:
        return self._main.last_id(".")

    def reply(self, generation: Generation, tokens: Tokens, request: Request, *, stream: bool) -> Reply:
        """What the chat route answers when its model generates these ids.

        Where the template makes another prompt of the request than the golden's, its length is not the postprocess
        stage's doing: the reply's prompt count is then given relative to the golden's.
        """
        server, model = self._replaying()
        script = generation.ids + generation.beyond
        body: Json = {**body_of_request(request), "return_tokens": True, "stream": stream}
        after = len(tokens.ids)
        answer = self._replayed(server, model, script, after, body)
        evaluated = prompt_tokens_of(answer)
        if evaluated not in (None, after):
            answer = self._replayed(server, model, script, evaluated, body)
        shown = verbose_of(answer)
        generated = () if shown is None else tuple(field(shown, "tokens", list))
        # A stream shows no ids, but how many they were.
        longer = shown is not None and field(shown, "tokens_predicted", int) > len(script)
        if longer or generated != script[: len(generated)]:
            raise StageUnobservedError("the server did not generate the ids that its replay model holds")
        found = reply_of(answer)
        if found.usage is None or found.usage.prompt_tokens != prompt_tokens_of(answer):
            return found
        return found.model_copy(update={"usage": found.usage.model_copy(update={"prompt_tokens": after})})

    # The whole route

    def url(self) -> str:
        """Where the OpenAI API is."""
        return f"{self._main.url()}/v1"

    def key_variable(self) -> str | None:
        """The environment variable of the API key."""
        return self._options.api_key_variable

    @property
    def patience(self) -> Callable[[], Patience] | None:
        """What begins the wait for one answer of a server of ours; None of one that runs elsewhere."""
        return self._main.patience

    def additions(self, case: Case, *, stream: bool) -> Json:
        """Ask for the ids and the log-probabilities; the server refuses the latter for a stream with tools."""
        if not stream:
            return {"return_tokens": True, "n_probs": CHAT_TOP}
        return {} if case.body.get("tools") else {"n_probs": 1}

    def seen(self, case: Case, body: Json, answer: Json | Sequence[Json] | None) -> Observation:
        """What the chat route says it did, and what its fingerprint says of that."""
        del case
        if answer is None:
            return Observation()
        shown = verbose_of(answer)
        if shown is None:
            hidden = Unobserved(reason="the server does not show what it fed to its model (it does at verbosity 10)")
            return Observation(prompt=hidden, tokens=hidden, generation=generation_of_logprobs(answer))
        return Observation(
            prompt=Prompt(text=self._rendered(field(shown, "prompt", str)), clock=datetime.now()),
            tokens=self._fed(body, shown),
            generation=generation_of(shown) if isinstance(answer, dict) else self._streamed(answer, shown),
        )

    def _tokenized(self, text: str) -> Tokens:
        """Return the ids of a prompt: of the BOS that a template prints the server makes none, and adds its own."""
        return self._main.tokenize(text.removeprefix(self._bos_text))

    @cached_property
    def _bos_text(self) -> str:
        """The text of the BOS that the server's tokenizer adds, or nothing."""
        added = self._main.tokenize("").ids
        return str(self._main.properties().get("bos_token") or "") if added else ""

    @cached_property
    def _prints_bos(self) -> bool:
        """Whether the template prints the BOS, which the server takes off and has its tokenizer add."""
        template = str(self._main.properties().get("chat_template") or "")
        return bool(self._bos_text) and ("bos_token" in template or self._bos_text in template)

    def _rendered(self, shown: str) -> str:
        """Return a prompt that is shown with the tokenizer's BOS, as the template has rendered it."""
        return shown if self._prints_bos else shown.removeprefix(self._bos_text)

    def _streamed(self, chunks: Sequence[Json], shown: Json) -> Generation | Unobserved:
        ids = streamed_ids(chunks)
        if len(ids) != field(shown, "tokens_predicted", int):
            return Unobserved(reason="the stream does not show every id")
        return generation_of({**shown, "tokens": ids, "completion_probabilities": ()})

    def _fed(self, body: Json, shown: Json) -> Tokens | Unobserved:
        """Return the ids that the chat route fed to its model: those of the prompt it shows, if they prove true.

        Where they do not, the known defects of a prompt are tried until one gives the chat route's numbers.
        """
        tokens = self._tokenized(field(shown, "prompt", str))
        if self._options.url is not None:
            counts = field(shown, "tokens_evaluated", int), len(tokens.ids)
            if counts[0] == counts[1]:
                return tokens
            reason = (
                f"the chat route evaluated {counts[0]} ids, /tokenize makes {counts[1]} of the prompt that it shows"
            )
            return Unobserved(reason=reason)
        # What could turn the numbers or end the answer early is left out: they are of the prompt alone.
        asked: Json = {name: body[name] for name in _PROMPT if name in body}
        question = json.dumps([asked, shown["prompt"]])
        # A stream asks what the whole answer has asked.
        if question not in self._proofs:
            self._proofs[question] = self._proved(asked, shown, tokens)
        return self._proofs[question]

    def _proved(self, asked: Json, shown: Json, tokens: Tokens) -> Tokens | Unobserved:
        server = self._fingerprinting()
        chat = verbose_of(server.post(_CHAT, {**asked, **_FIRST}))
        if chat is None:
            return Unobserved(reason="the chat route shows no numbers")
        found = logprobs_of(chat)
        if self._same(found, self._numbers(tokens.ids)):
            return tokens
        opening = field(shown, "generation_settings", dict).get("generation_prompt")
        suffix = opening if isinstance(opening, str) and opening else None
        tried = candidates(shown["prompt"], tokens.ids, suffix, self._special(), self._ids)
        defect = search(found, tried, self._numbers, self._same)
        if defect is None:
            reason = "the chat route feeds its model other ids than /tokenize makes of its prompt, by no known defect"
            return Unobserved(reason=reason)
        return Tokens(ids=defect.ids)

    def _numbers(self, ids: Sequence[int]) -> dict[int, float]:
        return logprobs_of(self._fingerprinting().complete(ids, {"n_predict": 1, "temperature": 0}, _MARKS))

    @staticmethod
    def _same(one: Mapping[int, float], other: Mapping[int, float]) -> bool:
        return same(one, other, SAME_SERVER)

    def _ids(self, text: str, parsed: bool) -> Sequence[int]:
        return self._main.tokenize(text, parsed=parsed).ids

    def _special(self) -> dict[str, int]:
        properties = self._main.properties()
        texts = {name: properties.get(f"{name}_token") for name in ("bos", "eos")}
        return {name: self._main.last_id(text) for name, text in texts.items() if isinstance(text, str) and text}

    # The servers of the probes

    def _replayed(self, server: Running, model: ReplayModel, script: Sequence[int], after: int, body: Json) -> Any:
        try:
            model.script(script, after)
        except ValueError as error:
            raise StageUnobservedError(str(error)) from error
        return server.stream(_CHAT, body) if body["stream"] else server.post(_CHAT, body)

    def _replaying(self) -> tuple[Running, ReplayModel]:
        if self._replay is None:
            self._need_probes()
            # A file that the server does not load is no file to make a probe of.
            self._main.url()
            model = ReplayModel(self._model, Path(self._folder.name) / "replay.gguf", self._options.n_ctx)
            self._replay = self._probe(model.path), model
        return self._replay

    def _fingerprinting(self) -> Running:
        if self._fingerprint is None:
            path = Path(self._folder.name) / "fingerprint.gguf"
            Fingerprint(self._model, self._options.n_ctx).write(path)
            self._fingerprint = self._probe(path)
        return self._fingerprint

    def _probe(self, path: Path) -> Running:
        """Start a server with a probe in the model's stead.

        Raises:
            StageUnobservedError: it has another file: a program around the real one may have a file of its own.
        """
        if self._not_probed:
            raise StageUnobservedError(self._not_probed)
        server = Running(self._model, self._options, path, self._plants)
        try:
            served = server.model_file()
        except BaseException:
            server.close()
            raise
        if served is not None and served.resolve() != path.resolve():
            server.close()
            self._not_probed = f"the program serves {served.name} and not the probe that it is started with"
            raise StageUnobservedError(self._not_probed)
        return server

    def _need_probes(self) -> None:
        if self._options.url is not None:
            raise StageUnobservedError("a server that runs already cannot be given the replay model")
