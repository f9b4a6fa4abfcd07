"""Defects of a stream's text: chunks lost, doubled, swapped or cut wrongly. Whole answers stay as they are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from harness.defects.catalogue.postprocess import raw_text, stops_of
from harness.defects.defect import defect
from harness.defects.places import Answer, Generated
from harness.values import Json

_At = Literal["first", "middle", "last"]


def texts(chunks: Sequence[Json]) -> list[int]:
    """Return where the chunks with text are."""
    return [at for at, chunk in enumerate(chunks) if delta_of(chunk).get("content")]


def ends(chunks: Sequence[Json]) -> list[int]:
    """Return where the chunks with a finish reason are."""
    return [at for at, chunk in enumerate(chunks) if chunk.get("choices") and chunk["choices"][0].get("finish_reason")]


def delta_of(chunk: Json) -> Json:
    """Return the delta of a chunk; an empty one where it has no choice."""
    delta: Json = chunk["choices"][0]["delta"] if chunk.get("choices") else {}
    return delta


def _one(places: Sequence[int], at: _At) -> int:
    return places[{"first": 0, "middle": len(places) // 2, "last": -1}[at]]


def with_text(chunk: Json, text: str) -> Json:
    """Return a chunk with another text in its delta."""
    chunk = copy.deepcopy(chunk)
    chunk["choices"][0]["delta"]["content"] = text
    return chunk


@defect("pp-stream-first-lost", place="answer", at="first", sentence="The first chunk of text is lost.")
@defect("pp-stream-middle-lost", place="answer", at="middle", sentence="A chunk in the middle of the text is lost.")
@defect("pp-stream-last-lost", place="answer", at="last", sentence="The last chunk of text is lost.")
def chunk_lost(answer: Answer, seen: Generated, at: _At) -> Answer:  # noqa: ARG001
    """Leave one chunk of text out."""
    if not isinstance(answer, list) or not texts(answer):
        return answer
    place = _one(texts(answer), at)
    return answer[:place] + answer[place + 1 :]


@defect("pp-stream-first-doubled", place="answer", at="first", sentence="The first chunk of text is sent twice.")
@defect("pp-stream-middle-doubled", place="answer", at="middle", sentence="A chunk in the middle is sent twice.")
@defect("pp-stream-last-doubled", place="answer", at="last", sentence="The last chunk of text is sent twice.")
def chunk_doubled(answer: Answer, seen: Generated, at: _At) -> Answer:  # noqa: ARG001
    """Repeat one chunk of text."""
    if not isinstance(answer, list) or not texts(answer):
        return answer
    place = _one(texts(answer), at)
    return [*answer[: place + 1], *answer[place:]]


@defect("pp-stream-swapped", place="answer", at="first", sentence="The first two chunks of text are swapped.")
@defect("pp-stream-swapped-last", place="answer", at="last", sentence="The last two chunks of text are swapped.")
def chunks_swapped(answer: Answer, seen: Generated, at: _At) -> Answer:  # noqa: ARG001
    """Swap two neighbouring chunks' texts."""
    if not isinstance(answer, list) or len(texts(answer)) < 2:
        return answer
    one, other = texts(answer)[:2] if at == "first" else texts(answer)[-2:]
    found = list(answer)
    found[one] = with_text(answer[one], delta_of(answer[other])["content"])
    found[other] = with_text(answer[other], delta_of(answer[one])["content"])
    return found


_CHANGES: Mapping[str, Callable[[str], str]] = {
    "strip": str.strip,
    "lstrip": str.lstrip,
    "rstrip": str.rstrip,
    "blank": lambda text: text if text.strip() else "",
    "newlines": lambda text: text.replace("\n", ""),
    "first": lambda text: text[1:],
    "lines": lambda text: f"{text}\n",
    "broken": lambda text: "".join(letter if ord(letter) < 0x10000 else "\ufffd" for letter in text),
}


@defect(
    "pp-stream-stripped",
    place="answer",
    change="strip",
    sentence="Every delta is stripped of the white space around it.",
    references=("triton-inference-server/tensorrtllm_backend#423",),
)
@defect(
    "pp-stream-leading-space",
    place="answer",
    change="lstrip",
    sentence="Every delta loses the space before it, as if each began a text.",
    references=("triton-inference-server/tensorrtllm_backend#423",),
)
@defect(
    "pp-stream-trailing-space",
    place="answer",
    change="rstrip",
    sentence="Every delta loses the white space behind it.",
)
@defect(
    "pp-stream-blank-dropped",
    place="answer",
    change="blank",
    sentence="A delta of nothing but white space is taken for an empty one.",
)
@defect(
    "pp-stream-newlines-lost",
    place="answer",
    change="newlines",
    sentence="Newlines are lost between the lines of the event stream.",
)
@defect(
    "pp-stream-first-characters-lost",
    place="answer",
    change="first",
    sentence="Every delta loses its first character, be it a space or not.",
    references=("abetlen/llama-cpp-python#1375",),
)
@defect("pp-stream-lines", place="answer", change="lines", sentence="Every delta is followed by a newline.")
@defect("pp-stream-emoji-broken", place="answer", change="broken", sentence="A character of four bytes is U+FFFD.")
def deltas_changed(answer: Answer, seen: Generated, change: str) -> Answer:  # noqa: ARG001
    """Change the text of each delta."""
    if not isinstance(answer, list):
        return answer
    places = set(texts(answer))
    return [
        with_text(chunk, _CHANGES[change](delta_of(chunk)["content"])) if at in places else chunk
        for at, chunk in enumerate(answer)
    ]


