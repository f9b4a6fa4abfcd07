"""The verdict on made-up traces: who is convicted, who inherits, what is left unjudged, and that nobody else is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.checking.compare.outcome import Comparison, Hunk, Outcome, unobserved
from harness.checking.judge import Chained, Judge
from harness.checking.trace import FIELDS, Run, Tracer
from harness.checking.verdict import (
    RERUNS,
    Seen,
    StageVerdict,
    adding,
    convict,
    explain_by_rerun,
    seen_by,
    with_findings,
)
from harness.stage import Stage, StageRefusedError
from harness.values import (
    Failure,
    Generation,
    Observation,
    Prompt,
    Refusal,
    Reply,
    Request,
    Tokens,
    Unobserved,
    Usage,
)
from tests.made import (
    CRASH,
    FLOOR,
    LOGITS,
    SETTINGS,
    Route,
    answers,
    chained,
    difference,
    distributions,
    generation,
    golden,
    observed,
    result,
    row,
    running,
    streamed,
    trace,
    verdict,
)

GREETING = golden()
SAME = "golden in, golden out"
NUMBERS = "same ids in, same numbers out (KL at most "

WRONG_REQUEST = Request(messages=({"role": "user", "content": "Say hi"},), settings=SETTINGS)
WRONG_PROMPT = Prompt(text="<user>Say hi.\n")
WRONG_TOKENS = Tokens(ids=(4, 4, 1, 3), pieces=("?", "?", "Hi", "!"))
WRONG_NUMBERS = generation(distributions=distributions(row(4), *LOGITS[1:]))
WRONG_REPLY = Reply(content="Hi there", finish_reason="stop", usage=Usage(prompt_tokens=3, completion_tokens=3))
WRONG = {
    Stage.CLIENT: WRONG_REQUEST,
    Stage.TEMPLATE: WRONG_PROMPT,
    Stage.TOKENIZATION: WRONG_TOKENS,
    Stage.INFERENCE: WRONG_NUMBERS,
    Stage.POSTPROCESS: WRONG_REPLY,
}
HIDDEN = Unobserved(reason="the server does not show it")
REFUSED = Refusal(error="ValueError", message="no")


def isolated(expected, **changes):
    return {Run.ISOLATED: observed(expected, **changes)}


def statuses(found):
    return {stage.value: said.status for stage, said in found.stages.items()}


def all_but(status, **others):
    return {stage.value: others.get(stage.value, status) for stage in Stage}


# Nothing wrong


def test_nothing_wrong_is_clean_and_counted():
    found = verdict((GREETING, trace(GREETING)))
    assert found.status == "clean"
    assert found.line == "clean: five stages cleared, 5 comparisons in 1 case"
    assert statuses(found) == all_but("cleared")
    assert found.findings == ()
    assert found.notes == ()
    assert found.stages[Stage.TEMPLATE] == StageVerdict(status="cleared", outcomes={Outcome.EQUAL: 1}, why=SAME)
    inference = found.stages[Stage.INFERENCE]
    assert inference.outcomes == {Outcome.EQUIVALENT: 1}
    assert inference.why.startswith(NUMBERS)
    assert inference.why.endswith(", limit 0.01 nats)")
    assert {r.chained for r in found.results} == {Chained.CONSISTENT}


def test_several_cases_are_counted():
    pairs = [(one, trace(one)) for one in (golden("a"), golden("b"), golden("c"))]
    found = verdict(*pairs)
    assert found.line == "clean: five stages cleared, 15 comparisons in 3 cases"
    assert {said.status: sum(said.outcomes.values()) for said in found.stages.values()} == {"cleared": 3}


def test_the_largest_divergence_of_all_cases_is_told():
    near = generation(distributions=distributions(row(1, 4, gap=3.8), *LOGITS[1:]))
    found = verdict(
        (golden("a"), trace(golden("a"))), (golden("b"), trace(golden("b"), isolated(GREETING, generation=near)))
    )
    worst = next(r for r in found.results if r.case == "b" and r.stage is Stage.INFERENCE).isolated.measured["kl"]
    assert worst > 1e-4
    assert found.stages[Stage.INFERENCE].why == f"{NUMBERS}{worst:.3g}, limit 0.01 nats)"


# One stage


def test_a_template_defect_is_convicted_and_what_it_feeds_inherits():
    damaged = observed(
        GREETING,
        prompt=WRONG_PROMPT,
        tokens=Tokens(ids=(4, 1)),
        generation=generation(ids=(4, 0), chosen=(4, 0), distributions=distributions(row(4), row(0))),
        reply=WRONG_REPLY,
    )
    found = verdict((GREETING, trace(GREETING, {**isolated(GREETING, prompt=WRONG_PROMPT), **chained(damaged)})))
    assert found.status == "convicted"
    assert found.line == (
        "convicted: template (integration): the end that opens the assistant's turn is missing [1 of 1 case]"
    )
    assert statuses(found) == {
        "client": "cleared",
        "template": "convicted",
        "tokenization": "inherits",
        "inference": "inherits",
        "postprocess": "inherits",
    }
    assert found.stages[Stage.TEMPLATE].why == "1 root cause: the end that opens the assistant's turn is missing"
    assert found.stages[Stage.TOKENIZATION].why == f"{SAME}; in the chain it gets what template made"
    (finding,) = found.findings
    assert (finding.stage, finding.kind, finding.evidence) == (Stage.TEMPLATE, "integration", "isolated")
    assert (finding.cases, finding.example) == (("greeting",), "greeting")
    assert finding.difference.hunks == (Hunk(at="8", golden="<bot>", observed="", before="hi.\n"),)
    assert [(r.stage, r.chained, r.follows) for r in found.results] == [
        (Stage.CLIENT, Chained.CONSISTENT, None),
        (Stage.TEMPLATE, Chained.CONSISTENT, None),
        (Stage.TOKENIZATION, Chained.INHERITS, Stage.TEMPLATE),
        (Stage.INFERENCE, Chained.INHERITS, Stage.TEMPLATE),
        (Stage.POSTPROCESS, Chained.INHERITS, Stage.TEMPLATE),
    ]


@pytest.mark.parametrize(
    ("stage", "kind", "summary"),
    [
        (
            Stage.CLIENT,
            "integration",
            'the text of a message: its last character is missing: messages[0].content is "Say hi", sent was "Say hi."',
        ),
        (Stage.TEMPLATE, "integration", "the end that opens the assistant's turn is missing"),
        (Stage.TOKENIZATION, "integration", "one id too many at the start: 4[?]"),
        (Stage.INFERENCE, "engine", "same ids in, other numbers out: KL "),
        (Stage.POSTPROCESS, "integration", 'the content: its last character is missing: content lacks "!"'),
    ],
)
def test_a_defect_of_one_stage_is_convicted_there(stage, kind, summary):
    wrong = {FIELDS[stage]: WRONG[stage]}
    runs = {**isolated(GREETING, **wrong), **chained(observed(GREETING, **wrong))}
    found = verdict((GREETING, trace(GREETING, runs)))
    (finding,) = found.findings
    assert (finding.stage, finding.kind) == (stage, kind)
    assert finding.summary.startswith(summary)
    assert found.line == f"convicted: {stage} ({kind}): {finding.summary} [1 of 1 case]"
    order = list(Stage)
    expected = {
        one.value: "convicted" if one is stage else "cleared" if order.index(one) < order.index(stage) else "inherits"
        for one in Stage
    }
    assert statuses(found) == expected


def test_of_stream_and_whole_reply_the_worse_counts():
    stream = streamed(GREETING.reply).model_copy(update={"content": "Hi there"})
    found = verdict((GREETING, trace(GREETING, {Run.ISOLATED_STREAM: Observation(reply=stream)})))
    assert statuses(found) == all_but("cleared", postprocess="convicted")
    unseen = verdict((GREETING, trace(GREETING, {Run.ISOLATED_STREAM: Observation(reply=HIDDEN)})))
    assert statuses(unseen) == all_but("cleared", postprocess="unobserved")


def test_a_setting_not_in_force_at_the_sampler_is_an_integration_defect():
    warm = generation(settings={"temperature": 0.2})
    (finding,) = verdict((GREETING, trace(GREETING, isolated(GREETING, generation=warm)))).findings
    assert (finding.stage, finding.kind) == (Stage.INFERENCE, "integration")


def test_a_crash_is_the_engine_and_an_unknown_instruction_the_environment():
    for signal, kind in (("SIGSEGV", "engine"), ("SIGILL", "environment")):
        died = Failure(reason="crash", signal=signal)
        (finding,) = verdict((GREETING, trace(GREETING, isolated(GREETING, generation=died)))).findings
        assert (finding.stage, finding.kind, finding.summary) == (Stage.INFERENCE, kind, f"died by {signal}")


def test_a_part_that_does_not_start_convicts_no_stage_that_was_never_run():
    no_start = Failure(reason="start", message="ValueError: tensor data is missing")
    runs = {
        Run.ISOLATED: Observation(**dict.fromkeys(FIELDS.values(), no_start)),
        Run.ISOLATED_STREAM: Observation(reply=no_start),
        **chained(Observation(broke=no_start)),
    }
    found = verdict((GREETING, trace(GREETING, runs)))
    assert len(found.findings) == 1
    assert found.findings[0].kind == "environment"
    assert found.stages[Stage.CLIENT].status != "convicted"


def failing(difference_of):
    """Return one case's results: each stage's failure, or None where it is equal."""
    return [
        result(
            stage,
            isolated=Comparison(outcome=Outcome.FAILED, difference=difference_of[stage])
            if stage in difference_of
            else Comparison(outcome=Outcome.EQUAL),
        )
        for stage in Stage
    ]


def convicted(results):
    return [finding.stage for finding in convict("made", "tiny", results, None).findings]


def test_a_part_that_does_not_start_is_convicted_where_its_engine_is():
    start = difference("could not start: no memory", cause="start\0no memory", kind="environment")
    two = (Stage.TOKENIZATION, Stage.INFERENCE)
    assert convicted(failing(dict.fromkeys(two, start))) == [Stage.INFERENCE]
    # Another part, which performs no inference, does not start: its own stages answer.
    front = (Stage.TEMPLATE, Stage.TOKENIZATION)
    assert convicted(failing(dict.fromkeys(front, start))) == list(front)
    # Two parts that do not start for different reasons.
    other = difference("could not start: no licence", cause="start\0no licence", kind="environment")
    assert convicted(failing({Stage.TEMPLATE: other, Stage.INFERENCE: start})) == [Stage.TEMPLATE, Stage.INFERENCE]


def test_two_stages_that_die_alike_after_the_start_are_both_convicted():
    crash = difference("died by SIGSEGV", cause="crash\0SIGSEGV", kind="engine")
    two = (Stage.TOKENIZATION, Stage.INFERENCE)
    assert convicted(failing(dict.fromkeys(two, crash))) == list(two)


# Two defects, many cases


def test_of_two_defects_the_first_leads_the_line():
    wrong = {"prompt": WRONG_PROMPT, "reply": WRONG_REPLY}
    found = verdict(
        (GREETING, trace(GREETING, {**isolated(GREETING, **wrong), **chained(observed(GREETING, **wrong))}))
    )
    assert [finding.stage for finding in found.findings] == [Stage.TEMPLATE, Stage.POSTPROCESS]
    assert found.line == (
        "convicted: template (integration): the end that opens the assistant's turn is missing [1 of 1 case]; "
        "also convicted: postprocess"
    )
    assert statuses(found) == {
        "client": "cleared",
        "template": "convicted",
        "tokenization": "inherits",
        "inference": "inherits",
        "postprocess": "convicted",
    }


def test_many_cases_of_one_cause_are_one_finding_shown_by_the_shortest():
    long = GREETING.prompt.model_copy(update={"text": "<user>Tell me everything.\n<bot>"})
    other = golden("b-long", prompt=long)
    lost = Prompt(text="<user>Tell me everything.\n")
    cases = [
        (other, trace(other, isolated(other, prompt=lost))),
        *((one, trace(one, isolated(one, prompt=WRONG_PROMPT))) for one in (golden("c"), golden("a"))),
        (golden("d"), trace(golden("d"))),
    ]
    found = verdict(*cases)
    (finding,) = found.findings
    assert finding.cases == ("a", "b-long", "c")
    assert finding.example == "b-long"
    assert found.line.endswith("[3 of 4 cases]")
    assert found.stages[Stage.TEMPLATE].outcomes == {Outcome.DIVERGED: 3, Outcome.EQUAL: 1}


def test_the_example_is_the_case_with_the_least_to_read():
    results = [
        result(Stage.TEMPLATE, case, isolated=Comparison(outcome=Outcome.DIVERGED, difference=made))
        for case, made in (
            ("a", difference("it differs", Hunk(at="0", golden="long " * 9, observed=""))),
            ("b", difference("it differs", Hunk(at="0", golden="short", observed=""))),
            ("c", difference("it differs much", Hunk(at="0", golden="short", observed=""))),
        )
    ]
    (finding,) = convict("made", "tiny", results, None).findings
    assert (finding.cases, finding.example) == (("a", "b", "c"), "b")


def test_two_causes_are_two_findings_and_the_commoner_leads():
    changed = Prompt(text="<user>Say hi!\n<bot>")
    cases = [
        (golden("a"), trace(golden("a"), isolated(GREETING, prompt=changed))),
        *((one, trace(one, isolated(one, prompt=WRONG_PROMPT))) for one in (golden("b"), golden("c"))),
    ]
    found = verdict(*cases)
    assert [(finding.cases, finding.summary) for finding in found.findings] == [
        (("b", "c"), "the end that opens the assistant's turn is missing"),
        (("a",), 'the text of a message: "." is written as "!": the text differs in 1 place'),
    ]
    assert found.line == (
        "convicted: template (integration): the end that opens the assistant's turn is missing [2 of 3 cases]"
    )
    assert found.stages[Stage.TEMPLATE].why == f"2 root causes: {found.findings[0].summary}"


def bad(case, *causes, kind="integration"):
    made = difference(case, causes=causes, kind=kind)
    return result(Stage.TEMPLATE, case, isolated=Comparison(outcome=Outcome.DIVERGED, difference=made))


def test_a_case_with_two_causes_joins_the_findings_of_both():
    found = convict("made", "tiny", [bad("a", "x"), bad("b", "y"), bad("c", "z"), bad("d", "x", "y")], None)
    assert sorted(finding.cases for finding in found.findings) == [("a", "b", "d"), ("c",)]


def test_the_same_cause_of_another_kind_is_another_finding():
    found = convict("made", "tiny", [bad("a", "x"), bad("b", "x", kind="engine")], None)
    assert sorted((finding.cases, finding.kind) for finding in found.findings) == [
        (("a",), "integration"),
        (("b",), "engine"),
    ]


# What is found after the cases


def test_a_finding_that_is_added_convicts_its_stage_and_stands_in_the_order_of_stages():
    later = verdict((GREETING, trace(GREETING, isolated(GREETING, reply=WRONG_REPLY))))
    (more,) = verdict((GREETING, trace(GREETING, isolated(GREETING, generation=WRONG_NUMBERS)))).findings
    found = adding(later, more)
    assert (found.status, found.findings) == ("convicted", (more, *later.findings))
    assert found.line == (f"convicted: inference (engine): {more.summary} [1 of 1 case]; also convicted: postprocess")
    assert statuses(found) == all_but("cleared", inference="convicted", postprocess="convicted")
    assert found.stages[Stage.INFERENCE].why == f"1 root cause: {more.summary}"
    assert found.stages[Stage.POSTPROCESS] == later.stages[Stage.POSTPROCESS]
    clean = verdict((GREETING, trace(GREETING)))
    assert adding(clean, more).status == "convicted"


@pytest.mark.parametrize(
    ("nodes", "why", "seen", "words"),
    [
        (True, "not asked", Seen(by="outputs and nodes"), "outputs and nodes"),
        (False, "it shows none", Seen(by="outputs only", why="it shows none"), "outputs only (it shows none)"),
    ],
)
def test_how_inference_was_seen_is_told_in_its_stage_and_in_the_line_that_clears(nodes, why, seen, words):
    clean = verdict((GREETING, trace(GREETING)))
    found = seen_by(clean, nodes=nodes, why=why)
    assert found.line == f"{clean.line}; inference by {seen.by}"
    assert found.stages[Stage.INFERENCE].seen == seen
    assert found.stages[Stage.INFERENCE].why == f"{clean.stages[Stage.INFERENCE].why}; seen by {words}"
    wrong = verdict((GREETING, trace(GREETING, isolated(GREETING, prompt=WRONG_PROMPT))))
    assert seen_by(wrong, nodes=nodes, why=why).line == wrong.line


def test_findings_of_another_kind_change_the_line_and_no_stage():
    before = verdict((GREETING, trace(GREETING, isolated(GREETING, prompt=WRONG_PROMPT))))
    (finding,) = before.findings
    told = finding.model_copy(update={"kind": "artifact"})
    after = with_findings(before, [told])
    assert (after.findings, after.stages, after.status) == ((told,), before.stages, "convicted")
    assert after.line == before.line.replace("(integration)", "(artifact)") != before.line


# Only in the chain


RIGHT = observed(GREETING)
CHAIN_ONLY = trace(GREETING, {Run.CHAINED: observed(GREETING, generation=WRONG_NUMBERS)})


def explained(judge, found, *reruns):
    """Explain by reruns that give these observations, one after the other; return what for and how often was asked."""
    asked = []
    left = list(reruns)

    def rerun(one, run):
        asked.append((one.case.name, run))
        return trace(one, {run: left.pop(0)})

    return explain_by_rerun(judge, GREETING, found, rerun), asked


def unexplained(found_trace):
    judge = Judge({}, FLOOR)
    (one,) = [r for r in judge.case(GREETING, found_trace) if r.chained is Chained.UNEXPLAINED]
    return judge, one


def test_what_shows_only_in_the_chain_and_stays_is_state():
    judge, one = unexplained(CHAIN_ONLY)
    assert (one.stage, one.unexplained[0]) == (Stage.INFERENCE, Run.CHAINED)
    assert one.isolated.outcome is Outcome.EQUIVALENT
    again = observed(GREETING, generation=WRONG_NUMBERS)
    assert explained(judge, one, again, again) == ("state", [("greeting", Run.CHAINED)] * RERUNS)


def test_what_shows_only_in_the_chain_and_goes_is_nondeterminism():
    judge, one = unexplained(CHAIN_ONLY)
    again = observed(GREETING, generation=WRONG_NUMBERS)
    assert explained(judge, one, RIGHT) == ("nondeterminism", [("greeting", Run.CHAINED)])
    assert explained(judge, one, again, RIGHT) == ("nondeterminism", [("greeting", Run.CHAINED)] * 2)


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("state", "stays when run again: by state that earlier calls left, or by a path of its own"),
        ("nondeterminism", "varies from run to run"),
    ],
)
def test_the_explanation_is_told(why, words):
    found = verdict((GREETING, CHAIN_ONLY), explain=lambda _: why)
    (finding,) = found.findings
    assert (finding.stage, finding.kind, finding.evidence) == (Stage.INFERENCE, "engine", why)
    assert finding.summary.endswith(f"; only when chained, and it {words}")
    assert found.line == f"convicted: inference (engine): {finding.summary} [1 of 1 case]"
    assert statuses(found) == all_but("cleared", inference="convicted", postprocess="inherits")


@pytest.mark.parametrize("bad_run", [Run.CHAINED, Run.CHAINED_STREAM])
def test_of_two_chained_runs_the_one_that_says_more_counts(bad_run):
    """A stage that inherits, or is unexplained, in one run stays so though the other run is right."""
    tokens = observed(GREETING, tokens=WRONG_TOKENS, generation=HIDDEN, reply=HIDDEN)
    found = verdict((GREETING, trace(GREETING, {bad_run: tokens})), explain=lambda _: "state")
    seen = {r.stage: r.chained for r in found.results}
    assert seen == {
        Stage.CLIENT: Chained.CONSISTENT,
        Stage.TEMPLATE: Chained.CONSISTENT,
        Stage.TOKENIZATION: Chained.UNEXPLAINED,
        Stage.INFERENCE: Chained.INHERITS,
        Stage.POSTPROCESS: Chained.INHERITS,
    }
    assert statuses(found) == all_but("cleared", tokenization="convicted", inference="inherits", postprocess="inherits")


def test_what_is_unexplained_in_one_run_stays_so_though_it_inherits_in_the_other():
    runs = {
        Run.CHAINED: observed(GREETING, generation=WRONG_NUMBERS),
        Run.CHAINED_STREAM: observed(GREETING, tokens=WRONG_TOKENS, generation=HIDDEN, reply=HIDDEN),
    }
    results = {r.stage: r for r in Judge({}, FLOOR).case(GREETING, trace(GREETING, runs))}
    inference = results[Stage.INFERENCE]
    assert (inference.chained, inference.follows) == (Chained.UNEXPLAINED, Stage.TOKENIZATION)
    assert inference.unexplained[0] is Run.CHAINED


SAME_IDS = generation(distributions=None)
OTHER_END = generation(ids=(1, 2, 0), chosen=(1, 2, 0), distributions=None)


def test_numbers_that_are_hidden_do_not_hide_what_comes_after_the_golden_s_own_ids():
    """A server shows the ids that it generated and not their numbers: its reply was still made of golden input."""
    wrong = observed(GREETING, generation=SAME_IDS, reply=WRONG_REPLY)
    found = verdict((GREETING, trace(GREETING, {Run.CHAINED: wrong})), explain=lambda _: "state")
    assert [finding.stage for finding in found.findings] == [Stage.POSTPROCESS]
    elsewhere = observed(GREETING, generation=OTHER_END, reply=WRONG_REPLY)
    assert verdict((GREETING, trace(GREETING, {Run.CHAINED: elsewhere}))).status == "clean"


# What a client makes of an answer

RIGHT_REPLY = GREETING.reply.model_copy(update={"policies": {}, "withheld": 0})


def test_where_the_server_answers_right_and_the_caller_gets_another_reply_the_client_is_at_fault():
    lost = observed(GREETING, reply=WRONG_REPLY, answered=RIGHT_REPLY)
    found = verdict((GREETING, trace(GREETING, {Run.CHAINED: lost})))
    (finding,) = found.findings
    assert (finding.stage, finding.kind, finding.evidence) == (Stage.CLIENT, "integration", "received")
    assert finding.summary.endswith(", in what it makes of the server's answer")
    assert statuses(found) == all_but("cleared", client="convicted")


def test_where_the_server_answers_wrong_already_the_client_is_not_at_fault():
    wrong = observed(GREETING, reply=WRONG_REPLY, answered=WRONG_REPLY)
    found = verdict((GREETING, trace(GREETING, {Run.CHAINED: wrong})), explain=lambda _: "state")
    (finding,) = found.findings
    assert (finding.stage, finding.evidence) == (Stage.POSTPROCESS, "state")


STREAM_ONLY = trace(GREETING, {Run.CHAINED_STREAM: observed(GREETING, generation=WRONG_NUMBERS)})


@pytest.mark.parametrize(
    ("why", "evidence", "words"),
    [
        ("state", "stream", "; only when streamed"),
        ("nondeterminism", "nondeterminism", "; only when chained, and it varies from run to run"),
    ],
)
def test_what_shows_in_the_stream_only_is_said_to(why, evidence, words):
    found = verdict((GREETING, STREAM_ONLY), explain=lambda _: why)
    (finding,) = found.findings
    assert finding.evidence == evidence
    assert finding.summary.endswith(words)


def test_what_shows_streamed_and_not_is_not_the_streams():
    both = observed(GREETING, generation=WRONG_NUMBERS)
    found = verdict(
        (GREETING, trace(GREETING, {Run.CHAINED: both, Run.CHAINED_STREAM: both})), explain=lambda _: "state"
    )
    assert [finding.evidence for finding in found.findings] == ["state"]


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.INFERENCE])
def test_any_stage_may_differ_in_the_chain_only(stage):
    found = verdict(
        (GREETING, trace(GREETING, {Run.CHAINED: observed(GREETING, **{FIELDS[stage]: WRONG[stage]})})),
        explain=lambda _: "state",
    )
    assert [(finding.stage, finding.kind) for finding in found.findings] == [(stage, "integration")]


def test_what_a_stage_does_isolated_needs_no_other_explanation():
    runs = {**isolated(GREETING, prompt=WRONG_PROMPT), **chained(observed(GREETING, prompt=Prompt(text="else")))}
    found = verdict((GREETING, trace(GREETING, runs)))
    assert [(finding.stage, finding.evidence) for finding in found.findings] == [(Stage.TEMPLATE, "isolated")]


def test_a_setting_lost_on_the_way_to_the_sampler_is_an_integration_defect_in_the_chain_too():
    warm = observed(GREETING, generation=generation(settings={"temperature": 0.2}))
    found = verdict((GREETING, trace(GREETING, chained(warm))), explain=lambda _: "state")
    assert [(finding.stage, finding.kind) for finding in found.findings] == [(Stage.INFERENCE, "integration")]


def test_a_stage_seen_only_in_the_chain_is_not_said_to_rest_on_state():
    runs = {
        **isolated(GREETING, prompt=HIDDEN),
        **chained(observed(GREETING, prompt=WRONG_PROMPT)),
    }
    found = verdict((GREETING, trace(GREETING, runs)), explain=lambda _: "state")
    assert found.stages[Stage.TEMPLATE].status == "convicted"
    assert "state" not in found.findings[0].summary


# The whole call broke


def test_a_call_that_broke_without_a_stage_that_fails_alone_is_the_engine():
    judge, one = unexplained(trace(GREETING, {Run.CHAINED: Observation(broke=CRASH)}))
    assert one.stage is Stage.INFERENCE
    assert one.unexplained[1].summary == "died by SIGSEGV; last log line: ggml: out of order"
    broke = Observation(broke=CRASH)
    assert explained(judge, one, broke, broke)[0] == "state"
    assert explained(judge, one, broke, RIGHT)[0] == "nondeterminism"
    found = verdict((GREETING, trace(GREETING, chained(broke))), explain=lambda _: "state")
    assert statuses(found) == all_but("cleared", inference="convicted")
    assert found.findings[0].kind == "engine"


@pytest.mark.parametrize("stage", Stage)
def test_a_call_that_broke_is_explained_by_a_stage_that_fails_alone(stage):
    runs = {**isolated(GREETING, **{FIELDS[stage]: CRASH}), **chained(Observation(broke=CRASH))}
    found = verdict((GREETING, trace(GREETING, runs)))
    assert [finding.stage for finding in found.findings] == [stage]
    assert {r.chained for r in found.results} == {Chained.NOT_SEEN}


def test_a_call_that_broke_by_an_unknown_instruction_is_the_environment():
    broke = Observation(broke=Failure(reason="crash", signal="SIGILL"))
    found = verdict((GREETING, trace(GREETING, chained(broke))), explain=lambda _: "state")
    assert found.findings[0].kind == "environment"


# Unobserved


def test_a_stage_never_observed_leaves_the_stack_unjudged():
    runs = {**isolated(GREETING, prompt=HIDDEN), **chained(observed(GREETING, prompt=HIDDEN))}
    found = verdict((GREETING, trace(GREETING, runs)))
    assert found.status == "unjudged"
    assert found.line == "nothing wrong in 4 of 5 stages; could not judge: template unobserved"
    assert statuses(found) == all_but("cleared", template="unobserved")
    assert found.stages[Stage.TEMPLATE].why == "the server does not show it"
    assert found.notes == ("unobserved: template: the server does not show it [greeting]",)
    assert [r.chained for r in found.results] == [Chained.CONSISTENT] + [Chained.NOT_SEEN] * 4


def test_several_stages_never_observed_are_all_named_with_all_reasons():
    pairs = []
    for name, reason in (("a", "no endpoint"), ("b", "it is too long")):
        unseen = Unobserved(reason=reason)
        one = golden(name)
        pairs.append((one, trace(one, isolated(one, prompt=unseen, tokens=unseen))))
    found = verdict(*pairs)
    assert found.line == "nothing wrong in 3 of 5 stages; could not judge: template, tokenization unobserved"
    assert found.stages[Stage.TEMPLATE].why == "it is too long; no endpoint"


def test_without_a_floor_inference_is_unobserved_not_cleared():
    found = verdict((GREETING, trace(GREETING)), floor=None)
    assert found.line == "nothing wrong in 4 of 5 stages; could not judge: inference unobserved"


def test_a_stage_unobserved_in_some_cases_is_cleared_with_a_note():
    other = golden("hidden")
    found = verdict((GREETING, trace(GREETING)), (other, trace(other, isolated(other, prompt=HIDDEN))))
    assert found.status == "clean"
    assert found.line == "clean: five stages cleared, 9 comparisons in 2 cases"
    assert found.stages[Stage.TEMPLATE].outcomes == {Outcome.EQUAL: 1, Outcome.UNOBSERVED: 1}
    assert found.notes == ("unobserved: template: the server does not show it [hidden]",)


def test_a_conviction_outweighs_what_was_not_observed():
    runs = isolated(GREETING, prompt=HIDDEN, reply=WRONG_REPLY)
    found = verdict((GREETING, trace(GREETING, runs)))
    assert found.status == "convicted"
    assert statuses(found) == all_but("cleared", template="unobserved", postprocess="convicted")


def test_a_trace_without_runs_clears_nobody():
    empty = trace(GREETING).model_copy(update={"runs": {}})
    found = verdict((GREETING, empty))
    assert found.status == "unjudged"
    assert statuses(found) == all_but("unobserved")
    assert found.notes == tuple(f"unobserved: {stage}: not reached [greeting]" for stage in Stage)


def test_no_results_clear_nobody():
    found = convict("made", "tiny", [], None)
    assert found.line == "could not judge: client, template, tokenization, inference, postprocess unobserved"
    assert found.stages[Stage.CLIENT] == StageVerdict(status="unobserved", outcomes={}, why="no case reaches it")


# Policies


PARSED = {(Stage.TOKENIZATION, "parsed"): "its handler parses control text"}
TWO_WAYS = golden(tokens=Tokens(ids=(4, 1, 3), pieces=("?", "Hi", "!"), policies={"parsed": (4, 0)}))


def test_a_declared_policy_is_noted_and_what_follows_is_not_judged_by_the_chain():
    by_policy = Tokens(ids=(4, 0))
    elsewhere = observed(TWO_WAYS, tokens=by_policy, generation=WRONG_NUMBERS, reply=WRONG_REPLY)
    found = verdict(
        (TWO_WAYS, trace(TWO_WAYS, {**isolated(TWO_WAYS, tokens=by_policy), **chained(elsewhere)})), policies=PARSED
    )
    assert found.status == "clean"
    assert found.notes == ("policy: tokenization: declared policy parsed: its handler parses control text [greeting]",)
    assert found.stages[Stage.TOKENIZATION].outcomes == {Outcome.EQUIVALENT: 1}
    assert found.stages[Stage.POSTPROCESS].status == "cleared"
    assert [r.follows for r in found.results] == [None, None, None, Stage.TOKENIZATION, Stage.TOKENIZATION]


def test_a_policy_of_another_stage_excuses_nothing():
    by_policy = Tokens(ids=(4, 0))
    found = verdict(
        (TWO_WAYS, trace(TWO_WAYS, isolated(TWO_WAYS, tokens=by_policy))),
        policies={(Stage.POSTPROCESS, "parsed"): "its handler parses control text"},
    )
    assert [finding.stage for finding in found.findings] == [Stage.TOKENIZATION]


def test_the_same_policy_in_several_cases_is_one_note():
    pairs = []
    for name in ("a", "b"):
        one = TWO_WAYS.model_copy(update={"case": golden(name).case})
        pairs.append((one, trace(one, isolated(one, tokens=Tokens(ids=(4, 0))))))
    found = verdict(*pairs, policies=PARSED)
    assert found.notes == ("policy: tokenization: declared policy parsed: its handler parses control text [a, b]",)


# Refusals of the reference


REFUSES = golden("refused", prompt=Refusal(error="TemplateError", message="roles must alternate"))


def test_a_case_that_the_reference_refuses_has_no_later_stages():
    found = verdict((REFUSES, trace(REFUSES)))
    assert [r.stage for r in found.results] == [Stage.CLIENT, Stage.TEMPLATE]
    assert (
        found.line == "nothing wrong in 2 of 5 stages; could not judge: tokenization, inference, postprocess unobserved"
    )
    together = verdict((GREETING, trace(GREETING)), (REFUSES, trace(REFUSES)))
    assert together.line == "clean: five stages cleared, 7 comparisons in 2 cases"


def test_a_stack_that_accepts_what_the_reference_refuses_is_convicted_at_the_template():
    accepted = observed(GREETING)
    found = verdict((REFUSES, trace(REFUSES, {Run.ISOLATED: accepted, **chained(accepted)})))
    assert [finding.stage for finding in found.findings] == [Stage.TEMPLATE]


def test_a_prompt_longer_than_the_context_is_refused_by_inference():
    too_long = golden("long", generation=Refusal(error="ContextLength", message="9 of 8", context=True))
    said = Refusal(error="ValueError", message="exceeds the context", context=True)
    right = {Run.ISOLATED: observed(too_long, generation=said), **chained(observed(too_long, generation=said))}
    found = verdict((too_long, trace(too_long, right)))
    assert statuses(found) == all_but("cleared", postprocess="unobserved")
    vague = said.model_copy(update={"context": False})
    (finding,) = verdict((too_long, trace(too_long, isolated(too_long, generation=vague)))).findings
    assert finding.stage is Stage.INFERENCE
    assert finding.summary.startswith("it refuses a prompt longer than the context, but without saying so")


def test_a_call_that_dies_where_the_reference_refuses_is_not_clean():
    runs = chained(Observation(broke=CRASH))
    found = verdict((GREETING, trace(GREETING)), (REFUSES, trace(REFUSES, runs)), explain=lambda _: "state")
    assert found.status != "clean"


def test_a_whole_route_that_refuses_what_the_reference_refuses_convicts_nobody():
    route = Route(answers(REFUSES), StageRefusedError(REFUSES.prompt))
    for stage in (Stage.TOKENIZATION, Stage.INFERENCE, Stage.POSTPROCESS):
        route.answers[stage] = AssertionError("there is nothing to feed it")
    route.answers[Stage.TEMPLATE] = StageRefusedError(REFUSES.prompt)
    found = verdict((REFUSES, Tracer(running(route)).trace(REFUSES)), explain=lambda _: "state")
    assert found.findings == ()


# Near-ties in the chain


TIED = (row(1, 4, gap=0.001), *LOGITS[1:])
TURNED = (row(4, 1, gap=0.001), row(0))
TIE = golden(generation=generation(distributions=distributions(*TIED).top()))
OTHER_IDS = generation(ids=(4, 0), chosen=(4, 0), distributions=distributions(*TURNED))
OTHER_REPLY = Reply(content="?", finish_reason="stop", usage=Usage(prompt_tokens=3, completion_tokens=1))


def tied(reply, replay, stream=None):
    """Return a trace whose chained run leaves the golden's ids at a near-tie and gives a reply."""
    right = generation(distributions=distributions(*TIED))
    runs = {
        Run.ISOLATED: observed(TIE, generation=right),
        Run.CHAINED: observed(TIE, generation=OTHER_IDS, reply=reply),
        Run.CHAINED_STREAM: observed(TIE, generation=OTHER_IDS, reply=stream or streamed(OTHER_REPLY)),
    }
    replays = {Run.CHAINED: replay, Run.CHAINED_STREAM: streamed(OTHER_REPLY)}
    return trace(TIE, runs, replays=replays)


