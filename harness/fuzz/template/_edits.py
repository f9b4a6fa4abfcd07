"""What the rules of mutation are written in: edits, and ways to find expressions in the tags of a template."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from harness.fuzz.template.source import Tag, Token, parses, tags_of

_OPEN, _CLOSE = ("(", "[", "{"), (")", "]", "}")
_ENDS = {"for": "endfor", "macro": "endmacro", "call": "endcall", "filter": "endfilter", "if": "endif"}
_WORDS = ("and", "or", "not", "in", "is", "if", "else", "elif", "for", "set")


@dataclass(frozen=True)
class Edit:
    """A change of a source: what stands from `start` to `end`, in characters, becomes `new`."""

    start: int
    end: int
    new: str


@dataclass(frozen=True)
class Arm:
    """An arm of a condition: its tag (`if`, `elif` or `else`), and the tag that ends it."""

    tag: Tag
    end: Tag


class Template:
    """A template that is read.

    Args:
        source: Its line ends are plain; see `plain_newlines`.

    Raises:
        PartError: it is no template, or nested too deep.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.tags = tags_of(source)

    @cached_property
    def outputs(self) -> list[Tag]:
        """The outputs with something in them, but those that refuse."""
        return [tag for tag in self.tags if tag.kind == "output" and tag.tokens and not tag.has("raise_exception")]

    @cached_property
    def code(self) -> list[Tag]:
        """The tags that hold expressions."""
        return [tag for tag in self.tags if tag.kind in ("output", "block") and tag.tokens]

    @cached_property
    def tests(self) -> list[Tag]:
        """The tags that hold conditions: `if` and `elif`."""
        return [tag for tag in self.tags if tag.name in ("if", "elif")]

    @cached_property
    def arms(self) -> list[list[Arm]]:
        """The arms of each condition, in the order in which conditions end."""
        opened: list[list[Tag]] = []
        ended: list[list[Arm]] = []
        for tag in self.tags:
            if tag.name in ("if", "for"):
                opened.append([tag])
            elif tag.name in ("elif", "else") and opened:
                opened[-1].append(tag)
            elif tag.name in ("endif", "endfor") and opened:
                tags = [*opened.pop(), tag]
                if tag.name == "endif":
                    ended.append([Arm(one, end) for one, end in pairwise(tags)])
        return ended

    def text(self, start: int, end: int) -> str:
        """Return what stands from a place to another one."""
        return self.source[start:end]

    def tag_at(self, place: int) -> Tag:
        """Return the tag or text in which a place is."""
        return self.tags[bisect_right(self.tags, place, key=lambda tag: tag.start) - 1]


Rule = Callable[[Template], Iterator[Edit]]
"""Finds the edits of a template that are of one kind; its docstring is the sentence that says what they do."""


def inner(tag: Tag) -> tuple[int, int]:
    """Return where the expression of an output or of a condition begins and ends."""
    first = 0 if tag.kind == "output" else 1
    return tag.tokens[first].start, tag.tokens[-1].end


def wrapped(template: Template, span: tuple[int, int], before: str, after: str) -> Edit:
    """Return the edit that puts something before and after what stands in a span."""
    return Edit(*span, before + template.text(*span) + after)


def closing(tokens: Sequence[Token], index: int) -> int:
    """Return the index of the bracket that closes the one at an index; the last index where none does."""
    depth = 0
    for at in range(index, len(tokens)):
        depth += (tokens[at].text in _OPEN) - (tokens[at].text in _CLOSE)
        if depth == 0:
            return at
    return len(tokens) - 1


def opening(tokens: Sequence[Token], index: int) -> int:
    """Return the index of the bracket that opens what the one at an index closes; 0 where none does."""
    depth = 0
    for at in range(index, -1, -1):
        depth += (tokens[at].text in _CLOSE) - (tokens[at].text in _OPEN)
        if depth == 0:
            return at
    return 0


def depths(tokens: Sequence[Token]) -> list[int]:
    """Return in how many brackets each token is."""
    depth, found = 0, []
    for token in tokens:
        depth -= token.text in _CLOSE
        found.append(depth)
        depth += token.text in _OPEN
    return found


