"""The shipped cases show defects of which none showed anything before: each names the case that does."""

from __future__ import annotations

import copy
import json
import unicodedata

import pytest

from harness.checking.compare import postprocess
from harness.checking.compare.outcome import Outcome
from harness.checking.opened import open_session
from harness.checking.trace import Run
from harness.defects.defect import Defect, Place
from harness.defects.planting import plant
from harness.project.cases import load_case
from harness.project.golden import load_golden, load_provenance
from harness.project.stack import resolve_model
from harness.stage import Stage
from harness.wire.chat import answer_of, reply_of

SMOLLM = "smollm2-135m-instruct"
TOOLS, THINKING = f"{SMOLLM}-tools", f"{SMOLLM}-thinking"


def blocks_kept(environment):
    environment.trim_blocks = False


def indents_kept(environment):
    environment.lstrip_blocks = False


def last_break_kept(environment):
    environment.keep_trailing_newline = True


def system_lost(given):
    """Lose the system's message in the second request of a tool's use."""
    messages = given["messages"]
    if any(one["role"] == "tool" for one in messages):
        messages = [one for one in messages if one["role"] != "system"]
    return {**given, "messages": messages}


def capped(engine):
    """End an answer that nobody limits after 128 tokens."""
    complete = engine.llm.create_completion

    def limited(*given, **asked):
        if asked.get("max_tokens") is None:
            asked["max_tokens"] = 128
        return complete(*given, **asked)

    engine.llm.create_completion = limited


def character_repeated(answer, seen):
    """Send the character before a streamed piece again where the piece begins with a combining one."""
    if isinstance(answer, list):
        last = ""
        for chunk in answer:
            delta = chunk["choices"][0]["delta"]
            text = delta.get("content") or ""
            if last and text and unicodedata.category(text[0]) == "Mn":
                delta["content"] = last + text
            last = text[-1:] or last
    return answer


def open_tag_lost(answer, seen):
    """Lose an answer that ends with a tag which opens reasoning."""
    if isinstance(answer, dict):
        message = answer["choices"][0]["message"]
        if (message["content"] or "").endswith("<think>"):
            message["content"] = ""
    return answer


def judged(project, stack, model, case, hook, place, stage, **more):
    """Return a stage's comparison on golden input, in a stack with the defect."""
    defect = Defect(
        id=hook,
        stage=stage,
        kind="integration",
        sentence="S.",
        place=place,
        hook=f"{__name__}:{hook}",
        **more,
    )
    model = resolve_model(project, model)
    with (
        plant(stack, model, [defect]) as hurt,
        open_session(project, hurt.stack, model, (case,), hurt.wrap, hurt.prepare, around=hurt.model) as session,
    ):
        golden = session.goldens[case]
        return session.judge.isolated(stage, golden, session.trace(case, (Run.ISOLATED, Run.ISOLATED_STREAM), (stage,)))


@pytest.mark.parametrize(
    ("hook", "place", "model", "case"),
    [
        ("blocks_kept", Place.ENVIRONMENT, THINKING, "reasoning-opened-by-prompt"),
        ("indents_kept", Place.ENVIRONMENT, THINKING, "reasoning-opened-by-prompt"),
        ("last_break_kept", Place.ENVIRONMENT, THINKING, "reasoning-opened-by-prompt"),
        ("system_lost", Place.REQUEST, TOOLS, "call-result-with-system"),
    ],
)
def test_a_template_defect_shows(project, real_stack, hook, place, model, case):
    found = judged(project, real_stack, model, case, hook, place, Stage.TEMPLATE)
    assert found.outcome is Outcome.DIVERGED


def test_a_hidden_limit_shows_where_none_is_asked_for(project, real_stack):
    part = {"component": "llama-cpp-python"}
    found = judged(project, real_stack, SMOLLM, "answer-without-limit", "capped", Place.PART, Stage.INFERENCE, **part)
    assert found.difference.summary == "generation ended by length after 128 ids, not by end_token after 157"


@pytest.mark.parametrize("hook", ["character_repeated", "open_tag_lost"])
def test_a_defect_of_an_answer_s_text_shows(project, real_stack, hook):
    found = judged(project, real_stack, SMOLLM, "answer-combining", hook, Place.ANSWER, Stage.POSTPROCESS)
    assert found.outcome is Outcome.DIVERGED


def texts(change):
    """Return a defect that changes every text in a call's arguments."""

    def walk(value):
        if isinstance(value, str):
            return change(value)
        if isinstance(value, list):
            return [walk(one) for one in value]
        return {name: walk(one) for name, one in value.items()} if isinstance(value, dict) else value

    return walk


def unsorted_lost(value):
    """Lose a field of an inner object that does not stand in the order of names."""
    where = value["where"]["m"]
    return {**value, "where": {**value["where"], "m": {name: where[name] for name in list(where)[:1]}}}


@pytest.mark.parametrize(
    "change",
    [
        texts(str.strip),
        texts(lambda text: text.split(",")[0]),
        texts(lambda text: text.split(">")[0]),
        texts(lambda text: text.replace("&", "&amp;")),
        texts(lambda text: text.replace("'", '"')),
        texts(lambda text: int(text) if text.isdigit() else text),
        texts(lambda text: None if text in ("none", "null") else text),
        texts(lambda text: text == "true" if text in ("true", "false") else text),
        lambda value: {name: one for name, one in value.items() if one is not None},
        lambda value: {name: str(one) if isinstance(one, float | bool) else one for name, one in value.items()},
        lambda value: {name: round(one, 4) if isinstance(one, float) else one for name, one in value.items()},
        unsorted_lost,
    ],
)
def test_arguments_that_a_parser_improves_show(project, change):
    model = resolve_model(project, TOOLS)
    golden = load_golden(project, model, load_case(project, "call-verbatim-arguments"), load_provenance(project, model))
    right = answer_of(golden.reply)
    wrong = copy.deepcopy(right)
    function = wrong["choices"][0]["message"]["tool_calls"][0]["function"]
    function["arguments"] = json.dumps(change(json.loads(function["arguments"])), ensure_ascii=False)
    for answer in (right, wrong):
        for call in answer["choices"][0]["message"]["tool_calls"]:
            call["id"] = "call_0"
    assert not postprocess.compare(golden.reply, reply_of(right), {}).outcome.bad
    assert postprocess.compare(golden.reply, reply_of(wrong), {}).outcome is Outcome.DIVERGED


@pytest.mark.parametrize("model", [SMOLLM, TOOLS])
def test_the_bench_asks_a_long_prompt_in_full(project, model):
    from harness.attribution.bench import plan_for

    ref = resolve_model(project, model)
    provenance = load_provenance(project, ref)
    deep = plan_for(project, model, 6).deep
    assert len(deep) == 6
    lengths = [len(load_golden(project, ref, load_case(project, case), provenance).tokens.ids) for case in deep]
    assert max(lengths) > 256
