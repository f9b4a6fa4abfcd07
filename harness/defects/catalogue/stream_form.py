"""Defects of a stream's form: its roles, its end, and chunks of another shape. Whole answers stay as they are."""

from __future__ import annotations

import copy
from typing import Any

from harness.defects.catalogue.stream import delta_of, ends, texts
from harness.defects.defect import defect
from harness.defects.places import Answer, Generated
from harness.values import Json


@defect("pp-stream-role-lost", place="answer", sentence="No chunk of a stream has the role.")
def role_lost(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Take the role out of each delta."""
    if not isinstance(answer, list):
        return answer
    found = copy.deepcopy(answer)
    for chunk in found:
        delta_of(chunk).pop("role", None)
    return found


@defect("pp-stream-first-chunk-lost", place="answer", sentence="The first chunk of a stream, with the role, is lost.")
def first_chunk_lost(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Leave the first chunk out."""
    return answer[1:] if isinstance(answer, list) else answer


@defect("pp-stream-finish-lost", place="answer", sentence="The chunk with the finish reason is never sent.")
def finish_lost(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Leave out every chunk with a finish reason."""
    if not isinstance(answer, list):
        return answer
    places = set(ends(answer))
    return [chunk for at, chunk in enumerate(answer) if at not in places]


@defect("pp-stream-finish-stop", place="answer", reason="stop", sentence="A stream's finish reason is always stop.")
@defect(
    "pp-stream-finish-length", place="answer", reason="length", sentence="A stream's finish reason is always length."
)
@defect("pp-stream-finish-null", place="answer", reason=None, sentence="A stream ends without a finish reason.")
def stream_finish(answer: Answer, seen: Generated, reason: str | None) -> Answer:  # noqa: ARG001
    """Give a stream this finish reason where it has one."""
    if not isinstance(answer, list):
        return answer
    found = copy.deepcopy(answer)
    for at in ends(answer):
        found[at]["choices"][0]["finish_reason"] = reason
    return found


@defect(
    "pp-stream-finish-everywhere", place="answer", sentence="Every chunk has a finish reason, so callers stop early."
)
def finish_everywhere(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Put the finish reason into each chunk."""
    if not isinstance(answer, list) or not ends(answer):
        return answer
    found = copy.deepcopy(answer)
    reason = answer[ends(answer)[-1]]["choices"][0]["finish_reason"]
    for chunk in found:
        if chunk.get("choices"):
            chunk["choices"][0]["finish_reason"] = reason
    return found


@defect("pp-stream-text-after-finish", place="answer", sentence="Text comes after the chunk with the finish reason.")
def text_after_finish(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Put the last chunk of text behind the end."""
    if not isinstance(answer, list) or not texts(answer):
        return answer
    last = texts(answer)[-1]
    return [*answer[:last], *answer[last + 1 :], answer[last]]


@defect(
    "pp-stream-usage-unasked",
    place="answer",
    sentence="A chunk without a choice, for the usage that nobody asked for, comes first.",
)
def usage_unasked(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Put a chunk with an empty list of choices before the others."""
    if not isinstance(answer, list) or not answer:
        return answer
    return [{**answer[0], "choices": [], "usage": None}, *answer]


@defect("pp-stream-messages", place="answer", sentence="A stream's chunks have a message where the delta belongs.")
def messages_for_deltas(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Rename the deltas."""
    if not isinstance(answer, list):
        return answer
    return [{**chunk, "choices": [_renamed(one) for one in chunk.get("choices", ())]} for chunk in answer]


def _renamed(choice: Json) -> dict[str, Any]:
    return {"message" if name == "delta" else name: value for name, value in choice.items()}


@defect("pp-stream-not-streamed", place="answer", sentence="A stream is asked for and sends nothing at all.")
def nothing_sent(answer: Answer, seen: Generated) -> Answer:  # noqa: ARG001
    """Send no chunk."""
    return [] if isinstance(answer, list) else answer
