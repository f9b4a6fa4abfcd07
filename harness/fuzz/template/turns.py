"""Properties of turns: how they are opened and closed, and that calls stand in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from harness.checking.compare.hunks import common_prefix
from harness.fuzz.finding import Broken
from harness.fuzz.template._property import Property, broken_on, registering
from harness.fuzz.template.marks import Mark
from harness.fuzz.template.trial import Side, Trial
from harness.parts import PartError

TURNS: Final[dict[str, Property]] = {}
_property = registering(TURNS)
_MARKER = re.compile(r"<\|?/?[A-Za-z][\w.:\-]*\|?>|<\uff5c[^<>\s]{1,40}\uff5c>|\[/?[A-Z][A-Z_]+\]")
"""What looks like a control token: `<|im_end|>`, `</s>`, `<end_of_turn>`, `[/INST]`."""
_SPACED = re.compile(r"<\|?/?[A-Za-z][\w.:\-]*\|? +>|<\|[\w.:\-]+ +\|>|\[/?[A-Z][A-Z_]+ +\]")
_TWICE = re.compile(rf"(?!<\w)({_MARKER.pattern})\1")
_INDENTED = re.compile(rf"(?:{_MARKER.pattern})[ \t]*\n[ \t]+(?:{_MARKER.pattern})")
_OPENS = re.compile(rf"{_MARKER.pattern}|\sassistant", re.IGNORECASE)
_STARTS = re.compile(r"<\|?(?!think)\w+\|?>|\[(?!THINK)[A-Z_]+\]")
"""A marker that may have another half, named alike: `<|im_end|>` for `<|im_start|>`, `</tool_call>`. Of reasoning the
end alone may stand in the history."""
_BETWEEN = re.compile(r"(<[\w|]+>)\s*(\{(?:(?!\1).)*?\})\s*<[/|]", re.DOTALL)
_NUMBER = re.compile(r"\d+")
_SYSTEM = re.compile(r"(?:<[^<>\s]*>|<\|?|\[)?[^\s<>]*system[^\s<>]*[>:\]]?", re.IGNORECASE)
"""What tells that a system's text comes: `<|im_start|>system`, `<|system|>`, `System:`."""
_SHOWN = 60


def _around(prompt: str, marks: list[Mark]) -> list[tuple[Mark, int, int]] | None:
    """Return where the marked texts begin and end, in order; None where one is not there once and as it was written."""
    found = []
    for mark in marks:
        at = prompt.find(mark.text)
        start, end = at - len(mark.before), at + len(mark.text) + len(mark.after)
        if at < 0 or prompt[start:end] != mark.before + mark.text + mark.after:
            return None
        found.append((mark, start, end))
    return found if [one[1] for one in found] == sorted(one[1] for one in found) else None


def _common_end(one: str, other: str) -> str:
    """Return the longest text with which both end."""
    return one[len(one) - common_prefix(one[::-1], other[::-1]) :]


def _plain(trial: Trial) -> bool:
    """Tell whether a conversation has one text a message, no white space around it, no marker, and nothing besides."""
    conversation = trial.conversation
    return not (conversation.tools or _MARKER.search(conversation.text)) and all(
        set(one) == {"role", "content"} and isinstance(one["content"], str) and one["content"].strip() == one["content"]
        for one in conversation.messages
    )


def _spoken(trial: Trial, side: Side, *, opens: bool = True) -> tuple[str, list[tuple[Mark, int, int]]] | None:
    """Return the prompt of a plain conversation with marks, and where its texts are; None where that is not known."""
    messages, marks = trial.conversation.marks
    if not marks or len(marks) != len(messages) or not _plain(trial):
        return None
    form = "marked" if opens else "marked, closed"
    prompt = trial.render(side, form, lambda: messages, opens)
    places = None if isinstance(prompt, PartError) else _around(prompt, marks)
    return None if places is None else (str(prompt), places)


@_property("turns-alike", "turns of the same roles in the same order stand apart in the same way")
def _turns_alike(trial: Trial, side: Side) -> Iterator[Broken] | None:
    written = _written(trial, side)
    return None if written is None else _alike(trial, side, written[0])


