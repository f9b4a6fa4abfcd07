"""Mutants of a template: one mistake at one place of its syntax tree, of the kinds that `harness.fuzz` has."""

from __future__ import annotations

from harness.defects.defect import defect

_TOOLS = ("smollm2-135m-instruct-tools",)
_THINKING = ("smollm2-135m-instruct-thinking",)


@defect(
    "tpl-mutant-content-cut",
    place="source",
    sentence="Contents lose their last character.",
    cause="data and computation",
    models=_TOOLS,
    mutation="content-cut",
)
@defect(
    "tpl-mutant-role-written-wrong",
    place="source",
    sentence="Every turn is written as the user's.",
    cause="data and computation",
    models=_TOOLS,
    mutation="role-written-wrong",
)
@defect(
    "tpl-mutant-arguments-dropped",
    place="source",
    sentence="Calls in the history have no arguments.",
    cause="data and computation",
    models=_TOOLS,
    mutation="arguments-dropped",
)
@defect(
    "tpl-mutant-json-dropped",
    place="source",
    sentence="The names of called functions have no quotes.",
    cause="data and computation",
    models=_TOOLS,
    mutation="json-dropped",
    at=1,
)
@defect(
    "tpl-mutant-tool-results-dropped",
    place="source",
    sentence="The results of tools are turns of a role `tool`.",
    cause="algorithm",
    models=_TOOLS,
    mutation="tool-results-dropped",
)
@defect(
    "tpl-mutant-wrong-role",
    place="source",
    sentence="The user's turns are written as results of tools.",
    cause="algorithm",
    models=_TOOLS,
    mutation="wrong-role",
    at=1,
)
@defect(
    "tpl-mutant-tools-condition-negated",
    place="source",
    sentence="The block of tools is written where there are none, and only there.",
    cause="algorithm",
    models=_TOOLS,
    mutation="condition-negated",
    at=4,
)
@defect(
    "tpl-mutant-system-always-own",
    place="source",
    sentence="The first message is always taken for the system's.",
    cause="algorithm",
    models=_TOOLS,
    mutation="condition-always",
    at=3,
)
@defect(
    "tpl-mutant-system-written-twice",
    place="source",
    sentence="The system message is written again as a turn.",
    cause="algorithm",
    models=_TOOLS,
    mutation="condition-always",
    at=8,
)
@defect(
    "tpl-mutant-result-turn-unopened",
    place="source",
    sentence="The turn of a tool's result is never opened.",
    cause="algorithm",
    models=_TOOLS,
    mutation="condition-never",
    at=6,
)
@defect(
    "tpl-mutant-calls-and-or",
    place="source",
    sentence="Calls in the history are lost by an `and` that should be an `or`.",
    cause="algorithm",
    models=_TOOLS,
    mutation="and-or",
    at=4,
)
@defect(
    "tpl-mutant-first-message-lost",
    place="source",
    sentence="The first message is not written.",
    cause="algorithm",
    models=_TOOLS,
    mutation="first-message-lost",
)
@defect(
    "tpl-mutant-last-message-lost",
    place="source",
    sentence="The last message is not written.",
    cause="algorithm",
    models=_TOOLS,
    mutation="last-message-lost",
)
@defect(
    "tpl-mutant-messages-reversed",
    place="source",
    sentence="The messages are written in the other order.",
    cause="algorithm",
    models=_TOOLS,
    mutation="messages-reversed",
)
@defect(
    "tpl-mutant-first-tool-only",
    place="source",
    sentence="Of several tools only the first is written.",
    cause="algorithm",
    models=_TOOLS,
    mutation="first-tool-only",
)
@defect(
    "tpl-mutant-last-part-lost",
    place="source",
    sentence="The last part of a content is not written.",
    cause="algorithm",
    models=_TOOLS,
    mutation="loop-without-last",
)
@defect(
    "tpl-mutant-loop-edge-swapped",
    place="source",
    sentence="A system message counts as written at the end of the conversation, not at its beginning.",
    cause="algorithm",
    models=_TOOLS,
    mutation="loop-edge-swapped",
    at=2,
)
@defect(
    "tpl-mutant-end-marker-dropped",
    place="source",
    sentence="The results of tools are not closed.",
    cause="data and computation",
    models=_TOOLS,
    mutation="end-marker-dropped",
    at=3,
)
@defect(
    "tpl-mutant-end-marker-doubled",
    place="source",
    sentence="Turns are closed twice.",
    cause="data and computation",
    models=_TOOLS,
    mutation="end-marker-doubled",
    at=6,
)
@defect(
    "tpl-mutant-marker-dropped",
    place="source",
    sentence="The list of tools is not opened.",
    cause="data and computation",
    models=_TOOLS,
    mutation="marker-dropped",
    at=1,
)
@defect(
    "tpl-mutant-newline-dropped",
    place="source",
    sentence="No line break follows the role.",
    cause="tokenizer and text",
    models=_TOOLS,
    mutation="newline-dropped",
    at=15,
)
@defect(
    "tpl-mutant-space-dropped",
    place="source",
    sentence="No space stands before the arguments of a call.",
    cause="tokenizer and text",
    models=_TOOLS,
    mutation="space-dropped",
    at=2,
)
@defect(
    "tpl-mutant-text-dropped",
    place="source",
    sentence="The tag that opens a tool's result is lost.",
    cause="data and computation",
    models=_TOOLS,
    mutation="text-dropped",
    at=8,
)
@defect(
    "tpl-mutant-output-doubled",
    place="source",
    sentence="Every content is written twice.",
    cause="data and computation",
    models=_TOOLS,
    mutation="output-doubled",
)
@defect(
    "tpl-mutant-reasoning-kept",
    place="source",
    sentence="The reasoning of earlier answers is written.",
    cause="algorithm",
    models=_THINKING,
    mutation="split-dropped",
)
@defect(
    "tpl-mutant-think-unopened",
    place="source",
    sentence="The reasoning block is not opened by the prompt.",
    cause="data and computation",
    models=_THINKING,
    mutation="marker-dropped",
    at=3,
)
@defect(
    "tpl-mutant-think-newline-dropped",
    place="source",
    sentence="No line break follows the tag that opens the reasoning block.",
    cause="tokenizer and text",
    models=_THINKING,
    mutation="newline-dropped",
    at=5,
)
def mutated(template: str, mutation: str, at: int = 0) -> str:
    """Make a mistake of a kind at one of its places; a template that has no such place is left as it is.

    Args:
        template: The source.
        mutation: The kind, one of `harness.fuzz.template.mutation.KINDS`.
        at: Which of its places, from 0.
    """
    from harness.fuzz.template.mutation import mutants

    found = [one for one in mutants(template) if one.kind == mutation]
    return found[at].source if at < len(found) else template
