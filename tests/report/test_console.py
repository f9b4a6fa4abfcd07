"""Verdicts on the terminal: whole texts, and nothing that a model says is obeyed or hidden."""

import unicodedata
from io import StringIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from harness.checking.compare.outcome import Hunk, Outcome
from harness.checking.verdict import Finding, StageVerdict, Verdict
from harness.report.console import finding_text, print_recording, print_verdicts, render_observation, render_verdict
from harness.stage import Stage
from harness.values import (
    Failure,
    Observation,
    Refusal,
    Reply,
    Request,
    Tokens,
    Unobserved,
)
from tests.made import difference, golden, observed, result

SAME = "golden in, golden out"
NASTY = "\x1b[31m[red]x[/red]\x1b]0;t\x07[/]\r\u202e:smile:"
NASTY_SHOWN = "<U+001B>[31m[red]x[/red]<U+001B>]0;t<U+0007>[/]\u240d<U+202E>:smile:"


def rendered(*renderables, width=80):
    """Return what a console without colour shows, without the blanks that end its lines."""
    console = Console(width=width, file=StringIO(), color_system=None, highlight=False)
    for renderable in renderables:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def joined(text):
    """Return text as if no line had been broken."""
    return "".join(text.split())


def said(status, why=SAME, **outcomes):
    return StageVerdict(status=status, outcomes={Outcome(name): count for name, count in outcomes.items()}, why=why)


def verdict(status, line, stages, cases=1, **more):
    results = tuple(result(Stage.CLIENT, f"case-{i}") for i in range(cases))
    made = {"findings": (), "notes": (), "results": results, **more}
    return Verdict(
        stack="made", model="tiny", status=status, line=line, stages=dict(zip(Stage, stages, strict=True)), **made
    )


def finding(*places, summary="the text differs", cases=("case-0",), **changes):
    made = {"stage": Stage.TEMPLATE, "kind": "integration", "summary": summary, "cases": cases, "example": cases[0]}
    return Finding(**{**made, "difference": difference(summary, *places), **changes})


# Whole verdicts


CLEAN = """\
made around tiny, 12 cases
stage         verdict  cases          why
client        cleared  12 equal       golden in, golden out
template      cleared  12 equal       golden in, golden out
tokenization  cleared  11 equal       golden in, golden out
                       1 equivalent
inference     cleared  12 equivalent  same ids in, same numbers out: KL at
                                      most 0.0012, limit 0.01 nats
postprocess   cleared  12 equal       golden in, golden out

  policy: tokenization: declared policy parsed: by design [case-3]

clean: five stages cleared, 60 comparisons in 12 cases"""


def test_a_clean_verdict():
    stages = (
        said("cleared", equal=12),
        said("cleared", equal=12),
        said("cleared", equal=11, equivalent=1),
        said("cleared", "same ids in, same numbers out: KL at most 0.0012, limit 0.01 nats", equivalent=12),
        said("cleared", equal=12),
    )
    notes = ("policy: tokenization: declared policy parsed: by design [case-3]",)
    line = "clean: five stages cleared, 60 comparisons in 12 cases"
    assert rendered(render_verdict(verdict("clean", line, stages, cases=12, notes=notes))) == CLEAN


CONVICTED = """\
made around tiny, 9 cases
stage         verdict    cases       why
client        cleared    9 equal     golden in, golden out
template      convicted  1 equal     2 root causes: the end that opens the
                         8 diverged  assistant's turn is missing
tokenization  inherits   9 equal     golden in, golden out; in the chain it
                                     gets what template made
inference     convicted  8 equal     1 root cause: died by SIGSEGV
                         1 failed
postprocess   inherits   9 equal     golden in, golden out; in the chain it
                                     gets what template made

template (integration): the end that opens the assistant's turn is missing
  in 7 of 9 cases: case-0, case-1, case-2, case-3, case-4, case-5, and 1 more
  case case-2:
    @ 14
    - <|im_end|>\u240a\u27e6<bot>\u240a\u27e7
    + <|im_end|>\u240a\u27e6\u27e7

template (integration): the text differs in 5 places
  in 1 of 9 cases: case-8
  case case-8:
    @ 0
    - \u27e6a\u27e7 tail
    + \u27e6A\u27e7 tail
    @ 2
    - head \u27e6caf\\xe9\u27e7 tail
    + head \u27e6cafe\\u0301\u27e7 tail
    @ 4
    - \u27e6 \u2409<U+00A0>\u27e7
    + \u27e6 \u27e7
  ... and 2 more places

inference (engine): died by SIGSEGV
  in 1 of 9 cases: case-4

convicted: template (integration): the end that opens the assistant's turn is
missing [7 of 9 cases]; also convicted: inference"""