def _alike(trial: Trial, side: Side, prompt: str) -> Iterator[Broken]:
    spoken = _spoken(trial, side)
    seen: dict[tuple[str, str], str] = {}
    for (one, _, end), (other, start, _) in pairwise(spoken[1] if spoken else ()):
        between = _NUMBER.sub("N", prompt[end:start])
        if seen.setdefault((one.role, other.role), between) != between:
            first = seen[one.role, other.role]
            message = f"between {one.role} and {other.role} stands {first[:_SHOWN]!r}, then {between[:_SHOWN]!r}"
            cause = f"what stands between {one.role} and {other.role} changes"
            yield broken_on("turns-alike", side, cause, message, trial.shown(side, "marked"))
            return
    # What ends a user's turn ends others too.
    if any(text != text.strip() for text in (mark.before + mark.after for mark in trial.conversation.marks[1])):
        return
    said = [mark.text + mark.after for mark in trial.conversation.marks[1] if mark.role == "user" and mark.after]
    behind = [_MARKER.match(prompt, prompt.find(text) + len(text)) for text in said if text in prompt]
    for marker in sorted({found[0] for found in behind if found}):
        after = [found[1] for found in re.finditer(rf"{re.escape(marker)}(\s*)(?=\S)", prompt)]
        if len(set(after)) > 1:
            message = f"behind {marker!r} stands {after[0]!r}, then {next(one for one in after if one != after[0])!r}"
            cause = "the white space behind the end of a turn changes"
            yield broken_on("turns-alike", side, cause, message, trial.shown(side, "marked"))


@_property("answers-are-closed", "an answer in the history ends with a text that tells where it ends")
def _answers_are_closed(trial: Trial, side: Side) -> Iterator[Broken] | None:
    roles = [one.get("role") for one in trial.conversation.messages]
    spoken = _spoken(trial, side)
    if spoken is None or roles[-3:] != ["user", "assistant", "user"]:
        return None
    prompt, places = spoken
    (_, _, answered), (_, asked, _) = places[-2:]
    between = prompt[answered:asked]
    if _MARKER.search(between):
        # Where nothing else does, the marker that opens the next turn ends this one.
        return iter(())
    # What opens the question is no end: it stands before the first one, too.
    first = next(start for mark, start, _ in places if mark.role == "user")
    shared = _common_end(between, prompt[:first])
    if between[: len(between) - len(shared)].strip():
        return iter(())
    messages = trial.conversation.marks[0]
    last = trial.render(side, "marked, up to the answer", lambda: messages[:-1], False)
    ends = None if isinstance(last, PartError) else _around(last, trial.conversation.marks[1][:-1])
    if ends is None or str(last)[ends[-1][2] :].strip():
        return iter(())
    message = f"between the answer and what comes then stands only {between[:_SHOWN]!r}, which opens any user's turn"
    return iter([broken_on("answers-are-closed", side, "nothing ends an answer", message, trial.shown(side, "marked"))])


@_property("opens-as-asked", "a turn is opened where that is asked for, and not where it is not")
def _opens_as_asked(trial: Trial, side: Side) -> Iterator[Broken] | None:
    spoken = _spoken(trial, side, opens=False)
    if spoken is None or "assistant" not in [mark.role for mark, _, _ in spoken[1]]:
        return None
    return _opening_found(trial, side, *spoken)


