"""What flows between the stages. Every value can be saved as JSON, loaded again and compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

TOP_K = 256
"""How many of the likeliest tokens a saved distribution keeps; the rest is one number, their summed probability."""

Json = dict[str, Any]

MAX_DEPTH = 100
"""Levels of lists and objects in a case. Pydantic writes 255."""


class Value(BaseModel):
    """Base of everything that flows: immutable, and strict about names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


def _encodable(value: Any) -> Any:
    """Refuse text that no wire could carry, and what is nested deeper than this program writes."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"the text holds a lone surrogate ({error.object[error.start]!r})") from error
    if _depth(value) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    return value


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [
        item
        for one in level
        if isinstance(one, dict | list)
        for item in (one.values() if isinstance(one, dict) else one)
    ]:
        depth += 1
    return depth


def _askable(body: Json) -> Json:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise ValueError("'messages' must be a list of at least one message object")
    if "stream" in body:
        raise ValueError("'stream' is not part of a case: every case is run both ways")
    return body


class CaseOptions(Value):
    """What a case fixes beside the request body.

    Attributes:
        clock: The time that a template sees; naive times are local.
        template_kwargs: Extra variables for the template.
        continue_final_message: Leave the last (assistant) message open for the model to go on with.
        script: Text that the model is taken to have generated, control tokens included, instead of the reference's
            own greedy choice. Distributions are then held on this text's ids.
    """

    clock: datetime = datetime(2026, 1, 2, 3, 4, 5)
    template_kwargs: Annotated[Json, AfterValidator(_encodable)] = Field(default_factory=dict)
    continue_final_message: bool = False
    script: Annotated[str | None, AfterValidator(_encodable)] = None


class Case(Value):
    """One thing to ask, as an OpenAI chat-completions request body and options.

    Attributes:
        name: The file's name without its suffix.
        description: One sentence for a human.
        covers: What the case is there to exercise.
        models: The models it is asked of; empty means every model.
        body: The request body, without `stream`.
        options: What is fixed beside it.
    """

    name: str = ""
    description: str
    covers: tuple[str, ...]
    models: tuple[str, ...] = ()
    body: Annotated[Json, AfterValidator(_encodable), AfterValidator(_askable)]
    options: CaseOptions = CaseOptions()


class ModelRef(Value):
    """A model on this machine.

    Attributes:
        name: Its name in stacks/models.toml.
        path: The GGUF file.
        sha256: The hash the file was seen to have.
        chat_template: A template that replaces the file's own; None keeps it.
        calls: The form in which the model writes tool calls: `hermes`, JSON objects between `<tool_call>` tags.
        reasoning: The form in which it writes reasoning: `think`, a block between `<think>` tags before the answer.
    """

    name: str
    path: Path
    sha256: str
    chat_template: str | None = None
    calls: Literal["hermes"] | None = None
    reasoning: Literal["think"] | None = None


class Request(Value):
    """What reaches the model server.

    Attributes:
        messages: The messages, in order.
        tools: The tools declared, or None.
        tool_choice: As the server gets it, or None.
        settings: Sampling settings by their OpenAI or llama.cpp name; in a golden those that the case asks for, in an
            observation every one in force.
        defaults: In an observation, which of them have the part's own default, so that nobody need have asked; None
            where that is not known.
    """

    messages: tuple[Json, ...]
    tools: tuple[Json, ...] | None = None
    tool_choice: Any = None
    settings: Json = Field(default_factory=dict)
    defaults: tuple[str, ...] | None = None


class Prompt(Value):
    """The rendered text.

    Attributes:
        text: The exact text.
        suffix: Its end that opens the assistant's turn, where known.
        literals: Spans (start, end) in characters where the caller's own text spells a control token. Only a
            reference knows them.
        stop: Stop strings that the template stage adds to the caller's.
        dates: In a golden, where the template printed the clock: spans (start, end) and the `strftime` format of each.
        clock: In an observation of a part whose clock cannot be set, the time that it had.
        policies: In a golden, the text that a declared policy would give instead, by the policy's name.
    """

    text: str
    suffix: str | None = None
    literals: tuple[tuple[int, int], ...] = ()
    stop: tuple[str, ...] = ()
    dates: tuple[tuple[int, int, str], ...] = ()
    clock: datetime | None = None
    policies: dict[str, str] = Field(default_factory=dict)

    def at(self, clock: datetime) -> str:
        """Return the text as it would be at another time."""
        parts, end = [], 0
        for start, stop, form in self.dates:
            parts += [self.text[end:start], clock.strftime(form)]
            end = stop
        return "".join([*parts, self.text[end:]])


class Tokens(Value):
    """The ids the engine is fed.

    Attributes:
        ids: The ids.
        pieces: Each id's text for a reader, where known; bytes that are no UTF-8 are shown as replacement characters.
        policies: In a golden, the ids that a declared policy would give instead, by the policy's name.
    """

    ids: tuple[int, ...]
    pieces: tuple[str, ...] | None = None
    policies: dict[str, tuple[int, ...]] = Field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Distributions:
    """Natural log-probabilities of the next token, one row a generated position.

    Attributes:
        logprobs: float32, (positions, K): all entries in id order, or those of `ids`.
        ids: int32, (positions, K), likeliest first; None where `logprobs` holds the whole vocabulary.
        rest: float32, (positions,): log of the probability that is not in `logprobs`; None where nothing is left out.
    """

    logprobs: NDArray[np.float32]
    ids: NDArray[np.int32] | None = None
    rest: NDArray[np.float32] | None = None

    @classmethod
    def from_logits(cls, logits: NDArray[np.float32]) -> Distributions:
        """Normalise rows of logits, (positions, vocabulary). A row with NaN or without a finite maximum is all NaN."""
        with np.errstate(invalid="ignore", over="ignore"):
            shifted = logits - logits.max(axis=1, keepdims=True)
            normaliser = np.log(np.exp(shifted).sum(axis=1, keepdims=True, dtype=np.float64)).astype(np.float32)
            return cls(shifted - normaliser)

    @classmethod
    def kept(cls, logprobs: NDArray[np.float32], ids: NDArray[np.int32]) -> Distributions:
        """Return what is known where only the likeliest entries are: the rest is the probability that they leave."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            left = 1.0 - np.exp(logprobs.astype(np.float64)).sum(axis=1)
            return cls(logprobs, ids, np.log(np.maximum(left, 0.0)).astype(np.float32))

    @classmethod
    def of_top(cls, rows: Sequence[Mapping[int, float]]) -> Distributions:
        """Return rows of log-probabilities by id, cut to the shortest; at least one row.

        Raises:
            ValueError: a row is empty.
        """
        width = min(len(row) for row in rows)
        if not width:
            raise ValueError("a position without numbers")
        tops = [sorted(row.items(), key=lambda pair: (-pair[1], pair[0]))[:width] for row in rows]
        ids = np.array([[token for token, _ in top] for top in tops], dtype=np.int32)
        with np.errstate(over="ignore"):
            logprobs = np.array([[logprob for _, logprob in top] for top in tops], dtype=np.float32)
        return cls.kept(logprobs, ids)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Distributions):
            return NotImplemented
        pairs = ((self.logprobs, other.logprobs), (self.ids, other.ids), (self.rest, other.rest))
        return all(
            one is two or (one is not None and two is not None and np.array_equal(one, two, equal_nan=True))
            for one, two in pairs
        )

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return int(self.logprobs.shape[0])

    def head(self, positions: int) -> Distributions:
        """Return the first rows."""
        return Distributions(
            self.logprobs[:positions],
            None if self.ids is None else self.ids[:positions],
            None if self.rest is None else self.rest[:positions],
        )

    def top(self, k: int = TOP_K) -> Distributions:
        """Return the k likeliest entries of every row and the log of what is left over."""
        if self.ids is not None:
            return self
        ids = np.stack([_likeliest(row, k) for row in self.logprobs]) if len(self) else np.empty((0, k), np.int32)
        return Distributions.kept(np.take_along_axis(self.logprobs, ids, axis=1), ids)

    def at(self, row: int, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return a row's log-probabilities of the ids; NaN for one that was not kept."""
        if self.ids is None:
            row_of: NDArray[np.float32] = self.logprobs[row, ids]
            return row_of
        known = dict(zip(self.ids[row].tolist(), self.logprobs[row].tolist(), strict=True))
        return np.array([known.get(i, np.nan) for i in ids.tolist()], dtype=np.float32)

    def argmax(self) -> tuple[int, ...]:
        """Return the likeliest id of every row; the lowest id of several equal ones, as a greedy sampler takes it."""
        if self.ids is None:
            return tuple(int(i) for i in self.logprobs.argmax(axis=1))
        return tuple(int(i) for i in self.ids[:, 0])


def _likeliest(row: NDArray[np.float32], k: int) -> NDArray[np.int32]:
    """Return the ids of the k largest entries, largest first; of equal ones the lowest ids, at the cut too."""
    k = min(k, row.size)
    # Sorting a whole vocabulary to keep its head takes ten times as long.
    cut = row[np.argpartition(-row, k - 1)[k - 1]]
    candidates = np.flatnonzero(row >= cut)
    if candidates.size < k:
        # A row with NaN.
        candidates = np.arange(row.size)
    return candidates[np.argsort(-row[candidates], kind="stable")[:k]].astype(np.int32)


class Generation(Value):
    """What the engine gave back.

    Attributes:
        ids: The ids that stand at each position: those chosen, or those forced; an end token included.
        chosen: What the sampler chose at each position, given the ids before it.
        finish: Why it ended: `end_token`, `length`, `stop` (a stop string or criterion), or `forced` (the ids to
            force ran out).
        distributions: One row a position; None where the engine does not show them.
        digests: SHA-256 of each row of raw float32 logits, for bit-exact comparison; empty where unknown.
        settings: The settings in force at the sampler, where seen.
        defaults: Which of them have the part's own default; None where that is not known.
        beyond: In a golden that the length limit cuts inside a character, the ids that would have completed it.
    """

    ids: tuple[int, ...]
    chosen: tuple[int, ...]
    finish: Literal["end_token", "length", "stop", "forced"]
    distributions: Distributions | None = Field(default=None, exclude=True)
    digests: tuple[str, ...] = ()
    settings: Json = Field(default_factory=dict)
    defaults: tuple[str, ...] | None = None
    beyond: tuple[int, ...] = ()

    @classmethod
    def tapped(cls, seen: Json) -> Self:
        """Return what taps at an engine saw: the fields above, with `logits` (positions by vocabulary) of float32."""
        names = ("ids", "chosen", "finish", "digests", "settings", "defaults")
        found = {name: seen[name] for name in names}
        return cls(**found, distributions=Distributions.from_logits(seen["logits"]))


class Usage(Value):
    """The token counts of a reply."""

    prompt_tokens: int
    completion_tokens: int


class Reply(Value):
    """What the caller gets.

    Attributes:
        content: The answer's text.
        reasoning: The reasoning that was split off, or None.
        tool_calls: The calls, in OpenAI form, or None.
        finish_reason: `stop`, `length`, `tool_calls`, ...
        usage: Token counts, or None where the reply has none.
        deltas: Of a streamed reply, the deltas as they came; None otherwise. The fields above then hold what a caller
            who adds them up has.
        withheld: In a golden, how many bytes of an incomplete character the reply must not show.
        policies: In a golden, the reply that a declared policy would give instead, by the policy's name.
    """

    content: str | None
    reasoning: str | None = None
    tool_calls: tuple[Json, ...] | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    deltas: tuple[Json, ...] | None = None
    withheld: int = 0
    policies: dict[str, Reply] = Field(default_factory=dict)


_CONTEXT_WORDS = (("exceed", "context"), ("maximum context length",), ("sequence length is greater than",))
"""What stands in a refusal of a prompt that does not fit: of llama.cpp, of OpenAI and who quotes it, of mistral.rs."""


_TRACEBACK = ("While executing ", "Traceback (most recent call last)")
"""How llama.cpp's template engine and Python begin to say where an error was, before they say which."""


class Refusal(Value):
    """A part refused its input and said why.

    Attributes:
        error: The name of the error.
        message: Its whole text.
        context: The prompt is longer than the context.
        policies: In a golden of the template stage, the text that a declared policy would give instead, by the
            policy's name.
    """

    kind: Literal["refusal"] = "refusal"
    error: str
    message: str
    context: bool = False
    policies: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def of(cls, error: str, message: str) -> Self:
        """Return the refusal that an error with this name and text is."""
        said = [line.lower() for line in message.splitlines()]
        too_long = any(all(word in line for word in words) for words in _CONTEXT_WORDS for line in said)
        return cls(error=error, message=message.strip(), context=too_long)

    @property
    def line(self) -> str:
        """The line of the message that holds the reason: the first, or the last where a traceback comes before it."""
        lines = [line.strip() for line in self.message.splitlines() if line.strip()]
        traced = any(line.startswith(_TRACEBACK) for line in lines)
        return (lines[-1] if traced else lines[0]) if lines else ""


class Failure(Value):
    """A part died or did not answer.

    Attributes:
        reason: `start` (it could not be started, and said why), `crash`, `hang` or `broken` (it answered what no
            protocol allows).
        message: What it said, of a failed start or a broken answer; of a hang, what made its limit longer.
        signal: The signal's name, of a crash by one.
        status: The exit status, of a crash without one.
        seconds: How long was waited for it, of a hang.
        log: The last lines that it wrote.
    """

    kind: Literal["failure"] = "failure"
    reason: Literal["start", "crash", "hang", "broken"]
    message: str | None = None
    signal: str | None = None
    status: int | None = None
    seconds: float | None = None
    log: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return one line for a human."""
        if self.reason == "hang":
            what = f"no answer in {self.seconds:g} s{f' ({self.message})' if self.message else ''}"
        elif self.reason == "start":
            what = f"could not start: {self.message}"
        elif self.reason == "broken":
            what = f"broke the protocol: {self.message}"
        else:
            what = f"died by {self.signal}" if self.signal else f"exited with status {self.status}"
        return f"{what}; last log line: {self.log[-1]}" if self.log else what


class Unobserved(Value):
    """A stage that could not be looked at, and why."""

    kind: Literal["unobserved"] = "unobserved"
    reason: str


class OwnError(Value):
    """Code of ours raised while a stage was looked at: nothing is known of the stage, and nobody is at fault.

    Attributes:
        error: The name of the exception.
        message: Its text.
        place: Where in the harness it was raised.
        traceback: The whole traceback, of both processes where a child raised it.
    """

    kind: Literal["error"] = "error"
    error: str
    message: str
    place: str = ""
    traceback: str = ""

    def describe(self) -> str:
        """Return one line for a human."""
        said = " ".join(self.message.split())
        return f"{self.error}{': ' if said else ''}{said}{' in ' if self.place else ''}{self.place}"


Ending = Refusal | Failure | Unobserved | OwnError
"""How a stage ends that does not end with a value."""


class Observation(Value):
    """What the stages of one case produced, as far as the run came: a value or an ending each; None if not reached.

    Attributes:
        broke: How a call of the whole path ended, where nobody can say in which stage.
        answered: What the server answered, where a client of its own stands between it and the caller.
    """

    request: Request | Ending | None = None
    prompt: Prompt | Ending | None = None
    tokens: Tokens | Ending | None = None
    generation: Generation | Ending | None = None
    reply: Reply | Ending | None = None
    broke: Failure | Refusal | OwnError | None = None
    answered: Reply | None = None

    @property
    def own_errors(self) -> tuple[OwnError, ...]:
        """The errors of our own among the endings."""
        ends = (self.request, self.prompt, self.tokens, self.generation, self.reply, self.broke)
        return tuple(one for one in ends if isinstance(one, OwnError))


def shown(pieces: Sequence[bytes]) -> tuple[str, ...]:
    """Return token pieces as text for a reader."""
    return tuple(piece.decode("utf-8", errors="replace") for piece in pieces)