def test_a_convicted_verdict():
    lost = "the end that opens the assistant's turn is missing"
    inherits = f"{SAME}; in the chain it gets what template made"
    stages = (
        said("cleared", equal=9),
        said("convicted", f"2 root causes: {lost}", diverged=8, equal=1),
        said("inherits", inherits, equal=9),
        said("convicted", "1 root cause: died by SIGSEGV", equal=8, failed=1),
        said("inherits", inherits, equal=9),
    )
    findings = (
        finding(
            Hunk(at="14", golden="<bot>\n", observed="", before="<|im_end|>\n"),
            summary=lost,
            cases=tuple(f"case-{i}" for i in range(7)),
            example="case-2",
        ),
        finding(
            Hunk(at="0", golden="a", observed="A", after=" tail"),
            Hunk(at="2", golden="caf\u00e9", observed="cafe\u0301", before="head ", after=" tail"),
            Hunk(at="4", golden=" \t\u00a0", observed=" "),
            Hunk(at="6", golden="x", observed=""),
            Hunk(at="8", golden="y", observed=""),
            summary="the text differs in 5 places",
            cases=("case-8",),
        ),
        finding(stage=Stage.INFERENCE, kind="engine", summary="died by SIGSEGV", cases=("case-4",)),
    )
    line = f"convicted: template (integration): {lost} [7 of 9 cases]; also convicted: inference"
    shown = rendered(render_verdict(verdict("convicted", line, stages, cases=9, findings=findings)))
    assert shown == CONVICTED


UNJUDGED = """\
made around tiny, 2 cases
stage         verdict     cases         why
client        cleared     2 equal       golden in, golden out
template      unobserved  2 unobserved  the server does not show its prompt
tokenization  cleared     2 equal       golden in, golden out
inference     unobserved  none          no case reaches it
postprocess   cleared     1 equal       golden in, golden out
                          1 unobserved

  unobserved: template: the server does not show its prompt [case-0, case-1]
  unobserved: postprocess: it cannot be asked to continue the last message
  [case-1]

could not judge: template, inference unobserved"""


def test_an_unjudged_verdict():
    hidden = "the server does not show its prompt"
    stages = (
        said("cleared", equal=2),
        said("unobserved", hidden, unobserved=2),
        said("cleared", equal=2),
        said("unobserved", "no case reaches it"),
        said("cleared", equal=1, unobserved=1),
    )
    notes = (
        f"unobserved: template: {hidden} [case-0, case-1]",
        "unobserved: postprocess: it cannot be asked to continue the last message [case-1]",
    )
    line = "could not judge: template, inference unobserved"
    assert rendered(render_verdict(verdict("unjudged", line, stages, cases=2, notes=notes))) == UNJUDGED


def test_verdicts_are_printed_one_below_the_other():
    stages = [said("cleared", equal=1)] * 5
    console = Console(width=80, file=StringIO(), color_system=None, highlight=False)
    print_verdicts(console, [verdict("clean", f"clean: {name}", stages) for name in ("one", "two")])
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert [line for line in lines if line.startswith("clean: ")] == ["clean: one", "clean: two"]
    assert lines[lines.index("clean: one") + 1 :][:2] == ["", "made around tiny, 1 case"]


# Text of models


def nasty_verdict(why=NASTY):
    places = (Hunk(at="0", golden=NASTY, observed=NASTY + "!", before=NASTY, after=NASTY),)
    return verdict(
        "convicted",
        f"convicted: {NASTY}",
        [said("convicted", why, diverged=1), *[said("cleared", equal=1)] * 4],
        findings=(finding(*places, summary=NASTY),),
        notes=(f"policy: {NASTY}",),
    )


def test_text_of_a_model_is_shown_literally():
    shown = joined(rendered(render_verdict(nasty_verdict(why="it differs"))))
    assert f"template(integration):{NASTY_SHOWN}in1of1case" in shown
    before, after = NASTY_SHOWN[-40:], NASTY_SHOWN[:40]
    assert f"-{before}\u27e6{NASTY_SHOWN}\u27e7{after}+{before}\u27e6{NASTY_SHOWN}!\u27e7{after}" in shown
    assert f"policy:{NASTY_SHOWN}" in shown
    assert f"convicted:{NASTY_SHOWN}" in shown


@pytest.mark.parametrize("text", ["a [red]x[/red] b", "a :smile: b", "a [/] b", "a [link=http://x]y[/link] b"])
def test_markup_in_the_table_is_shown_literally(text):
    stages = [said("convicted", f"1 root cause: {text}", diverged=1), *[said("cleared", equal=1)] * 4]
    assert text in rendered(render_verdict(verdict("convicted", "convicted", stages)), width=200)


def test_escapes_in_the_name_of_a_place_are_disarmed():
    place = Hunk(at=f"tool_calls[0].function.{NASTY}", golden="1", observed="2")
    assert f"tool_calls[0].function.{NASTY_SHOWN}" in joined(finding_text(finding(place)))


def test_long_texts_that_differ_in_the_middle_are_shown_differently():
    place = Hunk(at="0", golden=f"{'x' * 400}A{'x' * 400}", observed=f"{'x' * 400}B{'x' * 400}")
    golden_line, observed_line = joined(finding_text(finding(place))).split("-\u27e6")[1].split("+\u27e6")
    assert golden_line != observed_line


