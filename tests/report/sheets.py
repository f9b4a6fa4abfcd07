"""Sheets to report on: one in which all is well, one with many faults, and one that attacks whoever shows it."""

import html.parser

from harness.checking.compare.outcome import Hunk, Outcome
from harness.checking.trace import Run
from harness.checking.verdict import Finding, StageVerdict
from harness.report.sheet import Sheet, SheetCase, sheet_of_verdict
from harness.stage import Stage
from harness.values import Failure, Observation, Prompt, Refusal, Reply, Tokens, Unobserved, Usage
from tests.made import FLOOR, difference, distributions, generation, golden, observed, result, row, trace, verdict

HOSTILE = (
    '</script></style></pre></code><script>window.pwned=1</script><img src=x onerror="window.pwned=1">'
    "<svg/onload='pwned'> javascript:pwned & &amp; | a\\|b ``` `````` ~~~ **bold** [link](https://evil.example)"
    " @octocat #1 www.evil.example $math$ :smile: {0} \u202eright-to-left\u2066 \x1b[31mred\x1b[0m \x00 \u2028 \u200b"
    " --> ]]> "
)
"""What a model may answer that wants out of a report."""
HOSTILE_SHOWN = HOSTILE.translate({ord(c): f"<U+{ord(c):04X}>" for c in "\u202e\u2066\x1b\x00\u2028\u200b"})
PARTS = {"engine": "1.2.3", "model file": "tiny.gguf"}
COMMAND = "harness check made --model tiny"
MADE = "2026-01-02T03:04:05+00:00"


def of(*pairs, limit=FLOOR.limit, **more):
    """Return the sheet of a check of these goldens and traces."""
    found = verdict(*pairs, **more)
    return sheet_of_verdict(
        found,
        {expected.case.name: expected for expected, _ in pairs},
        {expected.case.name: seen for expected, seen in pairs},
        limit=limit,
        parts=PARTS,
        command=COMMAND,
        made=MADE,
    )


def clean():
    """Return a sheet of two cases in which all is well."""
    first, second = golden(), golden("farewell")
    return of((first, trace(first)), (second, trace(second)))


def faulty():
    """Return a sheet in which a case each has wrong ids, wrong numbers, a crash, and a stage that was not seen."""
    cases = []
    for name, changes in (
        ("ids", {"tokens": Tokens(ids=(4, 2, 2, 3), pieces=("?", " there", " there", "!"))}),
        (
            "numbers",
            {"generation": generation(distributions=distributions(row(4, 1), row(2, 3), row(3, 4), row(0, 1)))},
        ),
        ("crash", {"generation": Failure(reason="crash", signal="SIGSEGV", log=("ggml: out of order",))}),
        ("unseen", {"prompt": Unobserved(reason="it cannot be asked")}),
        ("refused", {"prompt": Refusal(error="TemplateError", message="no such role")}),
        ("text", {"prompt": Prompt(text="<user>Say hi.\n")}),
    ):
        expected = golden(name)
        cases.append((expected, trace(expected, {Run.ISOLATED: observed(expected, **changes)})))
    return of(*cases)


def hostile():
    """Return a sheet in which everything that others say is an attack."""
    text = HOSTILE
    expected = golden(prompt=Prompt(text=f"{text}\n<|im_start|>"), tokens=Tokens(ids=(1, 2), pieces=(text, text)))
    seen = observed(
        expected,
        prompt=Prompt(text=f"{text}{text}"),
        tokens=Tokens(ids=(1, 3), pieces=(text, text)),
        reply=Reply(
            content=text,
            reasoning=text,
            tool_calls=({"function": {"name": text, "arguments": text}},),
            finish_reason=text,
            usage=Usage(prompt_tokens=1, completion_tokens=1),
        ),
        generation=Failure(reason="broken", message=text, log=(text, text)),
    )
    stream = Reply(content=text, deltas=({"content": text}, {text: text}))
    made = of((expected, trace(expected, {Run.ISOLATED: seen, Run.ISOLATED_STREAM: Observation(reply=stream)})))
    place = Hunk(at=text, golden=text, observed=f"{text}!", before=text, after=text)
    finding = Finding(
        stage=Stage.TEMPLATE,
        kind="integration",
        summary=text,
        cases=("greeting",),
        example="greeting",
        difference=difference(text, place),
    )
    return made.model_copy(
        update={
            "title": text,
            "line": text,
            "sides": (text, text),
            "verb": text,
            "findings": (*made.findings, finding),
            "notes": (text,),
            "parts": {text: text},
            "command": text,
            "made": text,
            "cases": tuple(case.model_copy(update={"name": text, "description": text}) for case in made.cases),
        }
    )


def bare(*results, findings=(), **changes):
    """Return a sheet of these results, one case each, in which neither side produced anything."""
    cases = tuple(
        SheetCase(name=one.case, results=(one,), expected=Observation(), observed=Observation()) for one in results
    )
    stages = {stage: StageVerdict(status="cleared", outcomes={Outcome.EQUAL: 1}, why="so") for stage in Stage}
    made = {
        "title": "made around tiny",
        "model": "tiny",
        "line": "clean",
        "status": "good",
        "sides": ("golden", "made"),
        "verb": "convicted",
        "stages": stages,
        "findings": findings,
        "cases": cases,
    }
    return Sheet(**{**made, **changes})


def chained_only():
    """Return a result that is equal alone and differs in the chain without an explanation."""
    return result(Stage.CLIENT, unexplained=(Run.CHAINED, difference("it keeps state")))


class Outline(html.parser.HTMLParser):
    """What a browser would make of a page: its elements, its attributes, and the text within and without code.

    Args:
        source: The page.
    """

    VOID = frozenset({"meta", "br", "wbr", "input", "img", "link", "hr", "path", "use"})

    def __init__(self, source):
        super().__init__()
        self.elements, self.attributes, self.code, self.prose = [], [], [], []
        self._open = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data):
        (self.code if {"code", "pre"} & set(self._open) else self.prose).append(data)
