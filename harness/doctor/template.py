"""Checks of the chat templates. They are parsed and never run: a template is a program of the file's author.

Compiling is avoided too, because Jinja's optimizer computes constant expressions: `{{ 9**9**9 }}` would be the end.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harness.doctor.diagnosis import Check
from harness.doctor.facts import Facts, Judgement, WrongTypeError, check, judge, quoted, some
from harness.doctor.pre_tokenizers import DEFAULT_BOS, adds_bos_by_default
from harness.errors import MissingPackageError

if TYPE_CHECKING:
    from jinja2 import nodes

_KEY = "tokenizer.chat_template"
# Ten times the largest template known; parsing that much takes a second or two at worst.
_MAX_CHARACTERS = 256 * 1024
# Published models have up to three.
_MAX_TEMPLATES = 16
# Role markers as templates write them; DeepSeek's have fullwidth bars.
_MARKER = re.compile(r"<[|｜][^|｜<>\s]{1,64}[|｜]>")
_NO_TEMPLATE = Judgement("unobserved", "the file has no chat template that could be read")


@dataclass(frozen=True)
class Parsed:
    """What a template mentions, or why it is none.

    Attributes:
        names: The variables.
        literals: The texts that it writes or compares with.
        after_content: Each text that is written right after a message's content.
        problem: Why it is none.
    """

    names: frozenset[str] = frozenset()
    literals: tuple[str, ...] = ()
    after_content: tuple[str, ...] = ()
    problem: str = ""


def template_checks(facts: Facts) -> Iterator[Check]:
    """Run every check of the chat templates."""
    yield _chat_template(facts)
    yield _template_syntax(facts)
    yield _generation_prompt(facts)
    yield _role_markers(facts)
    yield _double_bos(facts)


@check("chat template")
def _chat_template(facts: Facts) -> Judgement:
    templates = _templates(facts)
    if len(_keys(facts)) > _MAX_TEMPLATES:
        found = f"there are {len(_keys(facts)):,} chat templates, of which {_MAX_TEMPLATES} are read"
        return Judgement("bad", found, "convert the model again")
    listed = facts.texts("tokenizer.chat_templates") or []
    missing = [quoted(name) for name in listed if f"{_KEY}.{name}" not in facts.model.metadata]
    if missing:
        found = f"tokenizer.chat_templates lists {some(missing)}, but there is no such template"
        return Judgement("bad", found, "convert the model again")
    if not facts.has_vocabulary:
        return Judgement("unobserved", "the file has no vocabulary, so no chat template either")
    if "default" not in templates:
        return Judgement(
            "warning",
            f"{_KEY} is missing: a server guesses a format, or refuses to chat",
            "right for a base or embedding model; for a chat model convert it again, or give the server the template",
        )
    if not templates["default"].strip():
        return Judgement("bad", f"{_KEY} is empty", "convert the model again")
    sizes = (f"{quoted(name)} of {len(text):,} characters" for name, text in templates.items())
    return Judgement("ok", some(sizes))


@check("template syntax")
def _template_syntax(facts: Facts) -> Judgement:
    templates = _templates(facts)
    if not templates:
        return _NO_TEMPLATE
    parsed = {name: _parse(text) for name, text in templates.items()}
    bad = [f"template {quoted(name)} {result.problem}" for name, result in parsed.items() if result.problem]
    fine = f"{len(templates)} parsed as Jinja (not run)"
    return judge(bad[:5], [], fine, "take the template from the original model's repository")


@check("generation prompt")
def _generation_prompt(facts: Facts) -> Judgement:
    readable = _readable(facts)
    if not readable:
        return _NO_TEMPLATE
    without = [quoted(name) for name, parsed in readable.items() if "add_generation_prompt" not in parsed.names]
    odd = [f"template {some(without)} never looks at add_generation_prompt"] if without else []
    return judge(
        [],
        odd,
        "the template obeys add_generation_prompt",
        "right where the user's turn itself ends with the opening of the assistant's ([/INST]); else the model may "
        "write the user's next message",
    )


_ALWAYS_CONTROL: Final = frozenset(
    {"<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}
)
"""Markers of ChatML and Llama 3, which the models that were trained with them have as control tokens."""


@check("role markers")
def _role_markers(facts: Facts) -> Judgement:
    import gguf

    readable = _readable(facts)
    if not readable:
        return _NO_TEMPLATE
    literals = (literal for parsed in readable.values() for literal in parsed.literals)
    markers = sorted({marker for literal in literals for marker in _MARKER.findall(literal)})
    if not markers:
        return Judgement("ok", "the template writes no <|...|> marker literally")
    matched_whole = (gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED)
    lost = [marker for marker in markers if marker not in facts.ids]
    absent = [quoted(marker) for marker in lost if marker not in _ALWAYS_CONTROL]
    foreign = [quoted(marker) for marker in lost if marker in _ALWAYS_CONTROL]
    ordinary = [
        quoted(marker)
        for marker in markers
        if marker in facts.ids and facts.type_of(facts.ids[marker]) not in matched_whole
    ]
    bad = [f"{some(ordinary)} of the template is in the vocabulary, but not as a control token"] if ordinary else []
    if foreign:
        bad.append(
            f"{some(foreign)} of the template is no token of this vocabulary: the template is another model's, and "
            "each marker is cut into ordinary tokens"
        )
    odd = [f"{some(absent)} of the template is not in the vocabulary, so it is cut into pieces"] if absent else []
    return judge(
        bad,
        odd,
        f"{some(quoted(marker) for marker in markers)}: control tokens",
        "role markers must be control tokens, unless the model was trained on them as plain text (Zephyr, TinyLlama)",
    )


@check("double BOS")
def _double_bos(facts: Facts) -> Judgement:
    readable = _readable(facts)
    if not readable:
        return _NO_TEMPLATE
    bos = facts.integer("tokenizer.ggml.bos_token_id")
    bos = DEFAULT_BOS.get(facts.tokenizer) if bos is None else bos
    text = facts.tokens[bos] if bos is not None and 0 <= bos < len(facts.tokens) else None
    writing = [
        quoted(name)
        for name, parsed in readable.items()
        if "bos_token" in parsed.names or (text and any(text in literal for literal in parsed.literals))
    ]
    declared = facts.flag("tokenizer.ggml.add_bos_token")
    adds = (
        adds_bos_by_default(facts.tokenizer, facts.text("tokenizer.ggml.pre") or "") if declared is None else declared
    )
    said = "by default" if declared is None else "by add_bos_token"
    if adds and writing:
        return Judgement(
            "warning",
            f"the tokenizer prepends a BOS ({said}), and so does the template {some(writing)}",
            "tokenize rendered prompts without special tokens (add_special false), or set add_bos_token to false",
        )
    who = f"the tokenizer ({said})" if adds else "the template" if writing else "nobody"
    return Judgement("ok", f"{who} writes the BOS")


def default_template(facts: Facts) -> Parsed | None:
    """Return what the template for chats mentions, or None if there is none that could be read."""
    try:
        return _readable(facts).get("default")
    except WrongTypeError:
        return None


def _keys(facts: Facts) -> list[str]:
    return [key for key in facts.model.metadata if key == _KEY or key.startswith(f"{_KEY}.")]


def _templates(facts: Facts) -> dict[str, str]:
    """Return the templates by name; the one without a name is `default`."""
    keys = _keys(facts)[:_MAX_TEMPLATES]
    return {key.removeprefix(_KEY).removeprefix(".") or "default": facts.text(key) or "" for key in keys}


def _readable(facts: Facts) -> dict[str, Parsed]:
    parsed = {name: _parse(text) for name, text in _templates(facts).items()}
    return {name: result for name, result in parsed.items() if not result.problem}


@functools.lru_cache(maxsize=_MAX_TEMPLATES)
def _parse(text: str) -> Parsed:
    """Parse a template as transformers would, without compiling it."""
    try:
        import jinja2
        from jinja2 import nodes
        from jinja2.ext import Extension
        from jinja2.parser import Parser
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise MissingPackageError("examining a chat template", "jinja2", "doctor") from error

    class Generation(Extension):
        """The tag with which authors mark the assistant's text for training."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    if len(text) > _MAX_CHARACTERS:
        return Parsed(problem=f"has {len(text):,} characters; more than {_MAX_CHARACTERS:,} are not read")
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    try:
        with warnings.catch_warnings():
            # Python's opinion about a backslash in the author's string literal.
            warnings.simplefilter("ignore", DeprecationWarning)
            tree = environment.parse(text)
    except jinja2.TemplateSyntaxError as error:
        return Parsed(problem=f"is not valid Jinja: line {error.lineno}: {quoted(error.message or '', 200)}")
    except RecursionError:
        return Parsed(problem="is nested too deeply")
    except ValueError as error:  # an integer literal of thousands of digits
        return Parsed(problem=f"is not valid Jinja: {quoted(str(error), 200)}")

    names, literals = set(), []
    # Not find_all(): it recurses, and a chain of 100,000 filters is as deep as it is long.
    pending: list[nodes.Node] = [tree]
    while pending:
        node = pending.pop()
        pending.extend(node.iter_child_nodes())
        if isinstance(node, nodes.Name):
            names.add(node.name)
        elif isinstance(node, nodes.TemplateData):
            literals.append(node.data)
        elif isinstance(node, nodes.Const) and isinstance(node.value, str):
            literals.append(node.value)
    return Parsed(names=frozenset(names), literals=tuple(literals), after_content=tuple(_after_content(tree)))


def _after_content(tree: nodes.Template) -> Iterator[str]:
    """Yield each text that the template writes right after what it writes of a message's content."""
    from jinja2 import nodes

    # Each with whether it is part of what is written; conditions and assignments are not.
    pending: list[tuple[nodes.Node, bool]] = [(tree, False)]
    after = False
    while pending:
        node, written = pending.pop()
        if isinstance(node, nodes.Expr) and not written:
            continue
        if isinstance(node, (nodes.Getattr, nodes.Getitem, nodes.Name)):
            after = _is_content(node)
            continue
        text = (
            node.data if isinstance(node, nodes.TemplateData) else node.value if isinstance(node, nodes.Const) else ""
        )
        if isinstance(text, str) and text:
            if after:
                yield text
            after = False
        inside = written or isinstance(node, nodes.Output)
        pending += [(child, inside) for child in reversed(list(node.iter_child_nodes()))]


def _is_content(node: nodes.Node) -> bool:
    from jinja2 import nodes

    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    return isinstance(node, nodes.Name) and node.name == "content"
