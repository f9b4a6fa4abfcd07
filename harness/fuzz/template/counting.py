"""Coverage beside the reference engine: what it is asked is rendered once more, and what it reaches is counted.

An engine takes part if it has two methods: `environment(source)`, the Jinja2 environment that compiles the template,
and `given(asked)`, what is asked as the template gets it.
"""

from __future__ import annotations

import contextlib
from typing import Any

from harness.fuzz.template.coverage import Coverage
from harness.fuzz.template.trial import SECONDS
from harness.parts import Compiled, Rendering, TemplateEngine, limited


class Counting:
    """Counts what of a template is reached.

    Args:
        engine: One that has the two methods.
        coverage: The template.
    """

    def __init__(self, engine: Any, coverage: Coverage) -> None:
        self._engine, self.coverage = engine, coverage

    def count(self, asked: Rendering) -> None:
        """Count what a render reaches, also one that ends before its end."""
        # The engine's own render tells how it ends.
        with contextlib.suppress(Exception), limited(SECONDS):
            self.coverage.render(self._engine.given(asked.own()))

    @property
    def reached(self) -> list[int]:
        """The numbers of the points that were reached, in order."""
        return sorted(self.coverage.reached)


class Counted:
    """A compiled template that counts what each render reaches."""

    def __init__(self, compiled: Compiled, counting: Counting) -> None:
        self._compiled, self._counting = compiled, counting

    def render(self, asked: Rendering) -> str:
        """Return the engine's own text; see `harness.parts.Compiled`."""
        self._counting.count(asked)
        return self._compiled.render(asked)


def counting_of(engine: TemplateEngine, source: str) -> Counting | None:
    """Return what counts what of a template is reached in an engine.

    Returns:
        None where the engine does not show how it compiles, or the template does not compile or cannot be counted.
    """
    environment = getattr(engine, "environment", None)
    if environment is None:
        return None
    try:
        with limited(SECONDS):
            return Counting(engine, Coverage(environment(source), source))
    except Exception:  # noqa: BLE001 - whatever a source does to what reads it: how the template ends, its engine tells
        return None
