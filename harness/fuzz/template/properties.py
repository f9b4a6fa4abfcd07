"""What must hold of a chat template, each with a name and a sentence; docs/properties.md lists them.

A property is judged on one path: a template in one engine. Only `engines-agree` looks at several.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from harness.errors import UserError, unknown_name
from harness.fuzz.finding import Broken, cause_of
from harness.fuzz.template._property import Property, broken_on, registering
from harness.fuzz.template.agreement import JSON_FORM, difference, ending
from harness.fuzz.template.trial import Side, Trial
from harness.fuzz.template.turns import TURNS
from harness.parts import PartError

PROPERTIES: dict[str, Property] = {}
_property = registering(PROPERTIES)
EVERY = "every engine"
"""The path of what is broken in all of several engines for the same cause: it is the template's."""


def properties_named(names: Sequence[str]) -> list[Property]:
    """Return properties by name; all where none is named.

    Raises:
        UserError: there is no such property.
    """
    for name in names:
        if name not in PROPERTIES:
            raise unknown_name("property", name, PROPERTIES)
    return [PROPERTIES[name] for name in dict.fromkeys(names)] if names else list(PROPERTIES.values())


def judge(trial: Trial, properties: Sequence[Property]) -> tuple[list[Broken], Counter[str]]:
    """Return what a trial breaks, and how often each property was held: once an engine that it applies to.

    What is broken in every engine for the same cause is one thing: the template's own.
    """
    broken: list[Broken] = []
    held: Counter[str] = Counter()
    for one in properties:
        if not (trial.conversation.is_openai or one.any_input):
            continue
        found = [one.check(trial, side) for side in trial.sides]
        applied = [list(brokens) for brokens in found if brokens is not None]
        held[one.name] += len(applied)
        everywhere = len(applied) == len(trial.sides) > 1
        broken += _joined(applied, one.in_own_words) if everywhere else [each for side in applied for each in side]
    return broken, held


def _joined(sides: Sequence[Sequence[Broken]], in_own_words: bool) -> list[Broken]:
    """Return what is broken on the sides, what is broken on all of them for the same cause once."""
    if in_own_words and all(sides):
        shown = tuple(output for side in sides for output in side[0].shown)
        return [sides[0][0].model_copy(update={"path": EVERY, "shown": shown})]
    common = set.intersection(*({one.cause for one in side} for side in sides))
    first = [one.model_copy(update={"path": EVERY}) for one in sides[0] if one.cause in common]
    return first + [one for side in sides for one in side if one.cause not in common]


@_property(
    "engines-agree",
    "all template engines give the same text for the same conversation, or none gives any",
    any_input=True,
)
def _engines_agree(trial: Trial, side: Side) -> Iterator[Broken] | None:
    reference = trial.sides[0]
    if side is reference:
        return None
    one, other = trial.render(reference), trial.render(side)
    if any(isinstance(seen, PartError) and seen.kind == "unsupported" for seen in (one, other)):
        return None
    cause = difference(one, other)
    if cause is None:
        return iter(())
    path = f"{reference.name} / {side.name}"
    shown = trial.shown(reference), trial.shown(side)
    return iter([Broken(name="engines-agree", path=path, cause=cause, message=cause, shown=shown)])


@_property(
    "renders",
    "a conversation in OpenAI's form renders, or the template refuses it with a message of its own",
    in_own_words=True,
)
def _renders(trial: Trial, side: Side) -> Iterator[Broken] | None:
    # What a template does to arguments that are a text is looked at by a property of its own.
    mappings = trial.conversation.arguments_as.get("mapping")
    form = "whole" if mappings is None else "arguments as mapping"
    seen = trial.render(side, form, None if mappings is None else lambda: mappings)
    if not isinstance(seen, PartError) or seen.kind == "refused":
        return iter(())
    if seen.kind == "unsupported":
        return None
    missing = f"; nobody passes the variable {seen.name!r}" if seen.kind == "undefined" and seen.name else ""
    return iter([broken_on("renders", side, ending(seen), f"{seen.message}{missing}", trial.shown(side, form))])


