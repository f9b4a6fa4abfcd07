"""One root cause is one finding with all its cases, on the goldens of a real model; two causes stay two."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.checking.compare import client, postprocess, template, tokenization
from harness.checking.compare.mechanism import with_parts
from harness.checking.compare.outcome import ACCEPTS, MESSAGE, Difference
from harness.checking.judge import Judge
from harness.checking.root_causes import grouped
from harness.checking.verdict import convict
from harness.project.cases import cases_for
from harness.project.golden import Golden, load_golden, load_provenance
from harness.reference.client import expected_request
from harness.stage import Stage
from harness.values import Prompt, Reply, Request, Tokens
from tests.made import result

JUDGE = Judge({}, None)


@pytest.fixture(scope="module")
def goldens(project, smollm) -> dict[str, Golden]:
    provenance = load_provenance(project, smollm)
    return {
        case.name: load_golden(project, smollm, case, provenance)
        for case in cases_for(project, smollm.name)
        if case.name != "longer-than-context"
    }


def found(goldens, stage, change):
    """Return the findings where a stage makes of every golden what a function makes of its output."""
    results = []
    for name, golden in goldens.items():
        value = golden.value(stage)
        if isinstance(value, Prompt | Tokens | Reply) or stage is Stage.CLIENT:
            made = change(golden)
            results.append(result(stage, name, isolated=JUDGE.compare(stage, golden, made)))
    return convict("made", "tiny", results, None)


def sent(edit):
    """Return a client that sends messages edited."""

    def change(golden):
        body = copy.deepcopy(golden.case.body)
        body["messages"] = edit(body["messages"])
        return expected_request(golden.case.model_copy(update={"body": body}))

    return change


def texts(edit):
    """Return an edit of the messages' texts, be they parts or not."""

    def change(messages):
        for message in messages:
            content = message["content"]
            if isinstance(content, str):
                message["content"] = edit(content)
            elif content is not None:
                for part in content:
                    part["text"] = edit(part["text"])
        return messages

    return change


def without_system(messages):
    return [message for message in messages if message["role"] != "system"] or messages


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (without_system, "the system message is missing: "),
        (lambda messages: messages[::-1], "the messages are in another order: "),
        (lambda messages: messages[:-1] or messages, "the last message ("),
        (texts(str.strip), "the text of a message: white space at its "),
        (texts(lambda text: text[:-1]), "the text of a message: its last character is missing: "),
    ],
)
def test_what_a_client_does_to_messages_is_one_finding(goldens, edit, says):
    verdict = found(goldens, Stage.CLIENT, sent(edit))
    (finding,) = verdict.findings
    assert finding.summary.startswith(says)
    assert set(finding.cases) == {one.case for one in verdict.results if one.isolated.outcome.bad}
    assert verdict.line.startswith(f"convicted: client (integration): {says}")
    assert verdict.stages[Stage.CLIENT].why == f"1 root cause: {finding.summary}"


def test_two_things_that_a_client_does_are_two_findings(goldens):
    """Also in the cases that show both."""
    drop = sent(without_system)

    def both(golden):
        request = drop(golden)
        return request.model_copy(update={"settings": {**request.settings, "temperature": 2}})

    first, second = found(goldens, Stage.CLIENT, both).findings
    assert first.summary.startswith("settings.temperature is 2, ")
    assert second.summary.startswith("the system message is missing: ")
    assert set(second.cases) < set(first.cases)
    assert {hunk.at.partition(".")[0] for hunk in first.difference.hunks} == {"settings"}


def miscounted(golden):
    usage = golden.reply.usage
    fewer = usage.model_copy(update={"prompt_tokens": usage.prompt_tokens - 1})
    return golden.reply.model_copy(update={"usage": fewer, "policies": {}, "withheld": 0})


def test_a_count_leads_where_it_is_what_most_cases_show(goldens):
    def change(golden):
        reply = miscounted(golden)
        return reply.model_copy(update={"content": "else"}) if golden.case.name == "no-system" else reply

    verdict = found(goldens, Stage.POSTPROCESS, change)
    first, second = verdict.findings
    assert first.summary.startswith("usage.prompt_tokens is smaller by 1: ")
    assert set(first.cases) == {one.case for one in verdict.results}
    assert second.cases == ("no-system",)
    assert f": {first.summary} [" in verdict.line
    assert verdict.stages[Stage.POSTPROCESS].why == f"2 root causes: {first.summary}"


