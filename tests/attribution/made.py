"""A bench that was made up: eleven defects of which each came to another end, two pairs and four controls."""

from harness.attribution.results import Conviction, Setup, Trial
from harness.defects.defect import Defect, Place
from harness.stage import Stage

OURS = "harness.defects.catalogue.template:function"
STAGES = {
    "body": Stage.CLIENT,
    "request": Stage.TEMPLATE,
    "source": Stage.TEMPLATE,
    "environment": Stage.TEMPLATE,
    "prompt": Stage.TEMPLATE,
    "ids": Stage.TOKENIZATION,
    "answer": Stage.POSTPROCESS,
}


def defect(name, place, **more):
    """Return a defect at a place; elsewhere than at a boundary its stage is the engine's."""
    stage = STAGES.get(place, Stage.INFERENCE)
    kind = "integration" if place in STAGES else "engine"
    labels = {"stage": stage, "kind": kind, "sentence": f"What {name} does.", "hook": OURS, **more}
    return Defect(id=name, place=Place(place), **labels)


def convicted(stage, kind="integration", cases=("a",)):
    return Conviction(stage=stage, kind=kind, summary="it differs", evidence="isolated", cases=cases)


def trial(name, *convictions, **more):
    """Return a trial with its convictions; without one the stack is called clean."""
    status = "convicted" if convictions else "clean"
    made = {
        "name": name,
        "stack": "stack",
        "model": "tiny",
        "defects": () if name.startswith("control") else tuple(name.split("+")),
        "status": status,
        "line": f"{status}: {name}",
        "convictions": convictions,
        "comparisons": 10,
        "seconds": 2.0,
        **more,
    }
    return Trial(**made)


SETUP = Setup(stack="stack", models=("tiny",), shallow={"tiny": ("a", "b", "c")}, deep={"tiny": ("d",)}, names=())

DEFECTS = {
    one.id: one
    for one in (
        defect("right", "prompt", references=("owner/name#12", "a word on it")),
        defect("touching", "ids", touches=(Stage.TEMPLATE,)),
        defect("blaming", "prompt", cause="API usage"),
        defect("kind", "body"),
        defect("swap", "part"),
        defect("stage", "answer", symptom="crash"),
        defect("missed", "ids"),
        defect("chain", "part", symptom="hang"),
        defect("nothing", "answer"),
        defect("nowhere", "environment"),
        defect("raising", "ids", hook="/home/me/own.py:raising"),
        defect("leaking", "body", hook="/home/me/own.py:leaking"),
    )
}

TRIALS = (
    trial(
        "right",
        convicted(Stage.TEMPLATE),
        changed=(Stage.TEMPLATE,),
        chained=(Stage.TEMPLATE, Stage.TOKENIZATION),
        by_stage={Stage.TEMPLATE: ("a", "d")},
        answers=("d",),
    ),
    trial("touching", convicted(Stage.TOKENIZATION), changed=(Stage.TOKENIZATION,), answers=("d",)),
    trial("control tiny one thread", setting="one thread"),
    trial(
        "blaming",
        convicted(Stage.TEMPLATE),
        convicted(Stage.INFERENCE, "engine"),
        changed=(Stage.TEMPLATE,),
    ),
    trial("kind", convicted(Stage.CLIENT, "environment"), changed=(Stage.CLIENT,)),
    # Of two convictions of the first stage the verdict's line names the one in more cases.
    trial(
        "swap",
        convicted(Stage.INFERENCE, "engine"),
        convicted(Stage.INFERENCE, "integration", ("a", "b")),
        changed=(Stage.INFERENCE,),
    ),
    trial("stage", convicted(Stage.CLIENT), changed=(Stage.POSTPROCESS,)),
    trial("control tiny flash", convicted(Stage.INFERENCE, "engine"), setting="flash"),
    trial("missed", changed=(Stage.TOKENIZATION,), answers=("d",)),
    trial("chain", convicted(Stage.INFERENCE, "engine"), chained=(Stage.INFERENCE,)),
    trial("nothing"),
    trial("nowhere", ended="no place", why="there is no such place", status="none", line=""),
    trial("raising", ended="raised", why="ValueError: no", status="none", line=""),
    trial("leaking", ended="leaks", why="the clean stack after it is another: client"),
    trial("control tiny 0", status="unjudged", line="unjudged: inference was not seen"),
    trial("control tiny 1"),
    trial("right+missed", convicted(Stage.TEMPLATE), convicted(Stage.TOKENIZATION), changed=(Stage.TEMPLATE,)),
    trial("missed+right", convicted(Stage.TOKENIZATION), changed=(Stage.TEMPLATE,)),
    trial("kind+right", convicted(Stage.CLIENT), changed=(Stage.CLIENT,)),
    trial("kind+missed", convicted(Stage.INFERENCE, "engine"), changed=(Stage.CLIENT,)),
    trial("kind+swap", changed=(Stage.CLIENT,)),
    trial("kind+stage"),
    trial("kind+chain", ended="raised", why="no", status="none", line=""),
)
