"""The source of a Jinja template as tags with their places, so that a place can be shown and changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node, Scope
from jinja2.parser import Parser

from harness.parts import PartError

_OPENS = {
    "variable_begin": "output",
    "block_begin": "block",
    "comment_begin": "comment",
    "linecomment_begin": "comment",
}
_CLOSES = ("variable_end", "block_end", "comment_end", "linecomment_end")


class _Generation(Extension):
    """Parses `{% generation %}`, by which transformers finds what the assistant said."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        return Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


# Nothing is stripped, so that all that stands in a source stands in its tags.
_READER = Environment(keep_trailing_newline=True, extensions=[loopcontrols, _Generation])  # noqa: S701


@dataclass(frozen=True)
class Token:
    """A token inside of a tag.

    Attributes:
        kind: What Jinja2's lexer calls it: `name`, `string`, `integer`, `operator`, ...
        text: Its text in the source.
        start: Where it begins in the source, in characters.
    """

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.start + len(self.text)

    @property
    def literal(self) -> str:
        """The text between the quotes of a string, escapes as they are written."""
        return self.text[1:-1] if self.kind == "string" else ""


@dataclass(frozen=True)
class Tag:
    """A tag, or the text between two.

    Attributes:
        kind: `text`, `output` (`{{ }}`), `block` (`{% %}`), `comment` or `raw` (one of its two tags).
        text: Its text in the source, delimiters and what whitespace control takes away behind it included.
        start: Where it begins, in characters.
        line: The line where it begins, from 1.
        tokens: What stands between the delimiters, without whitespace.
        opening: The delimiter that opens it.
        closing: The delimiter that closes it, with the whitespace that it takes away.
    """

    kind: str
    text: str
    start: int
    line: int
    tokens: tuple[Token, ...] = ()
    opening: str = ""
    closing: str = ""

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.start + len(self.text)

    @property
    def name(self) -> str:
        """The first word of a block: `if`, `for`, `endif`, ..."""
        return self.tokens[0].text if self.kind == "block" and self.tokens else ""

    def has(self, *texts: str) -> bool:
        """Tell whether one of some names or literals stands in it."""
        return any(token.text in texts or token.literal in texts for token in self.tokens)


def plain_newlines(source: str) -> str:
    """Return a source with the line ends that Jinja2 reads: newlines only."""
    return source.replace("\r\n", "\n").replace("\r", "\n")


def tags_of(source: str) -> list[Tag]:
    """Return the tags of a source and the texts between them, in order; together they are the source.

    Args:
        source: Its line ends are plain; see `plain_newlines`.

    Raises:
        PartError: it is no template, or nested too deep.
    """
    tags: list[Tag] = []
    opened: list[Token] = []
    for token in _tokens(source):
        if token.kind in ("raw_begin", "raw_end"):
            tags.append(Tag("raw", token.text, token.start, _line(source, token.start)))
        elif token.kind in _CLOSES and opened:
            first, *inside = opened
            shown = tuple(one for one in inside if one.kind != "whitespace")
            text = source[first.start : token.end]
            kind = _OPENS[first.kind]
            tags.append(Tag(kind, text, first.start, _line(source, first.start), shown, first.text, token.text))
            opened = []
        elif token.kind != "data":
            opened.append(token)
    return _with_texts(source, tags)


def _tokens(source: str) -> list[Token]:
    """Return the lexer's tokens with their places."""
    tokens: list[Token] = []
    place = 0
    try:
        # Its errors are raised on the way.
        _READER.parse(source)
        for _, kind, text in _READER.lexer.tokeniter(source, None):
            # What whitespace control takes away before a tag is in no token.
            place = source.index(text, place)
            tokens.append(Token(kind, text, place))
            place += len(text)
    except TemplateSyntaxError as error:
        raise PartError("syntax", str(error.message), type(error).__name__, error.lineno) from error
    except RecursionError as error:
        raise PartError("limit", "nested too deep", type(error).__name__) from error
    return tokens


def _line(source: str, place: int) -> int:
    return source.count("\n", 0, place) + 1


def _with_texts(source: str, tags: Sequence[Tag]) -> list[Tag]:
    """Return the tags with what stands between them."""
    whole: list[Tag] = []
    place = 0
    for tag in tags:
        if tag.start > place:
            whole.append(Tag("text", source[place : tag.start], place, _line(source, place)))
        whole.append(tag)
        place = tag.end
    if place < len(source):
        whole.append(Tag("text", source[place:], place, _line(source, place)))
    return whole


def parses(text: str) -> bool:
    """Tell whether Jinja2 reads a text as a template."""
    try:
        _READER.parse(text)
    except (TemplateSyntaxError, RecursionError):
        return False
    return True
