"""Conversations: messages that belong together, the tools that are declared with them, and whole requests."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from harness.errors import unknown_name
from harness.fuzz.strategies._adversity import NEED_TOOLS, Adversity, chosen
from harness.fuzz.strategies._texts import texts
from harness.fuzz.strategies._tools import Arguments, drawn_calls, refuse_form, refuse_tools
from harness.fuzz.strategies._tools import tools as tool_lists
from harness.values import Json

Role = Literal["system", "user", "assistant", "tool"]
_MOST_CALLS = 3


@dataclass(frozen=True)
class _Plan:
    """What the drawing of a conversation needs to know; `texts` are the keywords of `texts`."""

    texts: dict[str, Any]
    arguments: Arguments = "text"
    system: bool | None = None
    reasoning: bool | None = False
    prefill: bool | None = False
    max_turns: int = 3

    @cached_property
    def text(self) -> SearchStrategy[str]:
        return texts(**self.texts)

    @cached_property
    def tools(self) -> SearchStrategy[list[Json]]:
        return tool_lists(**self.texts)

    def may(self, name: Adversity) -> bool:
        return name in self.texts["adversarial"]


def messages(
    *,
    role: Role = "user",
    tools: Sequence[Json] | None = None,
    call_id: str = "call00000",
    arguments: Arguments = "text",
    reasoning: bool | None = False,
    adversarial: Collection[Adversity] = (),
    control: Collection[str] = (),
    added: Collection[str] = (),
) -> SearchStrategy[Json]:
    """Return a strategy for one message of a role in OpenAI's form.

        @given(messages(role="assistant", tools=[my_tool]))

    Args:
        role: Its role. A `tool` message is a result.
        tools: What an assistant's message may call; None for messages without calls.
        call_id: The call that a result belongs to.
        arguments: How a call holds its arguments.
        reasoning: Whether an assistant's message has `reasoning_content`; None for either.
        adversarial: What may occur beside; those that speak of several messages change nothing.
        control: The texts of control tokens, for `control-tokens`.
        added: The texts of added tokens, for `added-tokens`.

    Raises:
        UserError: no role or no adversity has this name.
        ValueError: the arguments contradict each other.
    """
    names = chosen(adversarial, control, added)
    plan = _Plan({"adversarial": names, "control": control, "added": added}, arguments, reasoning=reasoning)
    if role not in get_args(Role):
        raise unknown_name("role", role, get_args(Role))
    if tools is not None and role != "assistant":
        raise ValueError(f"a {role} message calls no tools")
    refuse_form(arguments, names)
    if role == "tool":
        return st.composite(_result)(plan, call_id, "")
    if role == "assistant":
        said = st.composite(_assistant)(plan)
        return said if tools is None else st.one_of(said, st.composite(_calling)(plan, refuse_tools(tools), 0))
    return st.composite(_said)(plan, role)


# From here on down, functions draw: a strategy that is made while another one draws costs more than what it draws.


def _content(draw: st.DrawFn, plan: _Plan) -> Json:
    """Draw the key `content`, or none."""
    ways = ["text", *(way for way in ("parts", "null-content", "empty", "no-content-key") if plan.may(way))]
    way = draw(st.sampled_from(ways))
    if way == "no-content-key":
        return {}
    if way == "parts":
        many = draw(st.lists(plan.text, min_size=1, max_size=3))
        return {"content": [{"type": "text", "text": text} for text in many]}
    return {"content": draw(plan.text) if way == "text" else {"null-content": None, "empty": ""}[way]}


def _said(draw: st.DrawFn, plan: _Plan, role: str) -> Json:
    if role == "system" and plan.may("developer") and draw(st.booleans()):
        role = "developer"
    return {"role": role, **_content(draw, plan)}


def _assistant(draw: st.DrawFn, plan: _Plan) -> Json:
    message: Json = {"role": "assistant", **_content(draw, plan)}
    return {**message, **_reasoning(draw, plan)}


def _reasoning(draw: st.DrawFn, plan: _Plan) -> Json:
    thinks = draw(st.booleans()) if plan.reasoning is None else plan.reasoning
    return {"reasoning_content": draw(plan.text)} if thinks else {}


def _calling(draw: st.DrawFn, plan: _Plan, declared: Sequence[Json], first: int) -> Json:
    """Draw an assistant's message with calls, whose content is null or not."""
    content = _content(draw, plan) if draw(st.booleans()) else {"content": None}
    calls = drawn_calls(draw, declared, plan.arguments, plan.texts["adversarial"], plan.text, _MOST_CALLS, first)
    return {"role": "assistant", **content, **_reasoning(draw, plan), "tool_calls": calls}