def test_a_near_tie_whose_ids_give_the_same_reply_again_is_clean():
    found = verdict((TIE, tied(OTHER_REPLY, OTHER_REPLY)))
    assert found.status == "clean"
    assert {r.chained for r in found.results} == {Chained.CONSISTENT}


def test_a_near_tie_whose_ids_give_another_reply_again_is_the_postprocess_stage():
    found = verdict((TIE, tied(WRONG_REPLY, OTHER_REPLY)), explain=lambda _: "state")
    (finding,) = found.findings
    assert (finding.stage, finding.kind, finding.evidence) == (Stage.POSTPROCESS, "integration", "state")
    assert [(place.golden, place.observed) for place in finding.difference.hunks] == [
        ("?", "Hi there"),
        ("1", "3"),
    ]


def test_a_near_tie_in_the_stream_is_held_against_the_streamed_replay():
    wrong = streamed(OTHER_REPLY).model_copy(update={"content": "? "})
    found = verdict((TIE, tied(OTHER_REPLY, OTHER_REPLY, wrong)), explain=lambda _: "state")
    (result_of,) = [r for r in found.results if r.unexplained]
    assert (result_of.stage, result_of.unexplained[0]) == (Stage.POSTPROCESS, Run.CHAINED_STREAM)


def test_a_near_tie_that_cannot_be_replayed_says_nothing_of_the_chain():
    found = verdict((TIE, tied(WRONG_REPLY, HIDDEN, streamed(OTHER_REPLY))))
    assert found.status == "clean"