@_property("text-verbatim", "what the caller wrote stands in the prompt as it was written, in the same order")
def _text_verbatim(trial: Trial, side: Side) -> Iterator[Broken] | None:
    messages, marks = trial.conversation.marks
    prompt = trial.render(side, "marked", lambda: messages)
    if isinstance(prompt, PartError) or not marks:
        return None
    return _held_verbatim(trial, side, prompt)


def _held_verbatim(trial: Trial, side: Side, prompt: str) -> Iterator[Broken]:
    marks = trial.conversation.marks[1]
    seen = set()
    for mark in marks:
        how = mark.found_in(prompt)
        if how in ("verbatim", "trimmed", "json") or (how, mark.role) in seen:
            continue
        seen.add((how, mark.role))
        yield broken_on(
            "text-verbatim",
            side,
            f"the text of role {mark.role} is {how}",
            f"the {mark.role}'s text {mark.before + mark.after!r} is {how}",
            trial.shown(side, "marked"),
        )
    # A system text may be folded into another message, so only the others keep their order.
    places = [at for mark in marks if mark.role != "system" and (at := prompt.find(mark.text)) >= 0]
    if places != sorted(places):
        message = "the texts stand in another order than the messages"
        yield broken_on("text-verbatim", side, "another order", message, trial.shown(side, "marked"))


@_property("history-is-prefix", "the prompt of a conversation begins with the prompt of its first messages")
def _history_is_prefix(trial: Trial, side: Side) -> Iterator[Broken] | None:
    if not trial.conversation.requests or trial.conversation.has_reasoning:
        return None
    whole = trial.closed(side)
    if isinstance(whole, PartError):
        return None
    return _history_held(trial, side, whole)


def _history_held(trial: Trial, side: Side, whole: str) -> Iterator[Broken]:
    for count in trial.conversation.requests:
        before = trial.closed(side, count)
        if isinstance(before, PartError) or whole.startswith(before):
            continue
        kind = "of white space at its end" if whole.startswith(before.rstrip()) else "of what was said"
        yield broken_on(
            "history-is-prefix",
            side,
            f"a later turn changes the text {kind}",
            f"the prompt of the first {count} messages is no prefix of the prompt of them all",
            trial.shown(side, f"closed {count}"),
            trial.shown(side, "closed"),
        )
        return


@_property("opening-is-kept", "what opened an assistant's turn stands before the answer when it is history")
def _opening_is_kept(trial: Trial, side: Side) -> Iterator[Broken] | None:
    if not trial.conversation.requests or trial.conversation.has_reasoning:
        return None
    whole = trial.closed(side)
    if isinstance(whole, PartError):
        return None
    return _opening_held(trial, side, whole)


def _opening_held(trial: Trial, side: Side, whole: str) -> Iterator[Broken]:
    for count in trial.conversation.requests:
        closed = trial.closed(side, count)
        form = f"first {count}"
        opened = trial.render(side, form, lambda count=count: trial.conversation.messages[:count])  # type: ignore[misc]
        if isinstance(closed, PartError) or isinstance(opened, PartError) or not whole.startswith(closed):
            continue
        if whole.startswith(opened) or not opened.startswith(closed):
            continue
        lost = opened[len(closed) :]
        yield broken_on(
            "opening-is-kept",
            side,
            f"opens with {lost[-40:]!r}, which the history does not have",
            f"the model answered after {lost!r}; as history the answer stands after something else",
            trial.shown(side, form),
            trial.shown(side, "closed"),
        )
        return


@_property("opening-is-suffix", "opening the assistant's turn adds a text at the end and changes nothing before it")
def _opening_is_suffix(trial: Trial, side: Side) -> Iterator[Broken] | None:
    opened, closed = trial.render(side), trial.closed(side)
    if isinstance(opened, PartError) or isinstance(closed, PartError):
        return None
    if opened.startswith(closed):
        return iter(())
    message = "without the opened turn the prompt is not what it is with it, up to there"
    shown = trial.shown(side), trial.shown(side, "closed")
    return iter([broken_on("opening-is-suffix", side, "the text before the opened turn changes", message, *shown)])


