"""Defects of the calls that a parser takes out of an answer, whole and streamed. They show where calls are parsed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.defects.catalogue.postprocess import with_choice
from harness.defects.defect import defect
from harness.defects.places import Answer, Generated
from harness.values import Json

_MODELS = ("smollm2-135m-instruct-tools",)


def _named(call: Json, change: Callable[[str], str]) -> Json:
    function = call["function"]
    return {**call, "function": {**function, "name": change(function["name"])}} if function.get("name") else call


def _argued(call: Json, change: Callable[[str], Any]) -> Json:
    function = call["function"]
    if "arguments" not in function:
        return call
    return {**call, "function": {**function, "arguments": change(function["arguments"])}}


def _without(call: Json, name: str) -> Json:
    return {key: value for key, value in call.items() if key != name}


def _as_texts(text: str) -> str:
    found = json.loads(text)
    plain = {key: value if isinstance(value, str) else json.dumps(value) for key, value in found.items()}
    return text if plain == found else json.dumps(plain, ensure_ascii=False)


_CALLS: Mapping[str, Callable[[Json], Json]] = {
    "encoded twice": lambda call: _argued(call, json.dumps),
    "object": lambda call: _argued(call, json.loads),
    "cut": lambda call: _argued(call, lambda text: text[:-1]),
    "lost": lambda call: _argued(call, lambda text: ""),  # noqa: ARG005
    "emptied": lambda call: _argued(call, lambda text: "{}"),  # noqa: ARG005
    "texts": lambda call: _argued(call, _as_texts),
    "ascii": lambda call: _argued(call, lambda text: "".join(letter for letter in text if letter.isascii())),
    "named twice": lambda call: _named(call, lambda name: name * 2),
    "newline": lambda call: _named(call, lambda name: f"{name}\n"),
    "prefixed": lambda call: _named(call, lambda name: f"functions.{name}"),
    "no id": lambda call: _without(call, "id"),
    "empty id": lambda call: {**call, "id": ""},
    "one id": lambda call: {**call, "id": "call_0"},
    "no type": lambda call: _without(call, "type"),
    "bare": lambda call: {key: value for key, value in call.items() if key != "function"} | call["function"],
}
"""What may be done to a call of a whole answer, by name."""


def _call(name: str, change: str, sentence: str, *references: str) -> Callable[..., Callable[..., Answer]]:
    return defect(name, place="answer", change=change, sentence=sentence, models=_MODELS, references=references)


@_call(
    "pp-double-encoded-args",
    "encoded twice",
    "A call's arguments are JSON of JSON.",
    "vllm-project/vllm#54964",
)
@_call("pp-args-object", "object", "A call's arguments are an object where their JSON belongs.")
@_call("pp-args-cut", "cut", "A call's arguments lack their last character.", "vllm-project/vllm#10395")
@_call("pp-args-lost", "lost", "A call's arguments are an empty text.", "vllm-project/vllm#13622")
@_call("pp-args-emptied", "emptied", "A call's arguments are an empty object.")
@_call("pp-args-texts", "texts", "Every argument of a call is a text, numbers and objects too.")
@_call("pp-args-ascii", "ascii", "A call's arguments lose the characters beyond ASCII.")
@_call("pp-toolname-doubled", "named twice", "A call's function has its name twice.", "ggml-org/llama.cpp#13800")
@_call("pp-toolname-whitespace", "newline", "A newline stands behind a function's name.", "ml-explore/mlx-lm#1756")
@_call("pp-toolname-prefixed", "prefixed", "A function's name has a namespace before it that nobody declared.")
@_call("pp-call-id-lost", "no id", "A call has no id.")
@_call("pp-call-id-empty", "empty id", "A call's id is an empty text.")
@_call("pp-call-ids-same", "one id", "All calls have one id.", "NousResearch/hermes-agent#3468")
@_call("pp-call-type-lost", "no type", "A call has no type.", "vllm-project/vllm#16340")
@_call("pp-call-bare", "bare", "A call's name and arguments stand in the call itself, not in its function.")
def call_changed(answer: Answer, seen: Generated, change: str) -> Answer:  # noqa: ARG001
    """Change each call of a whole answer."""
    return _with_calls(answer, lambda calls: [_CALLS[change](call) for call in calls])


@defect("pp-calls-first-only", place="answer", models=_MODELS, only=True, sentence="Of several calls only one is kept.")
@defect("pp-calls-reversed", place="answer", models=_MODELS, only=False, sentence="Calls come in the reverse order.")
def calls_ordered(answer: Answer, seen: Generated, only: bool) -> Answer:  # noqa: ARG001
    """Keep the first call, or turn their order round."""
    return _with_calls(answer, lambda calls: calls[:1] if only else calls[::-1])


@defect("pp-call-doubled", place="answer", models=_MODELS, sentence="The last call is there twice.")
def call_doubled(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Add the last call again, with an id of its own."""
    return _with_calls(answer, lambda calls: [*calls, {**calls[-1], "id": f"{calls[-1].get('id')}x"}])


def _with_calls(answer: Answer, change: Callable[[list[Json]], list[Json]]) -> Answer:
    calls = None if isinstance(answer, list) else answer["choices"][0]["message"].get("tool_calls")
    if not calls:
        return answer
    answer = copy.deepcopy(answer)
    assert isinstance(answer, dict)
    answer["choices"][0]["message"]["tool_calls"] = change(copy.deepcopy(calls))
    return answer