def test_what_follows_from_a_wrong_text_is_no_root_cause(goldens):
    def change(golden):
        reply = golden.reply
        longer = reply.usage.model_copy(update={"completion_tokens": reply.usage.completion_tokens + 9})
        text = f"{reply.content or ''} and more"
        return reply.model_copy(update={"content": text, "usage": longer, "policies": {}, "withheld": 0})

    (finding,) = found(goldens, Stage.POSTPROCESS, change).findings
    assert finding.summary.startswith("the content: something is added at its end: ")
    assert {hunk.at for hunk in finding.difference.hunks} >= {"content", "usage.completion_tokens"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text[:-1], "the content: its last character is missing: "),
        (lambda text: "", "the content: the whole text is missing: "),
        (lambda text: text * 2, "the content: it stands there twice: "),
    ],
)
def test_what_is_done_to_every_answer_is_one_finding(goldens, change, says):
    def reply(golden):
        made = golden.reply.model_copy(update={"policies": {}, "withheld": 0})
        return made.model_copy(update={"content": change(made.content)}) if made.content else made

    verdict = found(goldens, Stage.POSTPROCESS, reply)
    assert verdict.findings[0].summary.startswith(says)
    assert len(verdict.findings) == 1


def prompted(edit):
    return lambda golden: Prompt(text=edit(golden.prompt.text, golden))


def stripped(text, golden):
    """Lose the white space around the messages' texts."""
    for message in golden.request.messages:
        content = message.get("content")
        if isinstance(content, str) and content.strip():
            text = text.replace(content, content.strip())
    return text


def test_what_a_template_does_is_told_by_where_it_does_it(goldens):
    (lost,) = found(
        goldens, Stage.TEMPLATE, prompted(lambda text, golden: text.removesuffix(golden.prompt.suffix))
    ).findings
    assert lost.summary == "the end that opens the assistant's turn is missing"
    (trimmed,) = found(goldens, Stage.TEMPLATE, prompted(stripped)).findings
    assert trimmed.summary.startswith("the text of a message: white space at its ")
    both = found(
        goldens, Stage.TEMPLATE, prompted(lambda text, one: stripped(text, one).removesuffix(one.prompt.suffix))
    ).findings
    assert [(one.summary, one.cases) for one in both] == [
        (lost.summary, lost.cases),
        (trimmed.summary, trimmed.cases),
    ]


def test_a_last_message_that_is_left_open_is_told(goldens):
    def opened(text, golden):
        last = golden.request.messages[-1]
        return text[: text.rindex(last["content"]) + len(last["content"])]

    golden = goldens["assistant-last"]
    # It is what a policy gives that is known by its name.
    plain = golden.model_copy(update={"prompt": golden.prompt.model_copy(update={"policies": {}})})
    (finding,) = found({"assistant-last": plain}, Stage.TEMPLATE, prompted(opened)).findings
    assert finding.summary == "the last message is left open: the text differs in 1 place"


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda ids: ids[1:], "ids are missing at the beginning: "),
        (lambda ids: ids[:20], "ids are missing at the end: "),
        (lambda ids: ids[::-1], "the same ids in another order: "),
        (lambda ids: (*ids, *ids), "ids are added at the end: "),
        (lambda ids: (1, *ids), "one id too many at the start: 1"),
    ],
)
def test_what_is_done_to_ids_is_one_finding(goldens, edit, says):
    (finding,) = found(goldens, Stage.TOKENIZATION, lambda golden: Tokens(ids=edit(golden.tokens.ids))).findings
    assert finding.summary.startswith(says)


# The grouping itself


def difference(*causes, **changes):
    return Difference(**{"summary": "it differs", "causes": causes, **changes})


def cases(*pairs, **how):
    """Return the cases of each group: of what shows it, and of what it explains besides."""
    made = [(result(Stage.TEMPLATE, case), one) for case, one in pairs]
    return [([r.case for r, _ in one.shown], [r.case for r, _ in one.joined]) for one in grouped(made, **how)]


def test_what_another_cause_would_explain_joins_it_and_is_not_what_is_shown():
    small = difference("all of it is lost", perhaps=("the end is lost",))
    assert cases(("a", small), ("b", difference("the end is lost"))) == [(["b"], ["a"])]
    assert cases(("a", small), ("b", difference("the start is lost"))) == [(["a"], []), (["b"], [])]


