"""Reports of a search: a small one, one in which nothing is broken, and one that attacks whoever shows it."""

from harness.fuzz.finding import Broken, Finding, FuzzReport, Output
from harness.fuzz.measures import Covered, KindTried, Mutation, Tried, Unreached
from tests.report.sheets import HOSTILE

SURROGATE = f"{HOSTILE}\ud800"
"""What a part may give: it cannot even be encoded."""
CALLING = {
    "messages": [
        {"role": "system", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": "Hi.\nYou?"}, {"type": "image_url", "image_url": "a"}]},
        {
            "role": "assistant",
            "reasoning_content": "Look.",
            "content": None,
            "tool_calls": [{"id": "c1", "function": {"name": "weather", "arguments": {"place": "Z\u00fcrich"}}}],
        },
        {"role": "tool", "name": "weather", "tool_call_id": "c1", "content": "18C"},
        {"role": "assistant", "prefix": True},
    ],
    "tools": [{"type": "function", "function": {"name": "weather"}}, {"name": "search"}, 3],
    "add_generation_prompt": False,
}


def found(name="engines-agree", path="jinja2 / minijinja", cause="other white space", **changes):
    """Return a finding: two engines whose texts differ in a blank."""
    shown = (
        Output(by="jinja2", text="<user>Hi. <end>\n<assistant>"),
        Output(by="minijinja", text="<user>Hi.<end>\n<assistant>"),
    )
    broken = Broken(name=name, path=path, cause=cause, message=cause, shown=changes.pop("shown", shown))
    if "message" in changes:
        broken = broken.model_copy(update={"message": changes.pop("message")})
    made = {
        "sentence": "all engines give the same text",
        "subjects": ("a.jinja", "b.jinja"),
        "inputs": 7,
        "example": {"messages": [{"role": "user", "content": "Hi. "}]},
        "subject": "b.jinja",
        "command": "harness fuzz template b.jinja --only engines-agree",
        "test": "def test_engines_agree():\n    assert look() == []\n",
    }
    return Finding(broken=broken, **{**made, **changes})


def ended(**changes):
    """Return a finding: an engine that ends with an error."""
    return found(
        name="renders",
        path="minijinja",
        cause="error UnknownMethod TEXT",
        message="error UnknownMethod 'strip'",
        shown=(Output(by="minijinja", error="UnknownMethod: strip"),),
        sentence="a conversation renders",
        subjects=("a.jinja",),
        subject="a.jinja",
        inputs=1,
        **changes,
    )


def search(*findings, **changes):
    """Return a report of these findings."""
    made = {
        "kind": "template",
        "subject": "templates",
        "facts": {"engines": "jinja2 3.1.6, minijinja 2.12.0", "seed": "0"},
        "properties": {
            "engines-agree": "all engines give the same text",
            "renders": "a conversation renders",
            "one-bos": "there is one BOS",
            "never": "it is seen",
        },
        "held": {"engines-agree": 1200, "renders": 2400, "one-bos": 1},
        "subjects": 3,
    }
    return FuzzReport(findings=findings, **{**made, **changes})


def small():
    """Return a report of two new root causes and one that a baseline holds."""
    return search(found(), ended(), found(cause="other text", known=True), ended=True, notes=("one template is empty",))


def clean():
    """Return a report in which nothing is broken."""
    return search(subjects=1)


def hostile():
    """Return a report in which everything is an attack."""
    text = SURROGATE
    example = {text: text, "messages": [{"role": text, "name": text, "content": text, text: text}], "tools": [text]}
    shown = (
        Output(by=text, text=text),
        Output(by=f"{text}2", text=f"{text}{text}"),
        Output(by=text, error=text),
    )
    changes = {"sentence": text, "subjects": (text, "b"), "subject": text, "command": text, "test": f"{text}\n{text}"}
    made = found(text, text, text, message=f"{text}!", shown=shown, example=example, **changes)
    known = made.model_copy(update={"known": True, "broken": made.broken.model_copy(update={"cause": f"{text}?"})})
    return FuzzReport(
        kind=text,
        subject=text,
        findings=(made, known),
        facts={text: text},
        properties={text: text},
        held={text: 1},
        subjects=2,
        notes=(text,),
    )


def many(count):
    """Return a report of so many root causes."""
    return search(*(found(cause=f"cause {at}") for at in range(count)))


def covering(text="{% if a %}", missed=1):
    """Return a report with the coverage of two templates, of one all."""
    points = tuple(Unreached(line=7, kind="else", text=text) for _ in range(missed))
    one = Covered(subject=text, by="conversations", points=missed + 3, missed=points)
    return search(coverage=(one, Covered(subject="b.jinja", by="goldens", points=1)))


def mutated(text="a\n", survivors=1, cases=2):
    """Return a report of mutants."""
    survivor = Tried(subject=text, kind="text-dropped", line=3, column=4, old=text, new="", told=True)
    kinds = (
        KindTried(
            kind="bos-dropped",
            sentence="No BOS.",
            tried=2,
            told=1,
            by_goldens=cases and 1,
            by_properties=1,
            survive=0,
        ),
        KindTried(
            kind="text-dropped",
            sentence="No text.",
            tried=1_000,
            told=3,
            by_goldens=0,
            by_properties=2,
            survive=survivors,
        ),
    )
    mutation = Mutation(
        made=4_000,
        kinds=kinds,
        survivors=(survivor,) * survivors,
        properties={"one-bos": 2, "renders": 1},
        cases=cases,
    )
    return search(mutation=mutation, properties={}, held={})