def test_what_a_golden_may_withhold_a_replay_may_not():
    """A replay shows what the part itself made of the ids: of the same ids it must make the very same again."""
    replay = OTHER_REPLY.model_copy(update={"withheld": 3})
    broken = OTHER_REPLY.model_copy(update={"content": "?\ufffd"})
    found = verdict((TIE, tied(broken, replay)), explain=lambda _: "state")
    assert [finding.stage for finding in found.findings] == [Stage.POSTPROCESS]
    assert verdict((TIE, tied(OTHER_REPLY, replay))).status == "clean"


def test_a_client_is_held_against_the_replay_where_the_ids_are_others():
    found = tied(WRONG_REPLY, OTHER_REPLY)
    run = found.runs[Run.CHAINED].model_copy(update={"answered": OTHER_REPLY})
    (finding,) = verdict((TIE, found.model_copy(update={"runs": {**found.runs, Run.CHAINED: run}}))).findings
    assert (finding.stage, finding.evidence) == (Stage.CLIENT, "received")


def test_a_postprocess_stage_that_dies_of_the_stacks_own_ids_is_not_clean():
    found = verdict((TIE, tied(OTHER_REPLY, CRASH)), explain=lambda _: "state")
    assert found.status != "clean"


def test_a_reply_to_other_ids_that_is_right_the_second_time_is_nondeterminism():
    judge = Judge({}, FLOOR)
    (one,) = [r for r in judge.case(TIE, tied(WRONG_REPLY, OTHER_REPLY)) if r.unexplained]
    right, wrong = (
        trace(
            TIE,
            {Run.CHAINED: observed(TIE, generation=OTHER_IDS, reply=reply)},
            replays={Run.CHAINED: OTHER_REPLY},
        )
        for reply in (OTHER_REPLY, WRONG_REPLY)
    )
    assert explain_by_rerun(judge, TIE, one, lambda *_: right) == "nondeterminism"
    assert explain_by_rerun(judge, TIE, one, lambda *_: wrong) == "state"


