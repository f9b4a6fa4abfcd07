"""What was done to a prompt: to the texts of its messages, to what stands around them, to its beginning and its end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from harness.checking.compare.hunks import common_prefix, hunks
from harness.checking.compare.outcome import MESSAGE, Difference, Hunk
from harness.checking.compare.parts.client import Seen, of_texts
from harness.checking.compare.template import UNITS
from harness.checking.compare.texts import changes
from harness.values import Json, Prompt, Request

_WHOLE = frozenset({"case", "normal form", "beyond ASCII", "escaped", "twice", "lost"})
"""Changes of the whole text that say more than what became of its messages."""
_CUT = frozenset({"end lost", "beginning lost", "inside lost"})
_HEAD, _FEW = 16, 48
"""Characters at the beginning by which it is found again, and how many may be put before them."""
_PLACE = "\ufffc"
"""Stands for a message's text in what stands around it (U+FFFC, object replacement character)."""


class _Span(NamedTuple):
    begin: int
    end: int
    message: int


def parts(golden: Prompt, observed: Prompt, request: Request, difference: Difference) -> Iterator[Difference]:
    """Yield the parts of a difference between prompts; none where nothing is recognised.

    Args:
        golden: The reference's.
        observed: The stack's.
        request: The messages and tools that were rendered.
        difference: The places.
    """
    if difference.causes[0] in golden.policies:
        return
    text, found = golden.text, observed.text
    spans = _spans(text, request)
    suffix = golden.suffix or ""
    tail = text.removesuffix(suffix)[spans[-1].end if spans else 0 :]
    if suffix and tail and found.endswith(tail):
        yield _made(difference, Seen(_END, ("end lost", *_ends(difference))), difference.hunks[-1:])
        found += suffix
    head = text[:_HEAD]
    before = found.find(head, 1, _HEAD + _FEW) if found.count(head) == text.count(head) else -1
    if before > 0 and difference.hunks[0].at == "0" and not difference.hunks[0].golden:
        yield _made(difference, Seen("something is put before the prompt", ("put before",)), difference.hunks[:1])
        found = found[before:]
    if found == text:
        return
    places = difference.hunks if found == observed.text else _hunks(text, found)
    own = tuple(dict.fromkeys(hunk.signature for hunk in places))
    cut = tuple(f"prompt\0{change.key}" for change in changes(text, found) if change.key in _CUT)
    seen = _seen(text, found, spans, request) or Seen("", own)
    yield _made(difference, seen._replace(perhaps=(*seen.perhaps, *own, *cut)), places)


def _ends(difference: Difference) -> tuple[str, ...]:
    """Return the end that is lost, where nothing else is."""
    return difference.causes if len(difference.hunks) == 1 else ()


_LOST = "messages missing"
_ORDER = "messages in another order"
_TURNS = "the texts of the messages stand in other turns"
_SEVERAL = 2
"""How many different changes around the messages may still be of one place in a template."""
_END = "the end that opens the assistant's turn is missing"


def _made(difference: Difference, seen: Seen, places: Sequence[Hunk]) -> Difference:
    count = len(places)
    told = f"the text differs in {count} place{'s' if count > 1 else ''}"
    return Difference(
        summary=f"{seen.words}: {told}" if seen.words and seen.words != _END else seen.words or told,
        hunks=tuple(places),
        causes=seen.causes,
        perhaps=seen.perhaps,
        kind=difference.kind,
    )


def _hunks(golden: str, observed: str) -> tuple[Hunk, ...]:
    return hunks(UNITS.findall(golden), UNITS.findall(observed), "".join)