def _opening_found(trial: Trial, side: Side, prompt: str, places: list[tuple[Mark, int, int]]) -> Iterator[Broken]:
    messages, shown = trial.conversation.marks[0], trial.shown
    for count, (mark, start, _) in enumerate(places):
        if mark.role != "assistant" or not count or messages[count - 1]["role"] != "user":
            continue
        form = f"marked, first {count}"
        opened = trial.render(side, form, lambda count=count: messages[:count])  # type: ignore[misc]
        closed = trial.render(side, f"{form}, closed", lambda count=count: messages[:count], False)  # type: ignore[misc]
        nothing = isinstance(opened, str) and opened == closed and prompt.startswith(opened.rstrip())
        lost = prompt[len(str(opened).rstrip()) : start] if nothing else ""
        if lost.strip():
            message = f"the history has {lost[:_SHOWN]!r} before the answer; nothing opens the turn"
            cause = "the turn is not opened"
            both = shown(side, form), shown(side, "marked, closed")
            yield broken_on("opens-as-asked", side, cause, message, *both)
            return
        ends = _common_end(prompt, prompt[:start])
        if messages[-1]["role"] == "assistant" and _OPENS.search(ends):
            message = f"behind the last answer stands {ends[-_SHOWN:]!r}, as before an answer, though none is asked for"
            cause = "a turn is opened that nobody asked for"
            yield broken_on("opens-as-asked", side, cause, message, shown(side, "marked, closed"))
            return


@_property("one-system", "a system's text stands in one turn of its own, and a default in its place stands as it would")
def _one_system(trial: Trial, side: Side) -> Iterator[Broken] | None:
    spoken = _spoken(trial, side)
    if spoken is None or [mark.role for mark, _, _ in spoken[1]][:2] != ["system", "user"]:
        return None
    prompt, ((_, start, end), (_, asked, _), *_) = spoken
    label = next((found[0] for found in reversed(list(_SYSTEM.finditer(prompt[:start])))), "")
    if not set("<[:#") & set(label):
        return None
    return _system_found(trial, side, prompt[:start], prompt[end:asked], prompt, label)


def _system_found(trial: Trial, side: Side, opens: str, closes: str, prompt: str, label: str) -> Iterator[Broken]:
    systems = [one for one in trial.conversation.messages if one["role"] == "system"]
    messages, marks = trial.conversation.marks
    without = trial.render(side, "marked, no system", lambda: [one for one in messages if one["role"] != "system"])
    if isinstance(without, PartError):
        return
    both = trial.shown(side, "marked"), trial.shown(side, "marked, no system")
    counts = [len(re.findall(rf"(?<![ \w]){re.escape(label)}", one)) for one in (prompt, without)]
    if counts[0] > len(systems) and counts[0] - counts[1] != len(systems):
        message = f"{counts[0]} times {label!r} with {len(systems)} system messages, {counts[1]} times with none"
        yield broken_on("one-system", side, "more than one system", message, *both)
        return
    places = None if len(systems) > 1 else _around(without, marks[1:])
    if places is None:
        return
    default = without[: places[0][1]]
    # A system that is written into the user's turn has no such label, and one with more behind it has no end to see.
    if (
        not _MARKER.match(closes.lstrip())
        or not default.startswith(opens.rstrip())
        or not default[len(opens.rstrip()) :].strip()
    ):
        return
    if not default.startswith(opens) or not default.endswith(closes):
        message = f"the default stands in {default[:_SHOWN]!r}...{default[-_SHOWN:]!r}, not as a system's text does"
        yield broken_on("one-system", side, "a default stands otherwise than a system's text", message, *both)


def _written(trial: Trial, side: Side) -> tuple[str, int] | None:
    """Return the prompt of any conversation with marks, and where the first user's text is; None without them."""
    messages, marks = trial.conversation.marks
    first = next((mark for mark in marks if mark.role == "user"), None)
    if first is None or _MARKER.search(trial.conversation.text):
        return None
    prompt = trial.render(side, "marked", lambda: messages)
    return None if isinstance(prompt, PartError) or first.text not in prompt else (prompt, prompt.find(first.text))


@_property("markers-are-whole", "no marker has a space in it, stands twice in a row, is indented, or is left open")
def _markers_are_whole(trial: Trial, side: Side) -> Iterator[Broken] | None:
    written = _written(trial, side)
    return None if written is None else _markers_found(trial, side, *written)