# No false conviction


ENDINGS = (REFUSED, CRASH, Failure(reason="hang", seconds=1), HIDDEN, None)


@st.composite
def damages(draw):
    """One stage that is bad isolated and in the chain, and chained runs with any damage after it."""
    guilty = draw(st.sampled_from(list(Stage)))
    wrong = draw(st.sampled_from([WRONG[guilty], REFUSED, CRASH]))
    runs = {Run.ISOLATED: observed(GREETING, **{FIELDS[guilty]: wrong})}
    for run in (Run.CHAINED, Run.CHAINED_STREAM):
        outputs = {FIELDS[guilty]: draw(st.sampled_from([wrong, WRONG[guilty], REFUSED, CRASH, HIDDEN]))}
        for stage in list(Stage)[list(Stage).index(guilty) + 1 :]:
            right = getattr(RIGHT, FIELDS[stage])
            outputs[FIELDS[stage]] = draw(st.sampled_from([right, WRONG[stage], *ENDINGS]))
        broke = draw(st.sampled_from([None, None, CRASH]))
        runs[run] = Observation(broke=broke) if broke else observed(GREETING, **outputs)
    replays = draw(st.dictionaries(st.sampled_from([Run.CHAINED, Run.CHAINED_STREAM]), st.just(WRONG_REPLY)))
    return guilty, trace(GREETING, runs, replays=replays)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(damages())
