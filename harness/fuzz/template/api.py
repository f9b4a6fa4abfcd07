"""Chat templates in a user's own tests: `@fuzz_template(...)`, and one conversation tried again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from harness import parts
from harness.errors import UserError, unknown_name
from harness.fuzz import conversations
from harness.fuzz.finding import Finding
from harness.fuzz.template.properties import judge, properties_named
from harness.fuzz.template.run import Plan, look_again
from harness.fuzz.template.subjects import subjects
from harness.fuzz.template.trial import Conversation, Side, Subject, Trial
from harness.project.project import find_project
from harness.project.stack import component_entry_points, load_component
from harness.values import Json

DEFAULT_ENGINES = ("transformers-template", "minijinja", "llama-cpp-jinja")
"""What renders if nobody says: the reference, and the engines of most servers that are not Python."""


_TOKENIZER = "llama-tokenize"


class BrokenPropertyError(AssertionError):
    """A property does not hold. Its text shows the outputs."""


def fuzz_template(
    template: str | Path,
    *,
    engines: Sequence[str] = DEFAULT_ENGINES,
    properties: Sequence[str] = (),
    examples: int = 100,
    adversarial: Any = (),
    control: Sequence[str] = (),
) -> Callable[[Callable[[Json, str], None]], Callable[[], None]]:
    """Make a test that tries a chat template on made-up conversations.

        @fuzz_template("chat_template.jinja", engines=["transformers-template", "minijinja"])
        def test_my_template(conversation, prompt):
            assert prompt.startswith("<s>")

    The properties are held first; then the function is called with the conversation and what the first engine made of
    it, where it made something.

    Args:
        template: A `.jinja` file, a GGUF, a `tokenizer_config.json`, or what else `harness fuzz template` takes; the
            first template in it.
        engines: Names of components; the first is the reference.
        properties: Names of properties; all where none is named.
        examples: How many conversations.
        adversarial: In which ways they are; see `conversations`.
        control: The texts of control tokens, for conversations that have them in their messages.

    Raises:
        UserError: there is no such template, engine or property.
    """
    subject = subjects(find_project(), str(template))[0].read()
    wanted = properties_named(properties)
    sides = [Side(parts.make(path), subject.source) for path in engine_paths(engines).values()]

    def decorate(function: Callable[[Json, str], None]) -> Callable[[], None]:
        @settings(
            max_examples=examples,
            deadline=None,
            # All but the phase that explains, which takes longer than the search.
            phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(conversations(adversarial=adversarial, control=tuple(control or subject.control)))
        def test(conversation: Json) -> None:
            trial = Trial(subject, sides, Conversation(conversation))
            broken, _ = judge(trial, wanted)
            if broken:
                raise BrokenPropertyError(
                    "\n".join([f"{broken[0].name}: {broken[0].message}", *map(str, broken[0].shown)])
                )
            prompt = trial.render(sides[0])
            if isinstance(prompt, str):
                function(conversation, prompt)

        test.__name__ = function.__name__
        test.__doc__ = function.__doc__
        test.__module__ = function.__module__
        made: Callable[[], None] = test
        return made

    return decorate


def try_template(
    name: str,
    conversation: Json,
    *,
    template: str | None = None,
    engines: Sequence[str] = DEFAULT_ENGINES,
    properties: Sequence[str] = (),
) -> list[Finding]:
    """Return what one conversation breaks, tried in a child process.

    Args:
        name: What `harness fuzz template` takes: a file, a package, a model, ...
        conversation: `messages`, and `tools` where some are declared.
        template: Which of several templates.
        engines: Names of components; the first is the reference.
        properties: Names of properties; all where none is named.

    Raises:
        UserError: there is no such template, engine or property, or the conversation is none.
    """
    subject = chosen(subjects(find_project(), name), template)[0].read()
    properties_named(properties)
    plan = Plan(engines=engine_paths(engines), properties=tuple(properties), tokenizer=tokenizer_path())
    return look_again(plan, subject, checked(conversation))[0]


def engine_paths(names: Sequence[str]) -> dict[str, str]:
    """Return the import paths of template engines by name.

    Raises:
        UserError: there is no such engine, or its package is not installed.
    """
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        if name not in component_entry_points():
            raise unknown_name("template engine", name, known_engines())
        path = getattr(load_component(name), "template_engine", None)
        if path is None:
            raise unknown_name("template engine", name, known_engines())
        found[name] = path
    return found


def tokenizer_path() -> str:
    """Return the import path of what tokenizes the prompts of a GGUF's template: llama.cpp; empty if not installed."""
    try:
        component: Any = load_component(_TOKENIZER)
    except UserError:
        return ""
    return str(component.tokenizer)


def known_engines() -> list[str]:
    """Return the names of the template engines whose packages are installed."""
    found = []
    for name in component_entry_points():
        try:
            if hasattr(load_component(name), "template_engine"):
                found.append(name)
        except UserError:
            continue
    return sorted(found)


def chosen(found: Sequence[Subject], template: str | None) -> list[Subject]:
    """Return the subjects that are meant: one by its name, or all.

    Raises:
        UserError: none has this name.
    """
    if template is None:
        return list(found)
    named = [subject for subject in found if subject.name == template]
    if not named:
        raise unknown_name("template", template, [subject.name for subject in found])
    return named


def checked(conversation: Any) -> Json:
    """Return a conversation that can be asked.

    Raises:
        UserError: it is none.
    """
    messages = conversation.get("messages") if isinstance(conversation, dict) else None
    tools = conversation.get("tools") if isinstance(conversation, dict) else None
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise UserError(
            "the conversation has no list of messages", 'as in {"messages": [{"role": "user", "content": "a"}]}'
        )
    if tools is not None and (not isinstance(tools, list) or not all(isinstance(one, dict) for one in tools)):
        raise UserError("the conversation's tools are no list of objects")
    found: Json = conversation
    return found