@_property("one-bos", "a prompt begins with the one BOS that is wanted, and has no other")
def _one_bos(trial: Trial, side: Side) -> Iterator[Broken] | None:
    bos = trial.subject.variables.get("bos_token")
    prompt = trial.render(side)
    if not isinstance(bos, str) or not bos or isinstance(prompt, PartError) or bos in trial.conversation.text:
        return None
    if bos in trial.subject.source:
        # Some models begin every turn with it.
        return None
    count = prompt.count(bos)
    if count > 1 or (count == 1 and not prompt.startswith(bos)):
        cause = "more than one BOS" if count > 1 else "a BOS that is not at the beginning"
        return iter([broken_on("one-bos", side, cause, f"{count} times {bos!r} in the prompt", trial.shown(side))])
    wrong = None if trial.tokenizer is None else _wrong_bos(trial.tokenizer, prompt)
    return iter([] if wrong is None else [broken_on("one-bos", side, wrong, wrong, trial.shown(side))])


def _wrong_bos(tokenizer: Any, prompt: str) -> str | None:
    """Return what is wrong with the BOS of a prompt's ids, as the chat path of llama.cpp makes them."""
    if tokenizer.bos is None:
        return None
    ids = tokenizer.prompt(prompt)
    count = ids.count(tokenizer.bos)
    if count > 1:
        return "more than one BOS after tokenization"
    return "no BOS after tokenization" if tokenizer.adds_bos and count == 0 else None


@_property(
    "arguments-alike",
    "arguments as JSON text and as a mapping give the same prompt, or neither gives one",
    in_own_words=True,
)
def _arguments_alike(trial: Trial, side: Side) -> Iterator[Broken] | None:
    forms = trial.conversation.arguments_as
    if not forms or "tool_calls" not in trial.subject.source:
        return None
    text, mapping = (trial.render(side, f"arguments as {form}", lambda form=form: forms[form]) for form in forms)  # type: ignore[misc]
    cause = _argument_difference(text, mapping)
    if cause is None:
        return iter(())
    shown = (trial.shown(side, f"arguments as {form}") for form in forms)
    return iter([broken_on("arguments-alike", side, cause, cause, *shown)])


def _argument_difference(text: str | PartError, mapping: str | PartError) -> str | None:
    if isinstance(text, PartError):
        return None if isinstance(mapping, PartError) else f"as text it ends: {ending(text)}"
    if isinstance(mapping, PartError):
        return f"as a mapping it ends: {ending(mapping)}"
    cause = difference(text, mapping)
    if cause in (None, JSON_FORM):
        # A caller's JSON has its own spacing and order.
        return None
    return "text is quoted as JSON once more" if text.count('\\"') > mapping.count('\\"') else cause


@_property("same-clock-same-text", "the same conversation at the same time gives the same prompt", any_input=True)
def _same_clock_same_text(trial: Trial, side: Side) -> Iterator[Broken] | None:
    once = trial.render(side)
    if isinstance(once, PartError):
        return None
    again = trial.render(side, "again")
    if once == again:
        return iter(())
    shown = trial.shown(side), trial.shown(side, "again")
    return iter(
        [broken_on("same-clock-same-text", side, "another text the second time", "it changes by itself", *shown)]
    )


@_property("tools-appear", "a template that knows tools shows every declared one: its name, description and parameters")
def _tools_appear(trial: Trial, side: Side) -> Iterator[Broken] | None:
    tools = trial.conversation.tools
    if not tools or "tools" not in trial.subject.source:
        return None
    prompt = trial.render(side)
    if isinstance(prompt, PartError):
        return None
    return _tools_shown(trial, side, prompt, [tool.get("function", tool) for tool in tools])


def _tools_shown(trial: Trial, side: Side, prompt: str, functions: Sequence[Any]) -> Iterator[Broken]:
    missing: dict[str, str] = {}
    for function in functions:
        properties = (function.get("parameters") or {}).get("properties") or {}
        wanted = [("name", function.get("name")), ("description", function.get("description"))]
        wanted += [("parameter", name) for name in properties]
        for what, text in wanted:
            if isinstance(text, str) and text and not _shown(text, prompt):
                missing.setdefault(what, text)
    if "name" in missing:
        missing = {"name": missing["name"]}
    for what, text in missing.items():
        cause = f"a tool's {what} is not there as it was written"
        yield broken_on("tools-appear", side, cause, f"the {what} {text!r} is not in the prompt", trial.shown(side))