def test_damage_after_a_convicted_stage_convicts_nobody_else(damage):
    guilty, found_trace = damage
    found = verdict((GREETING, found_trace), (golden("other"), trace(golden("other"))))
    assert {finding.stage for finding in found.findings} == {guilty}
    assert {stage for stage, said in found.stages.items() if said.status == "convicted"} == {guilty}


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.dictionaries(st.sampled_from(list(Run)), st.lists(st.sampled_from(list(Stage)), unique=True)))
def test_what_was_not_observed_convicts_nobody_and_clears_nobody(hidden):
    runs = {
        run: trace(GREETING).runs[run].model_copy(update={FIELDS[stage]: HIDDEN for stage in stages})
        for run, stages in hidden.items()
    }
    found = verdict((GREETING, trace(GREETING, runs)))
    unseen = {*hidden.get(Run.ISOLATED, ())}
    if Stage.POSTPROCESS in hidden.get(Run.ISOLATED_STREAM, ()):
        unseen.add(Stage.POSTPROCESS)
    assert found.findings == ()
    assert {stage for stage, said in found.stages.items() if said.status == "unobserved"} == unseen
    assert found.status == ("unjudged" if unseen else "clean")


def test_one_output_may_be_asked_for_alone():
    judge = Judge({}, FLOOR)
    assert judge.compare(Stage.TEMPLATE, GREETING, None) == unobserved("not reached")
    assert judge.isolated(Stage.TEMPLATE, GREETING, trace(GREETING)) == Comparison(outcome=Outcome.EQUAL)
    assert isinstance(trace(GREETING).output(Run.CHAINED, Stage.INFERENCE), Generation)


