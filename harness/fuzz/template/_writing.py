"""Mutations of what a template writes by itself: outputs, texts, markers, whitespace."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from jinja2 import Environment

from harness.fuzz.template._edits import Edit, Rule, Template, depths, inner, wrapped
from harness.fuzz.template.source import Tag

_MARKER = re.compile(r"<[|｜/]?[^<>\s'\"{}]{1,40}>|\[/?[A-Z_]{2,30}\]")
_ENDS = re.compile(r"end|eot|eom|eos|<｜end|/s>|</|\[/|return|<\|call", re.IGNORECASE)
_TRIMMING = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True).lexer  # noqa: S701
_NEWLINE = re.compile(r"\\n|\n")
_COMPARED = ("==", "!=", "in", "not", "is")


def _literals(template: Template) -> Iterator[tuple[int, int]]:
    """Yield where the texts are that a template writes: those between tags, and those in outputs and assignments."""
    for at, tag in enumerate(template.tags):
        if tag.kind == "text":
            before = template.tags[at - 1] if at else None
            yield _left(tag, before, template.tags[at + 1] if at + 1 < len(template.tags) else None)
        elif (tag.kind == "output" and not tag.has("raise_exception")) or (tag.name == "set" and tag.has("=")):
            yield from _written(tag)


def _left(tag: Tag, before: Tag | None, after: Tag | None) -> tuple[int, int]:
    """Return where what is left of a text is, when its neighbours took whitespace away as transformers lets them."""
    text = tag.text
    if before is not None and before.kind in ("block", "comment") and not before.closing.startswith("+"):
        text = text.removeprefix("\n")
    start = tag.end - len(text)
    if after is not None and after.opening.endswith("-"):
        text = text.rstrip()
    elif after is not None and after.kind in ("block", "comment") and not after.opening.endswith("+"):
        line = text.rstrip(" \t")
        text = line if line.endswith("\n") or not (line or tag.start) else text
    elif after is None:
        # Jinja2 takes the last newline away.
        text = text.removesuffix("\n")
    return start, start + len(text)


def _written(tag: Tag) -> Iterator[tuple[int, int]]:
    tokens, depth = tag.tokens, depths(tag.tokens)
    for at, token in enumerate(tokens):
        near = [one.text for one in (*tokens[max(at - 1, 0) : at], *tokens[at + 1 : at + 2])]
        if token.kind == "string" and depth[at] == 0 and not any(text in _COMPARED for text in near):
            yield token.start + 1, token.end - 1


def _markers(template: Template, *, ends: bool) -> Iterator[tuple[int, int]]:
    for start, end in _literals(template):
        for match in _MARKER.finditer(template.source, start, end):
            if bool(_ENDS.search(match.group())) == ends:
                yield match.span()


def _end_marker_dropped(template: Template) -> Iterator[Edit]:
    """The marker that ends something is not written."""
    return (Edit(*span, "") for span in _markers(template, ends=True))


def _end_marker_doubled(template: Template) -> Iterator[Edit]:
    """The marker that ends something is written twice."""
    return (wrapped(template, span, "", template.text(*span)) for span in _markers(template, ends=True))


def _marker_dropped(template: Template) -> Iterator[Edit]:
    """A marker that ends nothing is not written."""
    return (Edit(*span, "") for span in _markers(template, ends=False))


def _marker_spaced(template: Template) -> Iterator[Edit]:
    """A marker has a space in it, so that it is none."""
    for ends in (False, True):
        for span in _markers(template, ends=ends):
            marker = template.text(*span)
            yield Edit(*span, f"{marker[:-1]} {marker[-1]}")


def _newline_dropped(template: Template) -> Iterator[Edit]:
    """A newline is not written."""
    for start, end in _newlines(template):
        yield Edit(start, end, "")


def _newline_doubled(template: Template) -> Iterator[Edit]:
    """A newline is written twice."""
    for start, end in _newlines(template):
        yield wrapped(template, (start, end), "", template.text(start, end))


def _newlines(template: Template) -> Iterator[tuple[int, int]]:
    for start, end in _literals(template):
        for match in _NEWLINE.finditer(template.source, start, end):
            yield match.span()


def _space_dropped(template: Template) -> Iterator[Edit]:
    """A space at an end of a text is not written."""
    for start, end in _literals(template):
        text = template.text(start, end)
        if text.strip(" ") and text.endswith(" "):
            yield Edit(end - 1, end, "")
        if text.strip(" ") and text.startswith(" "):
            yield Edit(start, start + 1, "")


def _text_dropped(template: Template) -> Iterator[Edit]:
    """A text is not written."""
    for start, end in _literals(template):
        if template.text(start, end).strip():
            yield Edit(start, end, "")


def _refusal_dropped(template: Template) -> Iterator[Edit]:
    """What is to be refused is not."""
    for tag in template.tags:
        if tag.kind == "output" and tag.has("raise_exception"):
            yield Edit(*inner(tag), "''")


def _output_dropped(template: Template) -> Iterator[Edit]:
    """An output is not written."""
    return (Edit(*inner(tag), "''") for tag in template.outputs)


def _output_doubled(template: Template) -> Iterator[Edit]:
    """An output is written twice."""
    for tag in template.outputs:
        text = template.text(*inner(tag))
        yield Edit(*inner(tag), f"({text}) ~ ({text})")


def _space_before(template: Template) -> Iterator[Edit]:
    """A space comes before an output."""
    return (wrapped(template, inner(tag), "' ' ~ (", ")") for tag in template.outputs)


def _space_after(template: Template) -> Iterator[Edit]:
    """A space comes after an output."""
    return (wrapped(template, inner(tag), "(", ") ~ ' '") for tag in template.outputs)


def _newline_after(template: Template) -> Iterator[Edit]:
    """A newline comes after an output."""
    return (wrapped(template, inner(tag), "(", ") ~ '\\n'") for tag in template.outputs)


def _control_dropped(template: Template) -> Iterator[Edit]:
    """Whitespace beside a tag is not taken away."""
    for tag in template.code:
        if tag.opening.endswith("-"):
            yield from _shown(template, tag, Edit(tag.start, tag.start + len(tag.opening), tag.opening[:-1]))
        if tag.closing.startswith("-"):
            at = tag.end - len(tag.closing)
            yield from _shown(template, tag, Edit(at, at + 1, ""))


def _control_added(template: Template) -> Iterator[Edit]:
    """Whitespace beside an output is taken away."""
    for tag in template.outputs:
        if not tag.opening.endswith(("-", "+")):
            yield from _shown(template, tag, Edit(tag.start, tag.start + len(tag.opening), tag.opening + "-"))
        if not tag.closing.startswith(("-", "+")):
            at = tag.end - len(tag.closing)
            yield from _shown(template, tag, Edit(at, at, "-"))


def _shown(template: Template, tag: Tag, edit: Edit) -> Iterator[Edit]:
    """Yield an edit of a tag's delimiter, if it changes a text beside the tag."""
    at = template.tags.index(tag)
    near = template.tags[max(at - 2, 0) : at + 3]
    start, end = near[0].start, near[-1].end
    changed = template.text(start, edit.start) + edit.new + template.text(edit.end, end)
    if _texts(changed) != _texts(template.text(start, end)):
        yield edit


def _texts(source: str) -> list[str]:
    """Return the texts between tags as transformers' options leave them."""
    return [text for _, kind, text in _TRIMMING.tokeniter(source, None) if kind == "data"]


RULES: Final[Mapping[str, Rule]] = {
    "end-marker-dropped": _end_marker_dropped,
    "end-marker-doubled": _end_marker_doubled,
    "marker-dropped": _marker_dropped,
    "marker-spaced": _marker_spaced,
    "newline-dropped": _newline_dropped,
    "newline-doubled": _newline_doubled,
    "space-dropped": _space_dropped,
    "text-dropped": _text_dropped,
    "refusal-dropped": _refusal_dropped,
    "output-dropped": _output_dropped,
    "output-doubled": _output_doubled,
    "space-before-output": _space_before,
    "space-after-output": _space_after,
    "newline-after-output": _newline_after,
    "whitespace-control-dropped": _control_dropped,
    "whitespace-control-added": _control_added,
}