def _shown(text: str, prompt: str) -> bool:
    forms = (text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1])
    return any(form in prompt for form in forms) or " ".join(text.split()) in " ".join(prompt.split())


@_property("no-python", "no value shows as Python writes it: no None, True or False, no quotes of a repr")
def _no_python(trial: Trial, side: Side) -> Iterator[Broken] | None:
    prompt = trial.render(side)
    if isinstance(prompt, PartError):
        return None
    return _python_found(trial, side, prompt)


_WORDS = re.compile(r"\b(?:None|True|False)\b|<[\w.]+ object at |\bUndefined\b")


def _python_found(trial: Trial, side: Side, prompt: str) -> Iterator[Broken]:
    conversation = trial.conversation
    for value, what in _values(conversation):
        written = repr(value)
        if written in prompt and written not in conversation.text and json.loads(json.dumps(value)) == value:
            cause = f"{what} as Python writes it"
            yield broken_on("no-python", side, cause, f"{what} shows as {written[:80]}", trial.shown(side))
            return
    written_by_us = _WORDS.findall(conversation.text)
    for word in dict.fromkeys(_WORDS.findall(prompt)):
        if word not in written_by_us and prompt.count(word) > _by_itself(trial, word):
            yield broken_on(
                "no-python", side, f"the word {cause_of(word)}", f"{word!r} is in the prompt", trial.shown(side)
            )
            return


def _by_itself(trial: Trial, word: str) -> int:
    """Return how often a template writes a word of its own: its source has it between tags."""
    return sum(text.count(word) for text in re.split(r"\{[{%#].*?[}%#]\}", trial.subject.source, flags=re.DOTALL))


def _values(conversation: Any) -> Iterator[tuple[Any, str]]:
    for call in conversation.calls:
        if call.get("arguments") and isinstance(call["arguments"], dict):
            yield call["arguments"], "arguments"
    for message in conversation.messages:
        if isinstance(message.get("content"), list) and message["content"]:
            yield message["content"], "a list of content parts"
        for call in message.get("tool_calls") or ():
            yield call, "a tool call"
    for tool in conversation.tools or ():
        yield tool, "a tool"
        function = tool.get("function") or {}
        yield function, "a tool's function"
        if function.get("parameters"):
            yield function["parameters"], "a tool's parameters"


@_property("caller-writes-no-control-token", "nothing that the caller writes becomes a control token")
def _no_control(trial: Trial, side: Side) -> Iterator[Broken] | None:
    tokenizer = trial.tokenizer
    written = [text for text in trial.subject.control if text in trial.conversation.text]
    if tokenizer is None or not written:
        return None
    prompt = trial.render(side)
    plain = trial.render(side, "without control texts", lambda: _without(trial, written))
    if isinstance(prompt, PartError) or isinstance(plain, PartError):
        return None
    control = set(tokenizer.special.values())
    counts = [sum(one in control for one in tokenizer.encode(text, special=True)) for text in (prompt, plain)]
    if counts[0] == counts[1]:
        return iter(())
    message = f"{written[0]!r} in a message is a control token of the prompt"
    path, cause = f"{side.name}, {tokenizer.name}", "control texts are parsed"
    found = broken_on("caller-writes-no-control-token", side, cause, message, trial.shown(side))
    return iter([found.model_copy(update={"path": path})])


def _without(trial: Trial, written: Sequence[str]) -> list[Any]:
    text = json.dumps(trial.conversation.messages, ensure_ascii=False)
    for one in written:
        text = text.replace(json.dumps(one, ensure_ascii=False)[1:-1], "x")
    found = json.loads(text)
    if not isinstance(found, list):
        raise UserError("the messages are no list")
    return found


PROPERTIES.update(TURNS)
