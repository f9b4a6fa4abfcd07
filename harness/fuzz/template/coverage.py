"""Which branches and loops of a template a set of inputs never reached, by line.

The template's syntax tree is instrumented and compiled by the environment that renders it, so that what is counted is
what runs, and the text is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.visitor import NodeTransformer

from harness.fuzz.template.source import Tag, plain_newlines, tags_of
from harness.parts import CLOCK, PartError, Rendering

Kind = Literal[
    "output",
    "if",
    "elif",
    "else",
    "conditional true",
    "conditional false",
    "loop zero",
    "loop one",
    "loop many",
    "macro",
]
"""What a point is: an output that is written, an arm that is taken (`else` also where it is not written), an outcome of
the condition in `a if b else c`, a loop that ran so often, a macro that is called."""

_N = TypeVar("_N", bound=nodes.Node)
_POINT, _EITHER, _LOOP = "_covered_point", "_covered_either", "_covered_loop"
"""The names by which the instrumented tree calls the counting. A template that calls them spoils its own count only."""
_SHOWN = 160
_RUNS: tuple[Kind, ...] = ("loop zero", "loop one", "loop many")


@dataclass(frozen=True)
class Missed:
    """A point that no input reached.

    Attributes:
        line: Where its tag begins, from 1.
        kind: What it is.
        text: Its tag's source, cut.
    """

    line: int
    kind: Kind
    text: str


class Coverage:
    """Renders a template and counts what of it was reached.

    Args:
        environment: Compiles and renders, with its filters, globals and limits. `strftime_now` is set by what is asked.
        source: The template.

    Raises:
        PartError: the template does not compile, or is nested too deep.
    """

    def __init__(self, environment: Environment, source: str) -> None:
        plain = plain_newlines(source)
        self._points: list[Missed] = []
        self._reached: set[int] = set()
        self._running: dict[int, list[int]] = {}
        self._clock = CLOCK
        tags = tags_of(plain)
        try:
            tree = environment.parse(source)
            tree = _Instrument(environment, tags, self._points).visit(tree)
            code = environment.compile(tree)
        except TemplateSyntaxError as error:
            raise PartError("syntax", str(error.message), type(error).__name__, error.lineno) from error
        except RecursionError as error:
            raise PartError("limit", "nested too deep", type(error).__name__) from error
        counting = {_POINT: self._reached.add, _EITHER: self._either, _LOOP: self._loop}
        known = {**counting, "strftime_now": lambda form: self._clock.strftime(form)}
        self._template = environment.template_class.from_code(environment, code, environment.make_globals(known))

    def render(self, asked: Rendering) -> str:
        """Return the text, which is that of the plain template.

        Raises:
            Exception: what the template raises; what it had reached until then counts.
        """
        self._clock = asked.clock
        self._running.clear()
        return self._template.render(
            {
                "messages": asked.messages,
                "tools": asked.tools,
                "documents": None,
                "add_generation_prompt": asked.opens,
                **asked.variables,
            }
        )

    def missed(self) -> list[Missed]:
        """Return the points that no render reached, in the order of the source."""
        missed = [point for number, point in enumerate(self._points) if number not in self._reached]
        return sorted(missed, key=lambda point: point.line)

    @property
    def points(self) -> tuple[Missed, ...]:
        """All points, numbered from 0; in no order that matters."""
        return tuple(self._points)

    @property
    def reached(self) -> frozenset[int]:
        """The numbers of the points that were reached."""
        return frozenset(self._reached)

    @property
    def share(self) -> float:
        """The share of the points that were reached; 1 where there are none."""
        return 1 - len(self.missed()) / len(self._points) if self._points else 1.0

    def _either(self, number: int, value: Any) -> Any:
        """Note the outcome of a condition: the point of this number, or the next one."""
        self._reached.add(number if value else number + 1)
        return value

    def _loop(self, number: int, event: str) -> None:
        """Note that a loop begins, starts over, or ends; its points are zero, one and many runs, from this number on.

        Loops that call themselves are counted as one.
        """
        runs = self._running.setdefault(number, [])
        if event == "begin":
            runs.append(0)
        elif event == "step":
            runs[-1] += 1
        else:
            self._reached.add(number + min(runs.pop(), 2))


class _Instrument(NodeTransformer):
    """Puts calls of the counting into a tree. The nodes come in the order of their tags."""

    def __init__(self, environment: Environment, tags: list[Tag], points: list[Missed]) -> None:
        self._environment = environment
        self._points = points
        self._tags = {
            "output": iter([tag for tag in tags if tag.kind == "output" or tag.name == "print"]),
            **{name: iter([tag for tag in tags if tag.name == name]) for name in ("if", "elif", "for", "macro")},
        }
        self._tag = Tag("text", "", 0, 1)

    def visit_Output(self, node: nodes.Output) -> list[nodes.Node]:  # noqa: N802
        made: list[nodes.Node] = []
        for child in node.nodes:
            if isinstance(child, nodes.TemplateData):
                made.append(self._new(nodes.Output([child]), node))
                continue
            self._enter("output", child)
            made += [self._point("output", node), self._new(nodes.Output([self.visit(child)]), node)]
        return made

    def visit_If(self, node: nodes.If) -> nodes.If:  # noqa: N802
        tag = self._arm("if", node)
        for arm in node.elif_:
            self._arm("elif", arm)
        otherwise = self._visited(node.else_)
        self._tag = tag
        node.else_ = [self._point("else", node), *otherwise]
        return node

    def _arm(self, name: Literal["if", "elif"], node: nodes.If) -> Tag:
        tag = self._enter(name, node)
        node.test = self.visit(node.test)
        reached = self._point(name, node)
        node.body = [reached, *self._visited(node.body)]
        return tag

    def visit_For(self, node: nodes.For) -> list[nodes.Node]:  # noqa: N802
        self._enter("for", node)
        number = len(self._points)
        for kind in _RUNS:
            self._add(kind)
        node.iter = self.visit(node.iter)
        if node.test is not None:
            node.test = self.visit(node.test)
        node.body = [self._call(_LOOP, node, number, "step"), *self._visited(node.body)]
        node.else_ = self._visited(node.else_)
        return [self._call(_LOOP, node, number, "begin"), node, self._call(_LOOP, node, number, "end")]

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:  # noqa: N802
        self._enter("macro", node)
        called = self._point("macro", node)
        node.defaults = [self.visit(one) for one in node.defaults]
        node.body = [called, *self._visited(node.body)]
        return node

    def visit_CondExpr(self, node: nodes.CondExpr) -> nodes.Node:  # noqa: N802
        number = self._add("conditional true")
        self._add("conditional false")
        self.generic_visit(node)
        call = nodes.Call(nodes.Name(_EITHER, "load"), [nodes.Const(number), node.test], [], None, None)
        node.test = self._new(call, node)
        return node

    def _visited(self, body: list[nodes.Node]) -> list[nodes.Node]:
        return list(self._flat(body))

    def _flat(self, body: list[nodes.Node]) -> Iterator[nodes.Node]:
        for node in body:
            made = self.visit(node)
            yield from made if isinstance(made, list) else [made]

    def _enter(self, name: str, node: nodes.Node) -> Tag:
        """Take the next tag of a name: what is added from here on is of it."""
        self._tag = next(self._tags[name], Tag("text", "", 0, node.lineno))
        return self._tag

    def _add(self, kind: Kind) -> int:
        text = self._tag.text.strip()
        self._points.append(Missed(self._tag.line, kind, text if len(text) <= _SHOWN else text[:_SHOWN] + "…"))
        return len(self._points) - 1

    def _point(self, kind: Kind, near: nodes.Node) -> nodes.Node:
        return self._call(_POINT, near, self._add(kind))

    def _call(self, name: str, near: nodes.Node, *arguments: Any) -> nodes.Node:
        values: list[nodes.Expr] = [nodes.Const(value) for value in arguments]
        call = nodes.Call(nodes.Name(name, "load"), values, [], None, None)
        return self._new(nodes.ExprStmt(call), near)

    def _new(self, node: _N, near: nodes.Node) -> _N:
        """Return a new node as one of this tree, where another one stands."""
        node.set_environment(self._environment).set_lineno(near.lineno)
        return node