BEYOND = GREETING.model_copy(
    update={"case": GREETING.case.model_copy(update={"covers": ("prompt longer than the context",)})}
)
TOO_LONG = Refusal(error="ValueError", message="Requested tokens (3) exceed context window of 2", context=True)


@pytest.mark.parametrize(
    ("golden", "observed", "context", "outcome"),
    [
        (BEYOND, TOO_LONG, -1, Outcome.UNOBSERVED),  # the reference's context is larger than the stack's
        (BEYOND, TOO_LONG, None, Outcome.UNOBSERVED),
        (BEYOND, TOO_LONG, 1, Outcome.FAILED),  # it would have fitted
        (GREETING, TOO_LONG, -1, Outcome.FAILED),  # a context too small for an ordinary case is a wrong setting
        (BEYOND.model_copy(update={"generation": TOO_LONG}), GREETING.generation, 1, Outcome.UNOBSERVED),
        (BEYOND.model_copy(update={"generation": TOO_LONG}), GREETING.generation, 0, Outcome.DIVERGED),
        (BEYOND.model_copy(update={"generation": TOO_LONG}), GREETING.generation, None, Outcome.DIVERGED),
        (BEYOND.model_copy(update={"generation": TOO_LONG}), TOO_LONG, 0, Outcome.EQUAL),
    ],
)
def test_a_prompt_beyond_the_context_is_judged_by_the_context_in_force(golden, observed, context, outcome):
    ids = len(golden.tokens.ids)
    judge = Judge({}, FLOOR, lambda: None if context is None else ids + context)
    assert judge.compare(Stage.INFERENCE, golden, observed).outcome is outcome