def test_what_may_follow_follows_only_what_is_wrong_in_all_its_cases():
    count, text = difference("count", follows=True), difference("text")
    assert cases(("a", count), ("a", text), ("b", text)) == [(["a", "b"], ["a"])]
    assert cases(("a", count), ("b", count), ("b", text)) == [(["a", "b"], []), (["b"], [])]
    assert cases(("a", count), ("a", text)) == [(["a"], ["a"])]


def test_what_stands_by_itself_follows_from_nothing_though_the_other_shows_in_all_its_cases():
    one, other = difference("settings"), difference("text")
    assert cases(("a", one), ("a", other), ("b", other)) == [(["a"], []), (["a", "b"], [])]


def test_what_is_no_text_and_not_refused_has_the_cause_of_what_is_done_to_texts():
    """Of another cause only where nothing is right at all."""
    accepted, done, end = difference(f"{ACCEPTS}TypeError"), difference(f"{MESSAGE}\0case"), difference("end lost")
    assert cases(("a", accepted), ("b", accepted), ("c", done), ("d", end)) == [(["c"], ["a", "b"]), (["d"], [])]
    assert cases(("a", accepted), ("b", end)) == [(["a"], []), (["b"], [])]
    assert cases(("a", accepted), ("b", end), none_right=True) == [(["b"], ["a"])]


def test_trimmed_contents_lead_with_what_is_trimmed(goldens):
    """Trimming takes what no text is for one, too: a null and a list of parts."""

    def change(golden):
        if not isinstance(golden.prompt, Prompt):
            return Prompt(text="None")
        return prompted(stripped)(golden)

    results = [
        result(Stage.TEMPLATE, name, isolated=JUDGE.compare(Stage.TEMPLATE, golden, change(golden)))
        for name, golden in goldens.items()
    ]
    verdict = convict("made", "tiny", results, None)
    assert verdict.line.startswith("convicted: template (integration): the text of a message: white space at its ")
    assert verdict.findings[0].cases == ("null-content", "text-parts", "whitespace")


def test_another_kind_of_defect_is_another_root_cause():
    one, other = difference("x", perhaps=("y",)), difference("y", kind="engine")
    assert cases(("a", one), ("b", other)) == [(["a"], []), (["b"], [])]


def test_control_tokens_that_are_read_as_text_are_told_from_another_cut_of_plain_text(goldens):
    """Also where their text is joined to what stands before it."""
    golden = goldens["system-and-user"]
    pieces = golden.tokens.pieces
    at = pieces.index("<|im_end|>")

    def read(start, stop, *texts):
        ids = (*golden.tokens.ids[:start], *range(-len(texts), 0), *golden.tokens.ids[stop:])
        observed = Tokens(ids=ids, pieces=(*pieces[:start], *texts, *pieces[stop:]))
        (finding,) = found({"a": golden}, Stage.TOKENIZATION, lambda _: observed).findings
        return finding.summary.partition(": ")[0]

    text_of_control = "the text of control tokens is in ordinary ids"
    assert read(at, at + 1, "<", "|im_end|>") == text_of_control
    assert read(at - 1, at + 1, f"{pieces[at - 1]}<", "|im_end|>") == text_of_control
    before = pieces[at - 2] + pieces[at - 1]
    assert read(at - 2, at, before[:1], before[1:3], before[3:]) == "the same text in other ids"


PARTS = st.lists(st.fixed_dictionaries({"text": st.text("ab")}))
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"])},
        optional={
            "content": st.none() | st.text("ab <>\n", max_size=6) | PARTS,
            "tool_calls": st.sampled_from(
                [None, 5, [5], [{"function": {"name": "ab", "arguments": '{"a": ["b"]}'}}], [{"function": {"name": 1}}]]
            ),
        },
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(MESSAGES, MESSAGES, st.text("ab <>\n", max_size=30), st.text("ab <>\n", max_size=30))
def test_anything_can_be_told_apart_into_parts(one, other, text, seen):
    request, observed = Request(messages=tuple(one)), Request(messages=tuple(other))
    with_parts(client.compare(request, observed), request, observed, request)
    prompts = Prompt(text=text, suffix=text[-3:]), Prompt(text=seen)
    with_parts(template.compare(*prompts, {}), *prompts, request)
    replies = Reply(content=text, reasoning=seen), Reply(content=seen)
    with_parts(postprocess.compare(*replies, {}), *replies, request)
    ids = [Tokens(ids=tuple(map(ord, some)), pieces=tuple(some)) for some in (text, seen)]
    with_parts(tokenization.compare(*ids, {}), *ids, request)