def _seen(text: str, found: str, spans: Sequence[_Span], request: Request) -> Seen | None:
    """Return what was done to a text; None where nobody can say."""
    contents = _contents(text, found, spans)
    if contents is not None:
        more = (cause.replace(f"{MESSAGE}\0", "prompt\0") for cause in contents.causes)
        return contents._replace(perhaps=(*contents.perhaps, *more))
    if spans and found == text[: spans[-1].end]:
        return Seen("the last message is left open", ("last message open",))
    whole = changes(text, found)
    for change in whole:
        if change.key in _WHOLE:
            other = f"{MESSAGE}\0{change.key}"
            return Seen(f"the whole prompt: {change.words}", (f"prompt\0{change.key}",), (other,))
    seen = (
        _missing(request, text, found, spans) or _around(text, found, spans) or _messages(text, found, spans, request)
    )
    cut = [change for change in whole if change.key in _CUT]
    if seen is None and cut:
        return Seen(f"the prompt: {cut[0].words}", (f"prompt\0{cut[0].key}",))
    return seen


def _spans(text: str, request: Request) -> list[_Span]:
    """Return where the texts of messages stand in a prompt, in their order."""
    found: list[_Span] = []
    at = 0
    for index, message in enumerate(request.messages):
        for content in _texts_of(message):
            begin = text.find(content, at)
            if begin < 0:
                content = content.strip()
                begin = text.find(content, at) if content else -1
            if begin >= 0:
                at = begin + len(content)
                found.append(_Span(begin, at, index))
    return found


def _texts_of(message: Json) -> list[str]:
    content = message.get("content")
    parts_of = content if isinstance(content, list) else [{"text": content}]
    texts = [part.get("text") for part in parts_of if isinstance(part, dict)]
    return [text for text in texts if isinstance(text, str) and text]


def _contents(text: str, found: str, spans: Sequence[_Span]) -> Seen | None:
    """Return what was done to the messages' texts, where all that stands around them is as it should be."""
    edges = [0, *(edge for span in spans for edge in (span.begin, span.end)), len(text)]
    around = [text[edges[i] : edges[i + 1]] for i in range(0, len(edges), 2)]
    if not spans or not found.startswith(around[0]) or not found.endswith(around[-1]):
        return None
    at, last = len(around[0]), len(found) - len(around[-1])
    pairs = []
    for span, next_around in zip(spans, around[1:], strict=True):
        own = text[span.begin : span.end]
        if span is spans[-1]:
            end = last
        else:
            # The text itself may hold what stands after it.
            start = at + len(own) if found.startswith(own, at) else at
            end = found.find(next_around, start, last)
        if end < at or (end == at and not next_around and span is not spans[-1]):
            return None
        pairs.append((own, found[at:end]))
        at = end + len(next_around)
    return of_texts(MESSAGE, [(one, other) for one, other in pairs if one != other])


def _around(text: str, found: str, spans: Sequence[_Span]) -> Seen | None:
    """Return what was done to what stands around the messages, where their texts are all there, in their order."""
    golden, observed = [], []
    before = at = 0
    for span in spans:
        own = text[span.begin : span.end]
        place = found.find(own, at)
        if place < 0:
            return None
        golden += [text[before : span.begin], _PLACE]
        observed += [found[at:place], _PLACE]
        before, at = span.end, place + len(own)
    if not spans:
        return None
    places = _hunks("".join([*golden, text[before:]]), "".join([*observed, found[at:]]))
    if any(_PLACE in hunk.golden + hunk.observed for hunk in places):
        return Seen(_TURNS, ("other turns",), (_ORDER,))
    blank = all(not (hunk.golden + hunk.observed).strip() for hunk in places)
    words = "white space around the messages" if blank else "what stands around the messages"
    contents = _longest_first(text, spans)
    causes = tuple(dict.fromkeys(_without(contents, hunk.signature) for hunk in places))
    if len(causes) > _SEVERAL:
        return Seen(words, causes, ("other turns",))
    return Seen(words, causes, (_LOST,) if _only_less(text, found) else ())


def _longest_first(text: str, spans: Sequence[_Span]) -> list[str]:
    return sorted({text[span.begin : span.end] for span in spans}, key=len, reverse=True)


def _without(contents: Sequence[str], signature: str) -> str:
    """Return a text with a place in the stead of each message's."""
    for content in contents:
        if len(content) > 1:
            signature = signature.replace(content, _PLACE)
    return signature


