"""The probes that the user has loaded into a server: what it makes of known ids, and which ids it was fed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from harness.components.openai_compatible._read import Row, choice_of, count_of
from harness.components.openai_compatible._server import Server
from harness.probes.fingerprint import COMPUTED, SAME_SERVER, Fingerprint, same
from harness.probes.replay import ReplayModel
from harness.stage import StageUnobservedError
from harness.values import Json, ModelRef, Reply
from harness.wire.chat import reply_of

_PROMPT = ("messages", "tools", "tool_choice", "chat_template_kwargs")
MARKS = 20
"""How many of the fingerprint's log-probabilities are held against each other."""
_LEAST_MARKS = 5
"""A few numbers may agree by chance; tokens whose text is no single token's are not among those known."""
_SIGNS = ("ab", "ba")
"""Written into the replay model one after the other; a server that has it mapped answers with them."""


def prompt_of(body: Json) -> Json:
    """Return what of a body makes its prompt."""
    return {name: body[name] for name in _PROMPT if body.get(name) is not None}


class Replay:
    """A server's replay model, scripted through its file while the server has it mapped.

    Args:
        server: The server, asked for the replay model.
        file: The file that it has mapped.
    """

    def __init__(self, server: Server, file: Path) -> None:
        self._server = server
        self._file = file
        self._proven = False

    def close(self) -> None:
        """Close the file."""
        if "_model" in vars(self):
            self._model.__exit__(None, None, None)
        self._server.close()

    def reply(self, script: Sequence[int], body: Json, *, stream: bool) -> tuple[Reply, int]:
        """Return what the chat route answers when its model generates these ids, and how many its prompt has.

        Raises:
            StageUnobservedError: the server cannot be made to generate them.
        """
        self._prove()
        after = self._evaluated(body)
        self._write(script, after)
        return reply_of(self._server.chat(body, stream=stream)), after

    def _prove(self) -> None:
        """Make sure, once, that what is written into the file is what the server generates."""
        if self._proven:
            return
        body: Json = {"messages": [{"role": "user", "content": "."}], "temperature": 0, "max_tokens": len(_SIGNS[0])}
        after = self._evaluated(body)
        for sign in _SIGNS:
            ids = [self._server.known.vocabulary.id_of(letter.encode("ascii")) for letter in sign]
            if None in ids:
                raise StageUnobservedError(
                    "the vocabulary has no token of a single letter to try the replay model with"
                )
            self._write([one for one in ids if one is not None], after)
            content = reply_of(self._server.chat(body)).content
            if content != sign:
                raise StageUnobservedError(
                    f"the server does not generate what is written into {self._file.name}: it has another file, or "
                    "does not map it into memory"
                )
        self._proven = True

    def _evaluated(self, body: Json) -> int:
        count = count_of(self._server.chat({**body, "max_tokens": 1}), "prompt_tokens")
        if count is None:
            raise StageUnobservedError("the server does not count the prompt, so its replay model cannot be scripted")
        return count

    def _write(self, script: Sequence[int], after: int) -> None:
        try:
            self._model.script(script, after)
        except ValueError as error:
            raise StageUnobservedError(str(error)) from error

    @cached_property
    def _model(self) -> ReplayModel:
        return ReplayModel.existing(self._file)


class Prints:
    """A server's fingerprint model: its numbers tell which ids it was fed.

    Args:
        server: The server, asked for the fingerprint model.
        model: The model of the goldens.
        context: The context that the fingerprint model was written for.
    """

    def __init__(self, server: Server, model: ModelRef, context: int) -> None:
        self.server = server
        self._model = model
        self._context = context

    def close(self) -> None:
        """Close what is open."""
        self.server.close()

    def chat_is_fed(self, ids: Sequence[int], body: Json) -> bool:
        """Return whether the chat route feeds these ids for a body.

        Raises:
            StageUnobservedError: it gives too few numbers to tell.
        """
        width = min(self.server.capabilities.chat_top, MARKS)
        asked = {**prompt_of(body), "max_tokens": 1, "temperature": 0}
        if width:
            asked |= {"logprobs": True, "top_logprobs": width}
        shown = self.server.rows(choice_of(self.server.chat(asked)))
        if not self.server.capabilities.takes_ids:
            return self.are(ids, shown)
        first = {"max_tokens": 1, "temperature": 0, "logprobs": min(self.server.capabilities.completions_top, MARKS)}
        alone = self.server.rows(choice_of(self.server.complete(ids, first)))
        return same(_marks(shown), _marks(alone), SAME_SERVER)

    def are(self, ids: Sequence[int], shown: Sequence[Row]) -> bool:
        """Return whether numbers that the model gave are those of these ids, computed here.

        Raises:
            StageUnobservedError: there are too few numbers to tell.
        """
        if len(ids) > self._context:
            raise StageUnobservedError(f"{len(ids)} ids do not fit the {self._context} of the fingerprint model")
        return same(_marks(shown), self._computed.logprobs(ids, MARKS), COMPUTED)

    @cached_property
    def _computed(self) -> Fingerprint:
        return Fingerprint(self._model, self._context)


def _marks(rows: Sequence[Row]) -> Mapping[int, float]:
    found = rows[0].top if rows else {}
    if len(found) < _LEAST_MARKS:
        raise StageUnobservedError(f"its fingerprint model shows {len(found)} numbers, too few to tell ids by")
    return found