def test_a_call_that_refuses_a_prompt_beyond_its_context_accuses_nobody():
    whole = Observation(broke=TOO_LONG)
    seen = trace(BEYOND, {Run.CHAINED: whole})
    for context, accused in ((0, False), (len(BEYOND.tokens.ids) + 1, True)):
        results = Judge({}, FLOOR, lambda room=context: room).case(BEYOND, seen)
        assert any(result.chained is Chained.UNEXPLAINED for result in results) is accused


def counted(name, right, reported):
    """A server that shows no prompt, and of which the reply reports a length."""
    asked = golden(name, tokens=Tokens(ids=tuple(range(right)), pieces=("x",) * right))
    reply = asked.reply.model_copy(update={"usage": Usage(prompt_tokens=reported, completion_tokens=3)})
    shown = observed(asked, prompt=HIDDEN, tokens=HIDDEN, generation=HIDDEN, reply=reply)
    hidden = observed(asked, prompt=HIDDEN, tokens=HIDDEN, generation=HIDDEN, reply=HIDDEN)
    return asked, trace(asked, {Run.ISOLATED: hidden, Run.ISOLATED_STREAM: hidden, Run.CHAINED: shown})


def test_a_length_that_is_not_the_golden_s_convicts_the_template():
    found = verdict(counted("a", 20, 10), counted("b", 30, 19), explain=lambda _: "state")
    (finding,) = found.findings
    assert (finding.stage, finding.cases) == (Stage.TEMPLATE, ("a", "b"))
    assert statuses(found)["postprocess"] == "unobserved", "of which nothing was seen"