def _missing(request: Request, text: str, found: str, spans: Sequence[_Span]) -> Seen | None:
    """Return whether tools that are declared, or calls that were made, are in the golden's text and not in this one."""
    start = common_prefix(text, found)
    stop = len(text) - common_prefix(text[start:][::-1], found[start:][::-1])
    declared = [str(_function(tool).get("name")) for tool in request.tools or ()]
    contents = _longest_first(text, spans)
    around, here = _without(contents, text), _without(contents, found)
    lost = [name for name in declared if here.count(name) < around.count(name)]
    lists = [message.get("tool_calls") for message in request.messages]
    calls = [_function(call) for some in lists if isinstance(some, list) for call in some]
    made = [str(call.get("name")) for call in calls]
    if lost and not set(lost) <= set(made) and _only_less(text, found):
        few = all(name not in found for name in declared)
        return Seen("the tools are missing" if few else "a tool that is declared is missing", ("tools missing",))
    if made and all(found.count(name) < text.count(name) for name in made) and _only_less(text, found):
        return Seen("a call that was made before is missing", ("calls missing",), ("tools missing",) if lost else ())
    inside = [text.rfind(value) for call in calls for value in _leaves(call.get("arguments"))]
    names = [text.rfind(name) for name in made]
    # Where the arguments stand: behind the name of the first call, up to what closes the last of their texts.
    if inside and min(names) <= start and stop <= max(inside) + _CLOSES and start < max(inside):
        return Seen("arguments of a call that was made before are missing or written otherwise", ("call arguments",))
    return None


_CLOSES = 80
"""Characters that may stand behind the beginning of the last text in a call's arguments."""


def _only_less(text: str, found: str) -> bool:
    """Whether a text is another one of which something is missing."""
    return len(found) < len(text) and all(not hunk.observed for hunk in _hunks(text, found))


def _function(of: Any) -> Json:
    function = of.get("function") if isinstance(of, dict) else None
    return function if isinstance(function, dict) else {}


def _leaves(arguments: object) -> list[str]:
    """Return the texts in a call's arguments."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return []
    found, left = [], [arguments]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            left += one.values()
        elif isinstance(one, list):
            left += one
        elif isinstance(one, str) and one:
            found.append(one)
    return found


def _messages(text: str, found: str, spans: Sequence[_Span], request: Request) -> Seen | None:
    """Return whether messages are missing, stand twice or in another order."""
    own = [text[span.begin : span.end] for span in spans]
    missing = [span for span, one in zip(spans, own, strict=True) if found.count(one) < text.count(one)]
    if missing and any(found.count(one) > text.count(one) for one in own):
        return Seen("messages are missing, and others stand there twice", ("messages mixed up",), (_ORDER, _LOST))
    if missing:
        if not _are_whole(missing, text, found):
            return None
        which = ", ".join(dict.fromkeys(_which(span.message, request.messages) for span in missing))
        return Seen(f"{which} {'is' if len(missing) == 1 else 'are'} missing", (_LOST,))
    first = [found.find(one) for one in own]
    if len(set(own)) == len(own) and first != sorted(first):
        return Seen("the messages are in another order", (_ORDER,), ("other turns",))
    if any(found.count(one) > text.count(one) for one in own):
        return Seen("a message stands there twice", ("messages twice",))
    return None


def _are_whole(missing: Sequence[_Span], text: str, found: str) -> bool:
    """Whether messages are gone as a whole, and nothing but what is around them goes with them."""
    start = common_prefix(text, found)
    stop = len(text) - common_prefix(text[start:][::-1], found[start:][::-1])
    if start + len(text) - stop == len(found):
        # One piece is missing: it has cut no message in two.
        return all(start <= span.begin and span.end <= stop for span in missing)
    return _only_less(text, found) and all(text[span.begin : span.end] not in found for span in missing)


def _which(index: int, messages: Sequence[Json]) -> str:
    role = messages[index].get("role")
    if role == "system":
        return "the system message"
    place = "first" if index == 0 else "last" if index == len(messages) - 1 else ""
    return f"the {place} message ({role})" if place and len(messages) > 1 else f"the message of role {role}"
