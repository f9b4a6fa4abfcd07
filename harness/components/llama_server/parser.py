"""llama.cpp's chat parser as a part: the real chat route of a server whose model writes what one wants.

One server a format. Its model is the replay model around a vocabulary that is made up: the format's markers, every
byte, and the words that the caller names.
"""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from harness.components.llama_server._options import Options
from harness.components.llama_server._read import verbose_of
from harness.components.llama_server._running import Running
from harness.parts import Completion, Format, Kind, PartError
from harness.probes.replay import ReplayModel
from harness.probes.vocabulary import write_vocabulary
from harness.stage import StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Json, ModelRef, Reply
from harness.wire.chat import reply_of
from harness.wire.form import field, reading

_CHAT = "/v1/chat/completions"
_CONTEXT = 8192
_LONGEST = (511, 1023)
"""The most ids of a script: what nearly every text needs, and for the others, which take three times as long."""
_GRAMMAR = ("grammar", "grammar_lazy", "grammar_triggers", "preserved_tokens")
_REFUSED = "its grammar lets the model not write this"
_NO_GRAMMAR = "grammar stack"
"""What the server says where the grammar does not go on with a token that was sampled."""
_THREADS = {"cpuparams.n_threads": 1, "cpuparams_batch.n_threads": 1}


class LlamaServerParser:
    """What llama-server makes of a text: its detokenizer, its parser and its stream, over HTTP.

    A stream has one event a token. With tools the server holds the model to a grammar as soon as it begins a call; what
    the grammar does not let it write cannot be asked, and is `refused`.

    Args:
        format: The format.
    """

    name = "llama-server"
    streams = True
    requires: ClassVar[tuple[str, str]] = ("xllamacpp", "servers")

    def __init__(self, format: Format) -> None:  # noqa: A002 - the name that every parser has for it
        self._folder = tempfile.TemporaryDirectory(prefix="harness-")
        vocabulary = Path(self._folder.name) / "vocabulary.gguf"
        self._ids = write_vocabulary(vocabulary, format.words, format.control, format.shown, format.ends, format.bos)
        model = ModelRef(name=format.name, path=vocabulary, sha256="", chat_template=format.template)
        self._markers = frozenset(format.markers)
        self._special = {text.encode("utf-8") for text in (*format.markers, format.bos)}
        self._model = model
        self._replaying: dict[int, tuple[Running, ReplayModel]] = {}
        self._prompts: dict[str, tuple[str, int]] = {}
        self._whole: tuple[str, Reply | PartError] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for server, replay in self._replaying.values():
            server.close()
            replay.__exit__(kind, error, tb)
        self._folder.cleanup()

    def version(self) -> str:
        """Return the build of llama.cpp and the package that carries it."""
        build = self._started(0)[0].properties().get("build_info")
        return f"llama.cpp {build} of xllamacpp {importlib.metadata.version('xllamacpp')}"

    def parse(self, asked: Completion, *, stream: bool) -> Reply:
        """Return the reply of the chat route.

        Raises:
            PartError: it answers with an error, its prompt ends otherwise than the one asked for, or it does not let
                its model write this.
        """
        body: Json = {"messages": list(asked.messages), "return_tokens": True}
        if asked.tools:
            body["tools"] = list(asked.tools)
        if asked.variables:
            body["chat_template_kwargs"] = dict(asked.variables)
        script = self._script(asked)
        server, replay = self._started(len(script))
        length = self._prompt_length(server, body, asked.opening)
        # One more than its end token: were it made to write something else, it would go on until its context is full.
        body["max_tokens"] = len(script) + (asked.end is not None)
        key = json.dumps([script, body], sort_keys=True)
        if self._whole is None or self._whole[0] != key:
            self._whole = None
            try:
                replay.script(script, length)
            except ValueError as error:
                raise PartError("unsupported", str(error)) from error
            found = self._checked(server, script, body)
            if isinstance(found, PartError) and not self._is_written(server, replay, script, length, body):
                raise PartError("refused", f"{_REFUSED}; with what it wrote instead: {found.message}")
            self._whole = key, found
        whole = self._whole[1]
        if not stream:
            if isinstance(whole, PartError):
                raise whole
            return whole
        try:
            return reply_of(server.stream(_CHAT, {**body, "stream": True}))
        except (StageRefusedError, StageFailedError) as error:
            raise _error_of(error) from error

    def _started(self, length: int) -> tuple[Running, ReplayModel]:
        """Return a server whose model takes a script of so many ids, or of as many as any does."""
        longest = next((one for one in _LONGEST if length <= one), _LONGEST[-1])
        if longest not in self._replaying:
            replay = ReplayModel(self._model, Path(self._folder.name) / f"replay-{longest}.gguf", _CONTEXT, longest)
            server = Running(self._model, Options(n_ctx=_CONTEXT, parameters=_THREADS), replay.path)
            self._replaying[longest] = server, replay
        return self._replaying[longest]

    def _script(self, asked: Completion) -> list[int]:
        """Return the ids of a text: of each piece its own where there is one, else those of its bytes."""
        ids: list[int] = []
        for piece in asked.pieces:
            raw = piece.encode("utf-8")
            if raw in self._ids and (piece in self._markers or raw not in self._special):
                ids.append(self._ids[raw])
            else:
                ids.extend(raw)
        if asked.end is not None:
            ids.append(self._ids[asked.end.encode("utf-8")])
        return ids

    def _prompt_length(self, server: Running, body: Json, opening: str) -> int:
        """Return how many ids the prompt has, which must end as it is to."""
        key = _key_of(body)
        if key not in self._prompts:
            try:
                with reading("no prompt"):
                    prompt = str(server.post("/apply-template", body)["prompt"])
                self._prompts[key] = prompt, len(server.tokenize(prompt).ids)
            except (StageRefusedError, StageFailedError, StageUnobservedError) as error:
                raise PartError("unsupported", f"its template does not render the prompt: {error}") from error
        prompt, length = self._prompts[key]
        if not prompt.endswith(opening):
            ending = prompt[-max(len(opening), 20) :]
            raise PartError("unsupported", f"its prompt ends with {ending!r}, not with {opening!r}")
        return length

    def _checked(self, server: Running, script: Sequence[int], body: Json) -> Reply | PartError:
        """Return the reply to the script that is in the model, once it is known that the model writes it.

        Raises:
            PartError: it does not.
        """
        try:
            answer = server.post(_CHAT, body)
            shown = verbose_of(answer)
            written = [] if shown is None else field(shown, "tokens", list)
            reply = reply_of(answer)
        except (StageRefusedError, StageFailedError) as error:
            return _error_of(error)
        if written != list(script):
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(script, written, strict=False)))
            raise PartError("refused", f"{_REFUSED}: another token at {same}")
        return reply

    def _is_written(self, server: Running, replay: ReplayModel, script: Sequence[int], length: int, body: Json) -> bool:
        """Return whether the model writes a script under the chat route's grammar: an error does not show that.

        The grammar is what the chat route shows of an empty answer. The completion route takes it, and parses nothing.
        """
        if "tools" not in body:
            # Then there is no grammar.
            return True
        prompt, _ = self._prompts[_key_of(body)]
        replay.script(script[-1:], length)
        try:
            shown = verbose_of(server.post(_CHAT, {**body, "max_tokens": 1})) or {}
            settings = field({"generation_settings": {}, **shown}, "generation_settings", dict)
            grammar = {name: settings[name] for name in _GRAMMAR if name in settings}
            replay.script(script, length)
            ids = server.tokenize(prompt).ids
            asked = {**grammar, "prompt": list(ids), "n_predict": body["max_tokens"], "return_tokens": True}
            with reading("no completion"):
                written = server.post("/completion", asked)["tokens"]
        except (StageRefusedError, StageFailedError, StageUnobservedError):
            return False
        return bool(written == list(script))


def _key_of(body: Json) -> str:
    """Return what a prompt is made of."""
    return json.dumps({name: value for name, value in body.items() if name != "max_tokens"}, sort_keys=True)


def _error_of(error: StageRefusedError | StageFailedError) -> PartError:
    if isinstance(error, StageRefusedError):
        kind: Kind = "refused" if _NO_GRAMMAR in error.refusal.message else "error"
        return PartError(kind, error.refusal.line, error.refusal.error)
    return PartError("error", error.failure.message or error.failure.reason, error.failure.reason)
