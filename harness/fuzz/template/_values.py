"""Mutations of the values that a template writes: contents, arguments, JSON, filters, dates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from harness.fuzz.template._edits import Edit, Rule, Template, closing, each, filters, members, wrapped
from harness.fuzz.template.source import Tag

_CONTENT = ("content", "text")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_HTML = "".join(f" | replace('{mark}', '\\\\u{ord(mark):04x}')" for mark in "<>&") + " | replace(\"'\", '\\\\u0027')"
_TRIMMED = re.compile(r"\s*(\|\s*trim|\.strip\()")
_STRIPS = ("strip", "lstrip", "rstrip")
_DATES = ("%d %b %Y", "%Y-%m-%d")


def _written(template: Template) -> Iterator[Tag]:
    """Yield the tags whose values are written: outputs and assignments."""
    yield from template.outputs
    for tag in template.tags:
        if tag.name == "set" and tag.has("="):
            yield tag


def _around(template: Template, names: tuple[str, ...], before: str, after: str) -> Iterator[Edit]:
    """Yield edits that put something around the operands of these names."""
    for tag in _written(template):
        for span in members(tag, *names):
            yield wrapped(template, span, before, after)


def _instead(template: Template, names: tuple[str, ...], new: str) -> Iterator[Edit]:
    """Yield edits that put something in place of the operands of these names."""
    for tag in _written(template):
        for span in members(tag, *names):
            yield Edit(*span, new)


def _bos_dropped(template: Template) -> Iterator[Edit]:
    """The token that begins a text is not written."""
    return _instead(template, ("bos_token",), "''")


def _bos_doubled(template: Template) -> Iterator[Edit]:
    """The token that begins a text is written twice."""
    return _instead(template, ("bos_token",), "(bos_token ~ bos_token)")


def _eos_dropped(template: Template) -> Iterator[Edit]:
    """The token that ends a text is not written."""
    return _instead(template, ("eos_token",), "''")


def _eos_doubled(template: Template) -> Iterator[Edit]:
    """The token that ends a text is written twice."""
    return _instead(template, ("eos_token",), "(eos_token ~ eos_token)")


def _reasoning_dropped(template: Template) -> Iterator[Edit]:
    """Reasoning is not written."""
    return _instead(template, _REASONING, "''")


def _content_dropped(template: Template) -> Iterator[Edit]:
    """A content is not written."""
    return _instead(template, _CONTENT, "''")


def _content_cut(template: Template) -> Iterator[Edit]:
    """A content loses its last character."""
    return _around(template, _CONTENT, "(", ")[:-1]")


def _content_escaped(template: Template) -> Iterator[Edit]:
    """Markup in a content is escaped as for HTML."""
    return _around(template, _CONTENT, "(", " | replace('&', '&amp;') | replace('<', '&lt;'))")


def _content_lowered(template: Template) -> Iterator[Edit]:
    """A content is made lower case."""
    return _around(template, _CONTENT, "(", " | lower)")


def _content_trimmed(template: Template) -> Iterator[Edit]:
    """Whitespace around a content is taken away."""
    for edit in _around(template, _CONTENT, "(", " | trim)"):
        if not _TRIMMED.match(template.source, edit.end):
            yield edit


def _role_written_wrong(template: Template) -> Iterator[Edit]:
    """A role is written as `user`, whatever it is."""
    return _instead(template, ("role",), "'user'")


def _name_dropped(template: Template) -> Iterator[Edit]:
    """A name is not written."""
    return _instead(template, ("name",), "''")


def _call_id_dropped(template: Template) -> Iterator[Edit]:
    """The id of a call is not written."""
    return _instead(template, ("id", "tool_call_id"), "''")


def _arguments_dropped(template: Template) -> Iterator[Edit]:
    """The arguments of a call are written as an empty object."""
    return _instead(template, ("arguments",), "{}")


def _arguments_quoted(template: Template) -> Iterator[Edit]:
    """The arguments of a call are written as the JSON of their JSON."""
    return _around(template, ("arguments",), "(", " | tojson)")


def _arguments_as_repr(template: Template) -> Iterator[Edit]:
    """The arguments of a call are written as the language writes an object, with its quotes."""
    return _around(template, ("arguments",), "(", " | string)")


def _written_tools_dropped(template: Template) -> Iterator[Edit]:
    """Tools that are written at once are lost."""
    return _around(template, ("tools",), "(", ")[:0]")


def _first_written_tool_only(template: Template) -> Iterator[Edit]:
    """Of tools that are written at once only the first is."""
    return _around(template, ("tools",), "(", ")[:1]")


def _json_dropped(template: Template) -> Iterator[Edit]:
    """A value is not written as JSON."""
    return _instead_of_filter(template, "tojson", "")


def _json_as_repr(template: Template) -> Iterator[Edit]:
    """A value is written as the language writes it, not as JSON."""
    return _instead_of_filter(template, "tojson", "| string")


def _instead_of_filter(template: Template, name: str, new: str) -> Iterator[Edit]:
    for tag in template.code:
        for first, last in filters(tag, name):
            yield Edit(tag.tokens[first].start, tag.tokens[last].end, new)


def _behind_filter(template: Template, name: str, new: str) -> Iterator[Edit]:
    for tag in template.code:
        for _, last in filters(tag, name):
            end = tag.tokens[last].end
            yield Edit(end, end, new)


def _json_twice(template: Template) -> Iterator[Edit]:
    """A value is written as the JSON of its JSON."""
    return _behind_filter(template, "tojson", " | tojson")


def _json_for_html(template: Template) -> Iterator[Edit]:
    """JSON is written as for HTML: markup as escapes."""
    return _behind_filter(template, "tojson", _HTML)


def _json_sorted(template: Template) -> Iterator[Edit]:
    """JSON is written with its keys in order."""
    return _with_option(template, "sort_keys", "true")


def _json_ascii(template: Template) -> Iterator[Edit]:
    """JSON is written with escapes for what is not ASCII."""
    return _with_option(template, "ensure_ascii", "true")


def _json_indented(template: Template) -> Iterator[Edit]:
    """JSON is written in lines, where it is not; in one, where it is in lines."""
    yield from _with_option(template, "indent", "4")

    def make(tag: Tag, at: int) -> Edit | None:
        tokens = tag.tokens
        if [one.text for one in tokens[at : at + 2]] != ["indent", "="] or at + 2 >= len(tokens):
            return None
        return Edit(tokens[at].start, tokens[at + 2].end, "indent=none")

    yield from each(template.code, make)


def _with_option(template: Template, name: str, value: str) -> Iterator[Edit]:
    """Yield edits that give `tojson` an option, where it has not got it."""
    for tag in template.code:
        for first, last in filters(tag, "tojson"):
            if any(token.text == name for token in tag.tokens[first:last]):
                continue
            if last == first + 1:
                yield Edit(tag.tokens[last].end, tag.tokens[last].end, f"({name}={value})")
            else:
                comma = "" if last == first + 3 else ", "
                yield Edit(tag.tokens[last].start, tag.tokens[last].start, f"{comma}{name}={value}")


def _trim_dropped(template: Template) -> Iterator[Edit]:
    """Whitespace around a value is not taken away."""
    yield from _instead_of_filter(template, "trim", "")

    def make(tag: Tag, at: int) -> Edit | None:
        tokens = tag.tokens
        if tokens[at].text != "." or at + 2 >= len(tokens) or tokens[at + 1].text not in _STRIPS:
            return None
        return Edit(tokens[at].start, tokens[closing(tokens, at + 2)].end, "")

    yield from each(template.code, make)


def _split_dropped(template: Template) -> Iterator[Edit]:
    """A text that is split, for a part of it, stays whole."""

    def make(tag: Tag, at: int) -> Edit | None:
        tokens = tag.tokens
        if [one.text for one in tokens[at : at + 3]] != [".", "split", "("]:
            return None
        end = closing(tokens, at + 2)
        if end + 1 >= len(tokens) or tokens[end + 1].text != "[":
            return None
        return Edit(tokens[at].start, tokens[closing(tokens, end + 1)].end, "")

    return each(template.code, make)


def _default_dropped(template: Template) -> Iterator[Edit]:
    """What is not there has no value in its place."""
    yield from _instead_of_filter(template, "default", "")
    yield from _instead_of_filter(template, "d", "")


def _default_changed(template: Template) -> Iterator[Edit]:
    """What is not there has another value in its place."""
    other = {"true": "false", "false": "true", "True": "false", "False": "true", "none": "'none'", "None": "'none'"}
    for tag in template.code:
        for first, last in [*filters(tag, "default"), *filters(tag, "d")]:
            # A value of one token: what stands between `| default (` and `)`.
            if last != first + 4:
                continue
            value = tag.tokens[first + 3]
            yield Edit(value.start, value.end, other.get(value.text, "'other'"))


def _date_changed(template: Template) -> Iterator[Edit]:
    """A date is written in another form."""

    def make(tag: Tag, at: int) -> Edit | None:
        tokens = tag.tokens
        if tokens[at].text != "strftime_now" or at + 2 >= len(tokens) or tokens[at + 2].kind != "string":
            return None
        form = tokens[at + 2]
        return Edit(form.start + 1, form.end - 1, _DATES[form.literal == _DATES[0]])

    return each(template.code, make)


RULES: Final[Mapping[str, Rule]] = {
    "bos-dropped": _bos_dropped,
    "bos-doubled": _bos_doubled,
    "eos-dropped": _eos_dropped,
    "eos-doubled": _eos_doubled,
    "reasoning-dropped": _reasoning_dropped,
    "content-dropped": _content_dropped,
    "content-cut": _content_cut,
    "content-escaped": _content_escaped,
    "content-lowered": _content_lowered,
    "content-trimmed": _content_trimmed,
    "role-written-wrong": _role_written_wrong,
    "name-dropped": _name_dropped,
    "call-id-dropped": _call_id_dropped,
    "arguments-dropped": _arguments_dropped,
    "arguments-quoted": _arguments_quoted,
    "arguments-as-repr": _arguments_as_repr,
    "written-tools-dropped": _written_tools_dropped,
    "first-written-tool-only": _first_written_tool_only,
    "json-dropped": _json_dropped,
    "json-as-repr": _json_as_repr,
    "json-twice": _json_twice,
    "json-for-html": _json_for_html,
    "json-sorted": _json_sorted,
    "json-ascii": _json_ascii,
    "json-indented": _json_indented,
    "trim-dropped": _trim_dropped,
    "split-dropped": _split_dropped,
    "default-dropped": _default_dropped,
    "default-changed": _default_changed,
    "date-changed": _date_changed,
}