def test_nothing_is_nothing_between_the_brackets():
    assert finding_text(finding(Hunk(at="0", golden="x", observed=""))).endswith("    + \u27e6\u27e7")


def test_a_long_text_is_cut_in_the_middle():
    place = Hunk(at="0", golden="a" * 300 + "b" * 300, observed="")
    shown = joined(finding_text(finding(place)))
    assert f"-\u27e6{'a' * 199}\u2026{'b' * 200}\u27e7+\u27e6\u27e7" in shown


def test_a_finding_as_text():
    place = Hunk(at="content", golden="\n", observed="", before="Yes.")
    found = finding(place, stage=Stage.POSTPROCESS, cases=("a", "b"), summary="content is empty, must be \n")
    lines = [line.rstrip() for line in finding_text(found).splitlines()]
    assert lines == [
        "postprocess (integration): content is empty, must be \u240a",
        "  in 2 of 2 cases: a, b",
        "  case a:",
        "    @ content",
        "    - Yes.\u27e6\u240a\u27e7",
        "    + Yes.\u27e6\u27e7",
    ]


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_no_control_code_of_a_model_reaches_the_terminal(text):
    place = Hunk(at="0", golden=text, observed=text + "!", before=text, after=text)
    found = verdict(
        "convicted",
        text,
        [said("cleared", equal=1)] * 5,
        findings=(finding(place, summary=text),),
        notes=(text,),
    )
    shown = rendered(render_verdict(found))
    hidden = {"Cc", "Cf", "Zl", "Zp", "Co", "Cs", "Cn"}
    assert not [character for character in shown.replace("\n", "") if unicodedata.category(character) in hidden]


# Observations


def test_an_observation_shows_every_stage():
    lines = rendered(render_observation(observed(golden())), width=200).splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [
        ["client", '{"messages":[{"role":"user","content":"Say hi."}],"settings":{"temperature":0,"max_tokens":8}}'],
        ["template", "<user>Say hi.\u240a<bot>"],
        ["tokenization", "4[?] 1[Hi] 3[!]"],
        ["inference", "1 2 3 0 (end_token)"],
        [
            "postprocess",
            '{"content":"Hi there!","finish_reason":"stop","usage":{"prompt_tokens":3,"completion_tokens":3}}',
        ],
    ]


def test_endings_and_stages_not_reached():
    found = Observation(
        request=Unobserved(reason="hidden"),
        prompt=Refusal(error="E", message="no"),
        tokens=Failure(reason="crash", signal="SIGSEGV", log=("a", NASTY)),
        broke=Failure(reason="hang", seconds=2),
    )
    lines = rendered(render_observation(found), width=200).splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [
        ["client", '{"kind":"unobserved","reason":"hidden"}'],
        ["template", Refusal(error="E", message="no").model_dump_json()],
        ["tokenization", f"died by SIGSEGV; last log line: {NASTY_SHOWN}"],
        ["inference", "not reached"],
        ["postprocess", "not reached"],
        ["ended", "no answer in 2 s"],
    ]


def test_text_of_a_model_in_an_observation_is_shown_literally():
    found = Observation(
        request=Request(messages=({"role": "user", "content": "[red]x[/red]\x1b"},)),
        tokens=Tokens(ids=(1, 2), pieces=(NASTY, "")),
        reply=Reply(content="[/]\u202e"),
    )
    lines = rendered(render_observation(found), width=300).splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == [
        '{"messages":[{"role":"user","content":"[red]x[/red]\\u001b"}],"settings":{}}',
        "not reached",
        f"1[{NASTY_SHOWN}] 2",
        "not reached",
        '{"content":"[/]<U+202E>"}',
    ]


class Noted:
    """What recording found of a case."""

    def __init__(self, change, written=False):
        self.case, self.change, self.what, self.written = "c", change, (), written


@pytest.mark.parametrize(
    ("found", "follows", "said"),
    [
        (
            [],
            "harness check s --model m",
            "m: nothing to record: no case is asked of it; add a file to golden/cases, or name cases in models.toml",
        ),
        ([Noted("unchanged")], "", "m: 1 unchanged, nothing to record"),
        (
            [Noted("unchanged")] * 2,
            "harness check s --model m",
            "m: 2 unchanged, nothing to record; next: harness check s --model m",
        ),
        (
            [Noted("new", written=True)],
            "harness record m --noise s",
            "new       c, written\nm: 1 new; next: harness record m --noise s",
        ),
        (
            [Noted("new")],
            "",
            "new       c\nm: 1 new\nnothing of it is written; to write it: harness record m --approve new",
        ),
    ],
)
def test_a_recording_says_what_was_to_do_and_what_comes_next(found, follows, said):
    console = Console(width=200, file=StringIO(), color_system=None, highlight=False)
    print_recording(console, "m", found, follows)
    assert console.file.getvalue() == said + "\n"