def _result(draw: st.DrawFn, plan: _Plan, call_id: str, name: str) -> Json:
    message: Json = {"role": "tool", "tool_call_id": call_id}
    if plan.may("named-results") and draw(st.booleans()):
        message["name"] = name or "a"
    return {**message, **_content(draw, plan)}


def conversations(
    *,
    system: bool | None = None,
    tools: bool | Sequence[Json] | None = None,
    reasoning: bool | None = False,
    prefill: bool | None = False,
    arguments: Arguments = "text",
    adversarial: Collection[Adversity] = (),
    control: Collection[str] = (),
    added: Collection[str] = (),
    max_turns: int = 3,
) -> SearchStrategy[Json]:
    """Return a strategy for conversations: objects with `messages`, and with `tools` where tools are declared.

    Well-formed ones, if nothing else is asked: perhaps a system message, then turns of a user's and an assistant's
    message. The assistant answers by a text, or by calls of declared tools with null or a text as content, a result
    for each call in its order, and a text. A conversation ends with a user's message or with results. It shrinks
    towards one user message, "a".

        @given(conversations(tools=True, adversarial=("poison", "control-tokens"), control=("<|im_end|>",)))
        def test_all_is_rendered(conversation):
            render(conversation["messages"], conversation["tools"])

    Args:
        system: Whether it begins with a system message; None for either.
        tools: Whether tools are declared, and perhaps called; None for either; or the tools to declare.
        reasoning: Whether the assistant's messages have `reasoning_content`; None for either, message by message.
        prefill: Whether it ends with an assistant's text, which is to be continued; None for either.
        arguments: How calls hold their arguments.
        adversarial: What may occur beside. Nothing that is not named does.
        control: The texts of control tokens, for `control-tokens`.
        added: The texts of added tokens, for `added-tokens`.
        max_turns: The most turns that a user begins.

    Raises:
        UserError: no adversity has this name.
        ValueError: the arguments contradict each other: adversities of tools without tools, a system message later or a
            developer without a system; texts missing, or given for nothing; a form of arguments that is the usual one.
    """
    names = chosen(adversarial, control, added)
    refuse_form(arguments, names)
    if max_turns < 1:
        raise ValueError(f"max_turns is {max_turns}: a conversation has at least one turn")
    if tools is False and (useless := sorted(NEED_TOOLS & names)):
        raise ValueError(f"the adversity {useless[0]!r} shows in tools only, and tools is False")
    if system is False and (useless := sorted({"system-later", "developer"} & names)):
        raise ValueError(f"the adversity {useless[0]!r} is a system message, and system is False")
    if max_turns == 1 and "system-later" in names:
        raise ValueError("the adversity 'system-later' comes after the first turn, and max_turns is 1")
    if tools is not None and not isinstance(tools, bool):
        tools = refuse_tools(tools)
    options = {"adversarial": names, "control": control, "added": added}
    return _conversation(_Plan(options, arguments, system, reasoning, prefill, max_turns), tools)


