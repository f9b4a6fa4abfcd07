"""Defects of the Jinja environment: what an engine that is no transformers does otherwise with the same template."""

from __future__ import annotations

import html
import json
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.defects.defect import defect

_TOOLS = ("smollm2-135m-instruct-tools",)
_THINKING = ("smollm2-135m-instruct-thinking",)


@defect(
    "tpl-tojson-htmlsafe",
    place="environment",
    sentence="`tojson` is Jinja's own: keys in order, and escapes for markup and for what is not ASCII.",
    cause="API usage",
    models=_TOOLS,
    references=("huggingface/transformers#31041", "abetlen/llama-cpp-python#1486", "EricLBuehler/mistral.rs#2363"),
    way="htmlsafe",
)
@defect(
    "tpl-tojson-ascii",
    place="environment",
    sentence="`tojson` writes escapes for what is not ASCII.",
    cause="data and computation",
    models=_TOOLS,
    references=("theroyallab/tabbyAPI#459",),
    way="ascii",
)
@defect(
    "tpl-tojson-sorted",
    place="environment",
    sentence="`tojson` writes keys in alphabetical order.",
    cause="data and computation",
    models=_TOOLS,
    references=("huggingface/transformers#31100",),
    way="sorted",
)
@defect(
    "tpl-tojson-compact",
    place="environment",
    sentence="`tojson` writes no spaces.",
    cause="data and computation",
    models=_TOOLS,
    references=("huggingface/swift-jinja#71",),
    way="compact",
)
@defect(
    "tpl-tojson-slash-escaped",
    place="environment",
    sentence="`tojson` writes a backslash before each slash.",
    cause="data and computation",
    models=_TOOLS,
    references=("huggingface/swift-jinja#71",),
    way="slash",
)
@defect(
    "tpl-tojson-indented",
    place="environment",
    sentence="`tojson` writes lines with indents.",
    cause="data and computation",
    models=_TOOLS,
    way="indented",
)
@defect(
    "tpl-tojson-repr",
    place="environment",
    sentence="`tojson` writes a value as Python does.",
    cause="data and computation",
    models=_TOOLS,
    way="repr",
)
def tojson_replaced(environment: Any, way: str) -> None:
    """Put another filter in its place."""
    ways: dict[str, Callable[[Any], str]] = {
        "htmlsafe": lambda value: _html_safe(json.dumps(value, sort_keys=True)),
        "ascii": json.dumps,
        "sorted": lambda value: json.dumps(value, ensure_ascii=False, sort_keys=True),
        "compact": lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
        "slash": lambda value: json.dumps(value, ensure_ascii=False).replace("/", "\\/"),
        "indented": lambda value: json.dumps(value, ensure_ascii=False, indent=4),
        "repr": str,
    }
    written = ways[way]
    environment.filters["tojson"] = lambda value, *_, **__: written(value)


def _html_safe(text: str) -> str:
    for one in "<>&'":
        text = text.replace(one, f"\\u{ord(one):04x}")
    return text


@defect(
    "tpl-strftime-missing",
    place="environment",
    sentence="The environment has no `strftime_now`.",
    cause="API usage",
    symptom="crash",
    models=_TOOLS,
    references=("oobabooga/textgen#6675", "theroyallab/tabbyAPI#281"),
    way="missing",
)
@defect(
    "tpl-strftime-constant",
    place="environment",
    sentence="`strftime_now` gives a date of the past, always the same.",
    cause="data and computation",
    models=_TOOLS,
    references=("ggml-org/llama.cpp#12729",),
    way="constant",
)
@defect(
    "tpl-strftime-format-ignored",
    place="environment",
    sentence="`strftime_now` writes the date its own way, whatever is asked for.",
    cause="data and computation",
    models=_TOOLS,
    references=("lmstudio-ai/lmstudio-bug-tracker#465",),
    way="format",
)
@defect(
    "tpl-strftime-clock-unpinned",
    place="environment",
    sentence="`strftime_now` gives the machine's time, not the time that was set.",
    cause="environment",
    models=_TOOLS,
    references=("lmstudio-ai/lmstudio-bug-tracker#577",),
    way="unpinned",
)
def strftime_replaced(environment: Any, way: str) -> None:
    """Have the template find another function under its name, or none."""
    ways: dict[str, Callable[[Any, Any], Any]] = {
        "missing": lambda _, missing: missing,
        "constant": lambda _real, _: lambda form: datetime(2024, 7, 26).strftime(form),
        "format": lambda real, _: lambda _form: real("%d %b %Y"),
        "unpinned": lambda _real, _: lambda form: _of_the_disk().strftime(form),
    }
    _found_otherwise(environment, "strftime_now", ways[way])