def _markers_found(trial: Trial, side: Side, prompt: str, start: int) -> Iterator[Broken]:
    name, shown = "markers-are-whole", trial.shown(side, "marked")
    for what, pattern in (
        ("has a space in it", _SPACED),
        ("stands twice in a row", _TWICE),
        ("is indented", _INDENTED),
    ):
        found = pattern.search(prompt)
        if found:
            yield broken_on(name, side, f"a marker {what}", f"{found[0]!r} is in the prompt", shown)
    if prompt[:1].isspace():
        yield broken_on(name, side, "white space before all", f"the prompt begins with {prompt[:8]!r}", shown)
    if trial.conversation.messages[-1]["role"] == "assistant":
        # What stands last may be left open, to go on with.
        return
    # What stands before the first user's text may be about markers: of calls, and where there are tools of all.
    for opens in sorted({found[0] for found in _STARTS.finditer(prompt, start)}):
        closes = _other_half(opens)
        ends_otherwise = "start" in opens and trial.conversation.calls
        if closes not in trial.subject.source or ends_otherwise:
            # A turn with a call may end with a marker of its own.
            continue
        at = 0 if "start" in opens and not trial.conversation.tools else start
        order = [found[0] for found in re.finditer(f"{re.escape(opens)}|{re.escape(closes)}", prompt[at:])]
        if any(one == other for one, other in pairwise(order)) or (at == 0 and order[0] != opens):
            message = f"{opens!r} and {closes!r} do not alternate"
            yield broken_on(name, side, "a marker is not closed by its other half", message, shown)
            return


def _other_half(marker: str) -> str:
    """Return what closes a marker."""
    closes = marker.replace("start", "end") if "start" in marker else marker.replace("[", "[/").replace("<", "</")
    return closes.replace("</|", "<|/")


@_property("calls-are-json", "what stands between the two halves of a marker and looks like an object is JSON")
def _calls_are_json(trial: Trial, side: Side) -> Iterator[Broken] | None:
    if not trial.conversation.calls or "tool_calls" not in trial.subject.source:
        return None
    messages, _, _ = trial.conversation.marked_calls
    prompt = trial.render(side, "marked calls", lambda: messages)
    if isinstance(prompt, PartError) or not messages:
        return None
    return _json_found(trial, side, prompt)


def _json_found(trial: Trial, side: Side, prompt: str) -> Iterator[Broken]:
    start = prompt.find("zN0Nz")
    for found in _BETWEEN.finditer(prompt, max(0, prompt.rfind("<", 0, start)) if start >= 0 else len(prompt)):
        if found[2] in trial.conversation.text:
            # A result, as the caller wrote it.
            continue
        try:
            json.loads(found[2])
        except ValueError as error:
            message = f"{found[2][:_SHOWN]!r} is no JSON: {error}"
            shown = trial.shown(side, "marked calls")
            yield broken_on("calls-are-json", side, f"no JSON in {found[1]}", message, shown)
            return


@_property(
    "calls-appear", "a template that knows calls shows every one, in order: its function's name and its arguments"
)
def _calls_appear(trial: Trial, side: Side) -> Iterator[Broken] | None:
    if not trial.conversation.calls or "tool_calls" not in trial.subject.source:
        return None
    messages, names, values = trial.conversation.marked_calls
    prompt = trial.render(side, "marked calls", lambda: messages) if names else None
    if prompt is None or isinstance(prompt, PartError):
        return None
    return _calls_found(trial, side, prompt, names, values)


def _calls_found(trial: Trial, side: Side, prompt: str, names: list[Mark], values: list[Mark]) -> Iterator[Broken]:
    # A name is also written beside its call's result.
    wrong = [(mark, how) for mark in names if (how := mark.found_in(prompt)) in ("dropped", "changed")]
    wrong += [(mark, how) for mark in values if (how := mark.found_in(prompt)) not in ("verbatim", "trimmed", "json")]
    for cause, mark in {f"{mark.role} is {how}": mark for mark, how in reversed(wrong)}.items():
        message = f"{mark.before + mark.after!r} is not in the prompt as it was written"
        yield broken_on("calls-appear", side, cause, message, trial.shown(side, "marked calls"))
    places = [at for mark in names if (at := prompt.find(mark.text)) >= 0]
    if places != sorted(places):
        message = "the calls stand in another order than the caller's"
        yield broken_on("calls-appear", side, "another order", message, trial.shown(side, "marked calls"))