def test_a_length_that_is_the_same_for_every_prompt_counts_nothing():
    found = verdict(counted("a", 20, 3), counted("b", 30, 3), explain=lambda _: "state")
    assert found.findings == ()
    assert statuses(found)["template"] == "unobserved"


def shown_ids(replying, **changes):
    """A server that runs already: it shows what it generated, and cannot be given ids."""
    asked = golden("a")
    hidden = observed(asked, reply=HIDDEN)
    own = generation(ids=(1, 0), chosen=(1, 0), distributions=None)
    reply = asked.reply.model_copy(update={"content": "Hi", "usage": Usage(prompt_tokens=3, completion_tokens=1)})
    chain = observed(asked, prompt=HIDDEN, tokens=HIDDEN, generation=own, reply=reply)
    seen = trace(asked, {Run.ISOLATED: hidden, Run.ISOLATED_STREAM: hidden, Run.CHAINED: chain})
    judge = Judge({}, FLOOR, replying=replying)
    results = judge.case(asked, seen.model_copy(update={"runs": {k: v for k, v in seen.runs.items() if k in KEPT}}))
    return convict("s", "m", results, lambda _: "state")


KEPT = (Run.ISOLATED, Run.ISOLATED_STREAM, Run.CHAINED)


def due(content):
    def replying(asked, own):
        usage = Usage(prompt_tokens=3, completion_tokens=len(own.ids) - 1)
        return asked.model_copy(update={"reply": Reply(content=content, finish_reason="stop", usage=usage, withheld=0)})

    return replying


def test_a_reply_is_held_against_the_ids_that_the_server_generated():
    right = shown_ids(due("Hi"))
    assert right.stages[Stage.POSTPROCESS].status == "cleared"
    assert "right in its own path in 1 of 1 case" in right.stages[Stage.POSTPROCESS].why
    wrong = shown_ids(due("Hello"))
    assert [one.stage for one in wrong.findings] == [Stage.POSTPROCESS]
    unknown = shown_ids(lambda *_: None)
    assert unknown.stages[Stage.POSTPROCESS].status == "unobserved"


def test_an_error_of_ours_in_the_reply_that_is_due_is_told_and_convicts_nobody():
    def raises(*_):
        raise KeyError("planted")

    found = shown_ids(raises)
    assert (found.status, found.findings) == ("error", ())
    assert found.errors[0].stage is Stage.POSTPROCESS