def _of_the_disk() -> datetime:
    """Return the time that the file system has: no clock that Python could have been told."""
    with tempfile.NamedTemporaryFile() as file:
        return datetime.fromtimestamp(Path(file.name).stat().st_mtime)


@defect(
    "tpl-thinking-off-by-default",
    place="environment",
    sentence="`enable_thinking` is false where the caller says nothing of it: the prompt closes the reasoning block.",
    cause="configuration",
    models=_THINKING,
    name="enable_thinking",
    value=False,
)
def variable_replaced(environment: Any, name: str, value: Any) -> None:
    """Have the template find another value under a name."""
    _found_otherwise(environment, name, lambda _found, _missing: value)


@defect(
    "tpl-literals-autoescaped",
    place="environment",
    sentence="The environment escapes every output as for HTML.",
    cause="configuration",
)
def autoescaped(environment: Any) -> None:
    """Switch that on."""
    environment.autoescape = True


@defect(
    "tpl-contents-autoescaped",
    place="environment",
    sentence="The environment escapes the caller's words as for HTML, and what the template itself writes is left.",
    cause="configuration",
    references=("EricLBuehler/mistral.rs#2363",),
)
def contents_escaped(environment: Any) -> None:
    """Escape what is read from a message."""
    _read_otherwise(
        environment, lambda name, found: html.escape(found) if name == "content" and isinstance(found, str) else found
    )


@defect(
    "tpl-undefined-strict",
    place="environment",
    sentence="What is not defined is an error, where a template counts on its being false.",
    cause="configuration",
    symptom="crash",
    models=_TOOLS,
)
def undefined_strict(environment: Any) -> None:
    """Take Jinja's strict class for it."""
    from jinja2 import StrictUndefined

    environment.undefined = StrictUndefined


@defect(
    "tpl-test-string-never",
    place="environment",
    sentence="The test `string` holds for nothing: a text is gone through letter by letter.",
    cause="algorithm",
    models=_TOOLS,
    references=("containers/ramalama#2422", "lmstudio-ai/lmstudio-bug-tracker#404"),
    test="string",
)
@defect(
    "tpl-test-iterable-never",
    place="environment",
    sentence="The test `iterable` holds for nothing: a content of parts is lost.",
    cause="algorithm",
    models=_TOOLS,
    test="iterable",
)
def test_never_holds(environment: Any, test: str) -> None:
    """Have a test fail always."""
    environment.tests[test] = lambda *_: False


@defect(
    "tpl-js-engine-gap",
    place="environment",
    sentence="The engine does not know the test `string` and stops.",
    cause="API usage",
    symptom="crash",
    models=_TOOLS,
    references=("lmstudio-ai/lmstudio-bug-tracker#535", "lmstudio-ai/mlx-engine#128"),
)
def unknown_test_refused(environment: Any) -> None:
    """Raise when it is used, as an engine that interprets does."""

    def refuse(*_: Any) -> bool:
        raise ValueError("Unknown test: string")

    environment.tests["string"] = refuse


@defect(
    "tpl-negative-index-unsupported",
    place="environment",
    sentence="An index from the end of a list finds nothing.",
    cause="algorithm",
    symptom="crash",
    models=_THINKING,
    references=("ggml-org/llama.cpp#13178",),
)
def negative_index(environment: Any) -> None:
    """Read nothing at a negative index."""
    real = environment.getitem

    def getitem(value: Any, key: Any) -> Any:
        if isinstance(value, list | tuple) and isinstance(key, int) and key < 0:
            return environment.undefined(obj=value, name=key)
        return real(value, key)

    environment.getitem = getitem


def _found_otherwise(environment: Any, name: str, replace: Callable[[Any, Any], Any]) -> None:
    """Have templates find something else under a variable's name: `replace(found, missing)`."""
    from jinja2.utils import missing

    class Context(environment.context_class):  # type: ignore[misc]
        def resolve_or_missing(self, key: str) -> Any:
            found = super().resolve_or_missing(key)
            return replace(found, missing) if key == name else found

    environment.context_class = Context


def _read_otherwise(environment: Any, replace: Callable[[Any, Any], Any]) -> None:
    """Have templates read something else of an object: `replace(name, found)`."""
    real_attribute, real_item = environment.getattr, environment.getitem
    environment.getattr = lambda value, name: replace(name, real_attribute(value, name))
    environment.getitem = lambda value, key: replace(key, real_item(value, key))
