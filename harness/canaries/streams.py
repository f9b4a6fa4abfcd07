"""Streams: what their chunks add up to."""

from __future__ import annotations

from typing import Final

from harness.canaries.asking import Asking, content, counts, deltas, finish, joined, usage_of
from harness.canaries.canary import Said, canary, right, unseen, wrong
from harness.stage import Stage
from harness.values import Json
from harness.wire.form import reading

_USAGE: Final[Json] = {"stream_options": {"include_usage": True}}


@canary("kind of the chunks", Stage.POSTPROCESS, '"chat.completion.chunk"', "chunk object", must_be_taken=True)
def _objects(ask: Asking) -> Said:
    found = {one.get("object") for one in ask.stream()}
    if found == {"chat.completion.chunk"}:
        return right(f"{len(ask.stream())} chunks, and [DONE]")
    return wrong(sorted(map(str, found)), f"chunks have the objects {sorted(map(str, found))}")


@canary("one id for all chunks", Stage.POSTPROCESS, "each chunk has the same id", "chunk object, id")
def _ids(ask: Asking) -> Said:
    found = {str(one.get("id")) for one in ask.stream()}
    return (
        right(found.pop()) if len(found) == 1 else wrong(len(found), f"the chunks of one stream have {len(found)} ids")
    )


@canary("role in a stream", Stage.POSTPROCESS, "the first delta says assistant", "chunk object, delta.role")
def _role(ask: Asking) -> Said:
    found = [one.get("role") for one in deltas(ask.stream())]
    if found and found[0] == "assistant":
        return right("assistant")
    if found and found[0] is None and "assistant" in found:
        return unseen("a later delta says assistant, and the API promises the role of no delta")
    return wrong(found[:2], f"the first delta's role is {found[0] if found else 'missing'!r}, not 'assistant'")


@canary("choice of the chunks", Stage.POSTPROCESS, "index 0, where one choice is asked for", "chunk object, index")
def _index(ask: Asking) -> Said:
    with reading("a chunk is none"):
        found = {choice.get("index") for one in ask.stream() for choice in one.get("choices") or ()}
    shown = sorted(map(str, found))
    return right(shown) if found == {0} else wrong(shown, f"the choices of the chunks have the indexes {shown}")


@canary("text of a stream", Stage.POSTPROCESS, "adds up to the answer without a stream", "stream")
def _text(ask: Asking) -> Said:
    whole, streamed = content(ask.chat()), joined(ask.stream())
    if whole == streamed:
        return right(f"{len(streamed)} characters")
    again = content(ask.chat(again=4)), joined(ask.stream(again=1))
    if again[0] == again[1]:
        return right(f"{len(again[0])} characters")
    if again != (whole, streamed):
        return unseen("it answers otherwise when asked again")
    return wrong(streamed, f"streamed, the answer is {streamed[:60]!r}, else {whole[:60]!r}")


@canary("end of a stream", Stage.POSTPROCESS, "one finish_reason, the same as without", "chunk object, finish_reason")
def _end(ask: Asking) -> Said:
    with reading("a chunk is none"):
        found = [one["choices"][0].get("finish_reason") for one in ask.stream() if one.get("choices")]
    found = [one for one in found if one]
    if len(found) != 1:
        return wrong(found, f"a stream has {len(found)} finish_reasons: {found}")
    if joined(ask.stream()) == content(ask.chat()) and found[0] != finish(ask.chat()):
        return wrong(found[0], f"streamed, finish_reason is {found[0]!r}, else {finish(ask.chat())!r}")
    return right(found[0])


@canary("usage of a stream", Stage.POSTPROCESS, "a last chunk with the usage and no choices", "stream_options")
def _usage(ask: Asking) -> Said:
    chunks = ask.stream(**_USAGE)
    having = [one for one in chunks if one.get("usage")]
    if not having:
        return wrong("none", "asked for with stream_options.include_usage, no chunk has the usage")
    if having[-1].get("choices"):
        return wrong(having[-1]["choices"], "the chunk with the usage has choices, which are to be empty")
    return right(usage_of(having[-1]))


@canary("usage unasked", Stage.POSTPROCESS, "no usage in a stream that did not ask for it", "chunk object, usage")
def _unasked(ask: Asking) -> Said:
    having = [one["usage"] for one in ask.stream() if one.get("usage")]
    if not having:
        return right("none")
    return wrong(having[-1], f"{len(having)} chunks of a stream have a usage that nobody asked for")


@canary("counts of a stream", Stage.POSTPROCESS, "the same as without", "stream_options")
def _counts(ask: Asking) -> Said:
    chunks = ask.stream(**_USAGE)
    having = [one for one in chunks if one.get("usage")]
    if not having or joined(chunks) != content(ask.chat()):
        return unseen("it gives no usage, or answers otherwise when streamed")
    streamed, whole = usage_of(having[-1]), counts(ask.chat())
    said = f"{streamed} and {whole}"
    return right(said) if streamed == whole else wrong(said, f"streamed, the usage is {streamed}, else {whole}")
