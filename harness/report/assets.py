"""Pages that ask nothing of a network: our own styles and script inlined, everything else forbidden and escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup


def asset(name: str) -> str:
    """Return a file of the folder `page`."""
    return files("harness.report").joinpath("page", name).read_text(encoding="utf-8")


def page(template: str, styles: Sequence[str], *, script: str | None = None, **values: Any) -> str:
    """Return a page. What is not marked as markup is text in it.

    Args:
        template: The name of its template, which extends `frame.html`.
        styles: The names of its style sheets.
        script: The name of its script; without one the page allows none.
        values: What its template shows.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=FunctionLoader(asset))
    source = "" if script is None else asset(script)
    return environment.get_template(template).render(
        style=Markup("".join(map(asset, styles))),  # noqa: S704  # ours
        script=Markup(source),  # noqa: S704  # ours
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}" if source else "",
        **values,
    )
