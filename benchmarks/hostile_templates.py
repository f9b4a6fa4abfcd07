"""Chat templates that mean harm, made up from a seed: what a template of unknown origin can try on who renders it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

_BASE = """\
{{- bos_token }}{% for m in messages %}<|{{ m.role }}|>
{%- if m.content is string %}{{ m.content }}{% else %}{% for p in m.content or [] %}{{ p.text }}{% endfor %}{% endif %}
{%- for c in m.tool_calls or [] %}<call>{{ c.function.name }}:{{ c.function.arguments | tojson }}</call>{% endfor %}
{{- '<|end|>' }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""
"""A sound one, which the others are put into."""
_PLAIN = "{% for m in messages %}{{ m.content }}{% endfor %}"
_PIECES = (
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "-",
    "'",
    '"',
    "|",
    ".",
    "[",
    "]",
    "(",
    ")",
    "\\",
    "\x00",
    "\ufeff",
    "\n",
)
_DOUBLED = "{%% set ns = namespace(x=%s) %%}{%% for i in range(%d) %%}{%% set ns.x = %s %%}{%% endfor %%}"
_COMPARED = "{% set n = 9999 %}{% set a, b = [[[0] * n] * n] * n, [[[0] * n] * n] * n %}{{ a == b }}"
"""In CPython this runs for hours in C."""
_HOLDERS = ("messages", "tools", "messages[0]", "messages[-1].content", "messages[0].tool_calls", "bos_token")
_WALKS = ("__class__", "__mro__", "__subclasses__()", "__init__", "__globals__", "__builtins__", "__dict__", "mro()")
_STARTS = ("''", "[]", "messages", "cycler", "lipsum", "namespace", "raise_exception", "strftime_now", "self", "loop")

Make = Callable[[Random], str]


def _loops(random: Random) -> str:
    depth, size = random.randint(2, 6), random.choice((999, 9999, 99999))
    body = random.choice(("", "{{ messages | length }}", "{% set x = 1 %}"))
    return f"{{% for i in range({size}) %}}" * depth + body + "{% endfor %}" * depth


def _ranges(random: Random) -> str:
    size = 10 ** random.randint(5, 30)
    form = random.choice(("{{{{ range({n}) | list | length }}}}", "{{% for i in range({n}) %}}x{{% endfor %}}"))
    return form.format(n=size)


def _memory(random: Random) -> str:
    size, many = 10 ** random.randint(7, 11), random.randint(20, 60)
    return random.choice(
        (
            f"{{% set n = {size} %}}{{{{ ('x' * n) | length }}}}",
            f"{{{{ [0] * {size} }}}}",
            f"{{{{ 'x' | center({size}) }}}}",
            f"{{{{ '%{size}d' | format(1) }}}}",
            f"{{{{ '{{:>{size}}}'.format(1) }}}}",
            f"{{{{ messages | tojson(indent={size}) }}}}",
            f"{{{{ 'a\\nb' | indent({size}) }}}}",
            f"{{{{ [1] | batch({size}, 0) | list }}}}",
            _DOUBLED % ("'ab'", many, "ns.x ~ ns.x"),
            _DOUBLED % ("[1]", many, "ns.x + ns.x"),
            _DOUBLED % ("[]", many, "[ns.x, ns.x]") + "{{ ns.x }}",
            f"{{{{ lipsum(n={size // 1000}) }}}}",
        )
    )


def _numbers(random: Random) -> str:
    return random.choice(
        (_COMPARED, "{{ 9 ** (9 ** 9) }}", "{{ (10 ** 5000) | string }}", "{{ 1 / 0 }}", "{{ 1e308 * 10 }}")
    ) + (f"{{{{ {'9' * random.randint(1, 9000)} }}}}")


def _output(random: Random) -> str:
    size = 10 ** random.randint(5, 9)
    return random.choice(
        (
            f"{{% for i in range(99999) %}}{'x' * random.randint(1, 5000)}{{% endfor %}}",
            f"{{{{ '[{{' * {size} }}}}",
            f"{{{{ '<|a|> ' * {size} }}}}",
            f"{{{{ messages[0].content * {size} }}}}",
            f"{{% set x = '<a>{{' * {size} %}}{{{{ x }}}}",
        )
    )


def _recursion(random: Random) -> str:
    return random.choice(
        (
            "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(1) }}",
            "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{{ a() }}{% endmacro %}{{ a() }}",
            "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
            "{% macro m(x) %}{{ caller() }}{{ m(x) }}{% endmacro %}{% call m(1) %}{{ m(2) }}{% endcall %}",
            "{{ " + "(" * random.randint(50, 3000) + "1",
            "{{ " + "[" * random.randint(50, 3000) + "]" * 3000 + " }}",
            "{{ " + "not " * random.randint(50, 9000) + "x }}",
            "{{ 1" + " + 1" * random.randint(50, 9000) + " }}",
            "{{ messages" + "[0]" * random.randint(50, 9000) + " }}",
            "{{ messages" + " | list" * random.randint(50, 9000) + " }}",
            "{% if 1 %}" * (deep := random.randint(10, 900)) + "x" + "{% endif %}" * deep,
        )
    )


def _escapes(random: Random) -> str:
    chain = "".join(
        random.choice((f".{name}", f"['{name.removesuffix('()')}']", f" | attr('{name.removesuffix('()')}')"))
        for name in random.sample(_WALKS, random.randint(1, 5))
    )
    return f"{{{{ {random.choice(_STARTS)}{chain} }}}}"


def _changes(random: Random) -> str:
    holder = random.choice(_HOLDERS)
    change = random.choice(
        (
            ".append(1)",
            ".clear()",
            ".pop()",
            ".insert(0, none)",
            ".extend([1, 2])",
            ".reverse()",
            ".update({'content': 'changed', 'role': 5})",
            ".setdefault('content', 1)",
            ".__setitem__(0, 1)",
            ".sort()",
        )
    )
    return f"{{% set _ = {holder}{change} %}}" + random.choice(("", _BASE, _PLAIN))


def _undefined(random: Random) -> str:
    name = random.choice(
        ("date", "os", "request", "x.y.z", "messages[99].content", "messages[0].none.none", "self.a()")
    )
    return random.choice(("{{ %s }}", "{{ %s | upper }}", "{%% for a in %s %%}{{ a }}{%% endfor %%}")) % name


def _texts(random: Random) -> str:
    return random.choice(
        (
            "{{ '\\ud800' }}",
            "{{ raise_exception('\\udfff') }}",
            "{{ raise_exception('x' * 100000000) }}",
            "{{ raise_exception(messages) }}",
            "{{ raise_exception('<script>alert(1)</script>\\x1b[31m\\n\\n') }}",
            "{{ strftime_now('%' * 1000001) }}",
            "{{ strftime_now('\\x00') }}",
            "{{ strftime_now(none) }}",
            "\x00\x01\x1b[2J\u202e" + _PLAIN,
            "\ufeff" + _BASE + "\r\r\n\x0b\x85\u2028",
            "{{ '\\x1b]0;title\\x07' * 100 }}" + _PLAIN,
        )
    )


def _filters(random: Random) -> str:
    size = 10 ** random.randint(3, 6)
    name = random.choice(
        (
            "urlize",
            "striptags",
            "wordwrap(1)",
            "wordcount",
            "title",
            "escape",
            "trim",
            "truncate(5)",
            "xmlattr",
            "pprint",
        )
    )
    unit = random.choice(("http://a.b/", "<", "<a ", "a ", "&", "(", "\\u00df"))
    return f"{{{{ ('{unit}' * {size}) | {name} }}}}" + random.choice(
        ("", f"{{{{ 'a' * {size} | replace('', 'b' * 99) }}}}")
    )


def _other_files(random: Random) -> str:
    where = random.choice(("/etc/passwd", "../x", "", "a" * 9000))
    form = random.choice(("{%% include '%s' %%}", "{%% import '%s' as a %%}", "{%% extends '%s' %%}"))
    return form % where


def _cut(random: Random) -> str:
    """A sound template, hurt at random."""
    source = _BASE
    for _ in range(random.randint(1, 8)):
        at, to = sorted((random.randrange(len(source) + 1), random.randrange(len(source) + 1)))
        source = random.choice(
            (
                source[:at] + source[to:],
                source[:at] + random.choice(_PIECES) + source[at:],
                source[:to] + source[at:to] * random.randint(1, 3) + source[to:],
            )
        )[:20_000]
    return source


KINDS: dict[str, Make] = {
    "loops": _loops,
    "ranges": _ranges,
    "memory": _memory,
    "numbers": _numbers,
    "output": _output,
    "recursion": _recursion,
    "escapes": _escapes,
    "changes": _changes,
    "undefined": _undefined,
    "texts": _texts,
    "filters": _filters,
    "files": _other_files,
    "cut": _cut,
}
"""What is tried, by name."""


def hostile_templates(count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yield names and sources of templates, each kind in its turn; the same ones for the same seed."""
    random = Random(seed)
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        yield f"{number:05}-{kind}.jinja", KINDS[kind](random)