@defect(
    "pp-partial-utf8-stream",
    place="answer",
    errors="replace",
    sentence="Each token is decoded by itself: a character of several tokens becomes several U+FFFD.",
    references=("abetlen/llama-cpp-python#372", "ggml-org/llama.cpp#4036"),
)
@defect(
    "pp-partial-utf8-stream-lost",
    place="answer",
    errors="ignore",
    sentence="Each token is decoded by itself: a character of several tokens is lost.",
    references=("ml-explore/mlx-lm#312", "kherud/java-llama.cpp#3"),
)
def decoded_apart(answer: Answer, seen: Generated, errors: str) -> Answer:
    """Send a chunk a token, each decoded on its own."""
    if not isinstance(answer, list) or not texts(answer):
        return answer
    places = texts(answer)
    left = "".join(delta_of(answer[at])["content"] for at in places).encode("utf-8")
    deltas: list[str] = []
    for piece in seen.pieces:
        if left and left.startswith(piece):
            deltas.append(piece.decode("utf-8", errors=errors))
            left = left[len(piece) :]
    if not deltas:
        return answer
    deltas.append(left.decode("utf-8", errors=errors))
    made = [with_text(answer[places[0]], text) for text in deltas if text]
    kept = [chunk for at, chunk in enumerate(answer) if at not in places]
    return [*kept[: places[0]], *made, *kept[places[0] :]]


@defect(
    "pp-stop-prefix-leak",
    place="answer",
    whole=False,
    sentence="A stream sends the beginning of a stop string before it knows that it is one.",
    references=("vllm-project/vllm#3574", "sgl-project/sglang#11462"),
)
@defect(
    "pp-stop-stream-leak",
    place="answer",
    whole=True,
    sentence="A stream sends the stop string.",
    references=("vllm-project/vllm#2577",),
)
def stop_leaked(answer: Answer, seen: Generated, whole: bool) -> Answer:
    """Send the stop string, or all but its last character, behind the text that it ended."""
    if not isinstance(answer, list) or not texts(answer):
        return answer
    places = texts(answer)
    content = "".join(delta_of(answer[at])["content"] for at in places)
    raw = raw_text(seen)
    stop = next((one for one in stops_of(seen) if raw.startswith(content + one)), None)
    if stop is None:
        return answer
    last = places[-1] + 1
    return [*answer[:last], with_text(answer[places[-1]], stop if whole else stop[:-1]), *answer[last:]]


@defect(
    "pp-stop-held-back",
    place="answer",
    sentence="What a stream held back, because it may begin a stop string, is never sent.",
)
def held_back(answer: Answer, seen: Generated) -> Answer:
    """Cut the longest end of the text that begins a stop string; at the end of the text none does any more."""
    if not isinstance(answer, list) or not texts(answer):
        return answer
    places = texts(answer)
    content = "".join(delta_of(answer[at])["content"] for at in places)
    starts = [stop[:size] for stop in stops_of(seen) for size in range(len(stop), 0, -1)]
    held = max((len(start) for start in starts if content.endswith(start)), default=0)
    found = list(answer)
    for at in reversed(places):
        text = delta_of(answer[at])["content"]
        cut = min(held, len(text))
        found[at] = with_text(answer[at], text[: len(text) - cut])
        held -= cut
    return found


@defect("pp-stream-cumulative", place="answer", sentence="Every delta holds the whole text so far.")
def cumulative(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Put the text before it into each delta."""
    if not isinstance(answer, list):
        return answer
    found, text = list(answer), ""
    for at in texts(answer):
        text += delta_of(answer[at])["content"]
        found[at] = with_text(answer[at], text)
    return found


@defect("pp-stream-summed-up", place="answer", sentence="The whole text is sent once more with the finish reason.")
def summed_up(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Put the whole text into the last chunk."""
    if not isinstance(answer, list) or not ends(answer):
        return answer
    content = "".join(delta_of(answer[at])["content"] for at in texts(answer))
    last = ends(answer)[-1]
    return [with_text(chunk, content) if at == last else chunk for at, chunk in enumerate(answer)]