@st.composite
def _conversation(draw: st.DrawFn, plan: _Plan, tools: bool | Sequence[Json] | None) -> Json:
    declared: Sequence[Json] = tools if isinstance(tools, Sequence) else []
    if tools is True or (tools is None and draw(st.booleans())):
        declared = draw(plan.tools)
    made: list[Json] = []
    if draw(st.booleans()) if plan.system is None else plan.system:
        made.append(_said(draw, plan, "system"))
    if plan.may("assistant-first") and draw(st.booleans()):
        made.append(_assistant(draw, plan))
    prefill = draw(st.booleans()) if plan.prefill is None else plan.prefill
    turns = draw(st.integers(1, plan.max_turns))
    for turn in range(turns):
        if turn and plan.may("system-later") and draw(st.booleans()):
            made.append(_said(draw, plan, "system"))
        made += _asking(draw, plan, declared, sum(len(one.get("tool_calls", ())) for one in made))
        if turn < turns - 1 or prefill:
            made.append(_assistant(draw, plan))
    return {"messages": made, "tools": list(declared)} if declared else {"messages": made}


def _asking(draw: st.DrawFn, plan: _Plan, declared: Sequence[Json], first: int) -> list[Json]:
    """Draw a turn up to the assistant's text: what a user says, and perhaps calls with their results."""
    made = [_said(draw, plan, "user")]
    if plan.may("two-users") and draw(st.booleans()):
        made.append(_said(draw, plan, "user"))
    if bool(declared) and draw(st.booleans()):
        made.extend(_exchange(draw, plan, declared, first))
    if plan.may("orphan-results") and draw(st.booleans()):
        made.append(_result(draw, plan, "orphan000", ""))
    return made


def _exchange(draw: st.DrawFn, plan: _Plan, declared: Sequence[Json], first: int) -> list[Json]:
    """Draw calls and their results."""
    calling = _calling(draw, plan, declared, first)
    answered = [call for call in calling["tool_calls"] if not (plan.may("unanswered-calls") and draw(st.booleans()))]
    return [calling, *(_result(draw, plan, call["id"], call["function"]["name"]) for call in answered)]


def chat_requests(
    *,
    system: bool | None = None,
    tools: bool | Sequence[Json] | None = None,
    reasoning: bool | None = False,
    prefill: bool | None = False,
    arguments: Arguments = "text",
    adversarial: Collection[Adversity] = (),
    control: Collection[str] = (),
    added: Collection[str] = (),
    max_turns: int = 3,
) -> SearchStrategy[Json]:
    """Return a strategy for bodies of chat-completions requests, without `model` and `stream`.

    Beside what `conversations` makes they may hold `tool_choice`, where tools are declared, `temperature`, `top_p`,
    `max_tokens`, `stop` and `seed`.

        @given(chat_requests(max_turns=1))
        def test_the_client_sends_it(body):
            client.chat.completions.create(model="any", **body)

    Args and errors are those of `conversations`.
    """
    made = conversations(
        system=system,
        tools=tools,
        reasoning=reasoning,
        prefill=prefill,
        arguments=arguments,
        adversarial=adversarial,
        control=control,
        added=added,
        max_turns=max_turns,
    )
    return _request(made)


@st.composite
def _request(draw: st.DrawFn, made: SearchStrategy[Json]) -> Json:
    body = draw(made)
    hundredths = st.integers(1, 100).map(lambda number: number / 100)
    stop = texts(max_size=8)
    options = {
        "temperature": st.one_of(st.just(0), hundredths.map(lambda number: 2 * number)),
        "top_p": hundredths,
        "max_tokens": st.integers(1, 4096),
        "stop": st.one_of(stop, st.lists(stop, min_size=1, max_size=4, unique=True)),
        "seed": st.integers(0, (1 << 31) - 1),
    }
    if "tools" in body:
        named = [{"type": "function", "function": {"name": tool["function"]["name"]}} for tool in body["tools"]]
        options["tool_choice"] = st.sampled_from(["auto", "none", "required", *named])
    return body | draw(st.fixed_dictionaries({}, optional=options))