@defect(
    "pp-bare-json-not-parsed",
    place="answer",
    models=_MODELS,
    before="",
    behind="",
    sentence="A call without its tags is not parsed: its JSON is the content.",
    references=("ollama/ollama#12174", "abetlen/llama-cpp-python#1784"),
)
@defect(
    "pp-parser-format-mismatch",
    place="answer",
    models=_MODELS,
    before="<tool_call>\n",
    behind="\n</tool_call>",
    sentence="The parser is another family's: a call is left in the content as it was generated.",
    references=("vllm-project/vllm#46863", "vllm-project/vllm#16214"),
)
def calls_in_content(answer: Answer, seen: Generated, before: str, behind: str) -> Answer:  # noqa: ARG001
    """Write the calls into the content of a whole answer and take them out."""
    message = {} if isinstance(answer, list) else answer["choices"][0]["message"]
    if isinstance(answer, list) or not message.get("tool_calls"):
        return answer
    functions = [call["function"] for call in message["tool_calls"]]
    written = [f'{{"name": {json.dumps(one["name"])}, "arguments": {one["arguments"]}}}' for one in functions]
    text = "\n".join(f"{before}{one}{behind}" for one in written)
    kept = {key: value for key, value in message.items() if key != "tool_calls"}
    return with_choice(
        answer, message={**kept, "content": f"{message.get('content') or ''}{text}"}, finish_reason="stop"
    )


@defect("pp-calls-lost", place="answer", models=_MODELS, sentence="A call is taken out of the content and lost.")
def calls_lost(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Leave the calls out of a whole answer."""
    if isinstance(answer, list) or not answer["choices"][0]["message"].get("tool_calls"):
        return answer
    return with_choice(answer, message=_without(answer["choices"][0]["message"], "tool_calls"))


@defect("pp-calls-end-as-stop", place="answer", models=_MODELS, sentence="An answer with calls ends by stop.")
def calls_end_as_stop(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Say stop where a whole answer has calls."""
    if isinstance(answer, list) or not answer["choices"][0]["message"].get("tool_calls"):
        return answer
    return with_choice(answer, finish_reason="stop")


# Streams

_PIECES: Mapping[str, Callable[[Json, Json], Json]] = {
    "index zero": lambda piece, first: {**piece, "index": 0},  # noqa: ARG005
    "no index": lambda piece, first: _without(piece, "index"),  # noqa: ARG005
    "name again": lambda piece, first: {
        **piece,
        "function": {"name": first["function"].get("name"), **piece.get("function", {})},
    },
    "id below": lambda piece, first: (  # noqa: ARG005
        {**_without(piece, "id"), "function": {**piece.get("function", {}), "id": piece["id"]}}
        if "id" in piece
        else piece
    ),
    "no braces": lambda piece, first: (  # noqa: ARG005
        _argued(piece, lambda text: "" if text == "{}" else text) if piece.get("function") else piece
    ),
    "no opening": lambda piece, first: (  # noqa: ARG005
        _argued(piece, lambda text: "" if text.startswith('{"') else text) if piece.get("function") else piece
    ),
}
"""What may be done to a streamed piece of a call, given the call's first one."""


@defect(
    "pp-tool-index-zero",
    place="answer",
    models=_MODELS,
    change="index zero",
    sentence="Every streamed call has the index 0, so callers add them up to one.",
    references=("ollama/ollama#15457", "ollama/ollama#7881"),
)
@defect(
    "pp-tool-index-lost",
    place="answer",
    models=_MODELS,
    change="no index",
    sentence="Streamed calls have no index.",
    references=("BerriAI/litellm#33678", "vercel/ai#14277"),
)
@defect(
    "pp-tool-delta-shape",
    place="answer",
    models=_MODELS,
    change="id below",
    sentence="The id of a streamed call stands in its function.",
    references=("ggml-org/llama.cpp#13800",),
)
@defect(
    "pp-tool-delta-shape-name",
    place="answer",
    models=_MODELS,
    change="name again",
    sentence="Every piece of a streamed call repeats the function's name.",
    references=("vllm-project/vllm#16340",),
)
@defect(
    "pp-stream-args-corrupted",
    place="answer",
    models=_MODELS,
    change="no opening",
    sentence="The piece of a call's arguments that opens the object is never streamed.",
    references=("vllm-project/vllm#10395", "vllm-project/vllm#28806"),
)
@defect(
    "pp-stream-args-empty-lost",
    place="answer",
    models=_MODELS,
    change="no braces",
    sentence="Empty arguments are never streamed.",
    references=("vllm-project/vllm#13622",),
)
def pieces_changed(answer: Answer, seen: Generated, change: str) -> Answer:  # noqa: ARG001
    """Change each piece of each streamed call."""
    if not isinstance(answer, list):
        return answer
    found = copy.deepcopy(answer)
    firsts: dict[Any, Json] = {}
    for pieces in _pieces(found):
        for at, piece in enumerate(pieces):
            first = firsts.setdefault(piece.get("index"), copy.deepcopy(piece))
            pieces[at] = _PIECES[change](piece, first if "function" in first else {"function": {}})
    return found


@defect(
    "pp-stream-args-end-lost",
    place="answer",
    models=_MODELS,
    sentence="The last piece of a call's arguments is never streamed.",
    references=("vllm-project/vllm#32152",),
)
def last_piece_lost(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Empty the last piece of the last call."""
    if not isinstance(answer, list):
        return answer
    found = copy.deepcopy(answer)
    argued = [one for pieces in _pieces(found) for one in pieces if one.get("function", {}).get("arguments")]
    if argued:
        argued[-1]["function"]["arguments"] = ""
    return found


def _pieces(chunks: Sequence[Json]) -> list[list[Json]]:
    deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", ())]
    return [delta["tool_calls"] for delta in deltas if delta.get("tool_calls")]