def is_operand_end(token: Token) -> bool:
    """Tell whether a token can be the last one of an operand."""
    return token.text in _CLOSE or (token.kind == "name" and token.text not in _WORDS)


def primary(tokens: Sequence[Token], index: int) -> tuple[int, int]:
    """Return where the operand that ends with a name or key begins and ends: of `b` in `a['b']` or in `x.a.b`."""
    first = last = index
    if index and tokens[index].kind == "string":
        first, last = index - 1, index + 1
    elif index and tokens[index - 1].text == ".":
        first = index - 1
    else:
        return tokens[index].start, tokens[index].end
    while first and is_operand_end(tokens[first - 1]):
        first -= 1
        if tokens[first].text in _CLOSE:
            first = opening(tokens, first)
        elif first and tokens[first - 1].text == ".":
            first -= 1
        else:
            break
    return tokens[first].start, tokens[last].end


def members(tag: Tag, *names: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of the operands of a tag that end with one of some names: variables, attributes, keys.

    What is assigned to is none, and what is called is none.
    """
    tokens = tag.tokens
    assigned = next((at for at, token in enumerate(tokens) if token.text == "="), 0) if tag.name == "set" else 0
    for at in range(assigned, len(tokens)):
        token = tokens[at]
        after = tokens[at + 1].text if at + 1 < len(tokens) else ""
        named = token.kind == "name" and token.text in names and after not in ("(", "=")
        keyed = token.literal in names and bool(at) and tokens[at - 1].text == "[" and after == "]"
        if named or keyed:
            yield primary(tokens, at)


def filters(tag: Tag, name: str) -> Iterator[tuple[int, int]]:
    """Yield the indexes of the first and the last token of each use of a filter: of `|` and of the name or `)`."""
    tokens = tag.tokens
    for at in range(len(tokens) - 1):
        if tokens[at].text == "|" and tokens[at + 1].text == name:
            called = at + 2 < len(tokens) and tokens[at + 2].text == "("
            yield at, closing(tokens, at + 2) if called else at + 1


def looped(tag: Tag) -> tuple[int, int] | None:
    """Return the span of what a `for` runs over."""
    tokens, depth = tag.tokens, depths(tag.tokens)
    top = [at for at, token in enumerate(tokens) if depth[at] == 0 and token.kind == "name"]
    first = next((at + 1 for at in top if tokens[at].text == "in"), None)
    if tag.name != "for" or first is None or first >= len(tokens):
        return None
    last = next((at - 1 for at in top if at > first and tokens[at].text in ("if", "recursive")), len(tokens) - 1)
    return tokens[first].start, tokens[last].end


def each(tags: Sequence[Tag], make: Callable[[Tag, int], Edit | None]) -> Iterator[Edit]:
    """Yield what is made of each token of some tags, given the tag and the token's index."""
    for tag in tags:
        for at in range(len(tag.tokens)):
            edit = make(tag, at)
            if edit is not None:
                yield edit


def still_parses(template: Template, edit: Edit) -> bool:
    """Tell whether a template is one after an edit: whether the tag is one in which the edit is.

    An edit of whole tags, which leaves the structure as it is, or of a delimiter is taken to leave a template.
    """
    tag = template.tag_at(edit.start)
    outside = not tag.tokens or edit.end <= tag.tokens[0].start or edit.start >= tag.tokens[-1].end
    text = template.text(tag.start, edit.start) + edit.new + template.text(edit.end, tag.end)
    if tag.kind == "text":
        # With a tag behind it, such a text opens another one.
        return not text.endswith("{")
    if edit.end > tag.end or (outside and not edit.new.strip("{}%-")):
        return True
    if tag.kind == "output" or (edit.start, edit.end) == (tag.start, tag.end):
        return parses(text)
    if tag.name == "elif":
        return parses(f"{{% if a %}}{text}{{% endif %}}")
    if tag.name == "set" and not tag.has("="):
        return parses(text + "{% endset %}")
    return parses(f"{text}{{% {_ENDS[tag.name]} %}}") if tag.name in _ENDS else tag.name == "set" and parses(text)
