"""The look at nodes answers one of three, and a verdict says how inference was seen. The engine is made up."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from harness.checking.verdict import Seen, Verdict
from harness.errors import UserError
from harness.explain import locate
from harness.explain.locate import LONGEST, Locator, NodeNoise, NodesLook, look
from harness.project.project import Project
from harness.report.console import render_verdict
from harness.report.html import to_html
from harness.report.markdown import to_markdown
from harness.stage import Stage, StageFailedError, StageUnobservedError
from harness.values import Failure
from tests.made import golden, trace, verdict
from tests.report.sheets import clean

LIMITS = {"embd": 0.1, "l_out-0": 0.1}
IDS = (5, 6, 7)


class Part:
    """An engine of two nodes, or one that ends otherwise when it is looked into."""

    def __init__(self, shown: Any) -> None:
        self._shown = shown

    def watch(self) -> None:
        pass

    def noise_class(self) -> str:
        return "a class"

    def activations(self, ids: Any, names: Any) -> Any:
        if isinstance(self._shown, Exception):
            raise self._shown
        return {name: np.array(rows, np.float32) for name, rows in self._shown.items() if name in names}


class Oracle:
    """Every node must be ones, wherever the engine has it."""

    node_names = ("embd", "l_out-0")

    def session(self) -> Oracle:
        return self

    def replay(self, ids: Any, shown: Any) -> Any:
        del ids
        return {name: np.ones_like(rows) for name, rows in shown.items()}


GOOD = {"embd": np.ones((3, 2)), "l_out-0": np.ones((1, 2))}
BAD = {"embd": np.ones((3, 2)), "l_out-0": np.zeros((1, 2))}


def test_right_is_that_every_node_was_held():
    assert look(Part(GOOD), Oracle(), IDS, LIMITS, "greeting") == NodesLook(answer="right", case="greeting")


def test_wrong_has_a_place():
    found = look(Part(BAD), Oracle(), IDS, LIMITS, "greeting")
    assert (found.answer, found.case, found.why) == ("wrong", "greeting", None)
    assert found.place is not None
    assert (found.place.node, found.place.row, found.place.of) == ("l_out-0", 2, 3)


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        ({}, "the engine does not show node embd and 1 more of 2 nodes"),
        ({"embd": GOOD["embd"]}, "the engine does not show node l_out-0"),
        ({"embd": GOOD["embd"], "l_out-0": np.ones((0, 2))}, "the engine does not show node l_out-0"),
    ],
)
def test_nodes_that_are_not_shown_are_not_right(shown, why):
    assert look(Part(shown), Oracle(), IDS, LIMITS) == NodesLook(answer="not looked at", why=why)


def test_what_only_other_settings_compute_need_not_be_shown():
    noise = NodeNoise.model_validate({"made": {"plain": {"kq": 1.0, "embd": 1.0}, "flash": {"embd": 1.0}}})
    assert noise.optional("made", "flash") == noise.optional("made", "plain") == set()
    assert noise.optional("made", "never measured") == {"kq"}
    assert look(Part(GOOD), Oracle(), IDS, {**LIMITS, "kq": 1.0}, None, {"kq"}).answer == "right"


@pytest.fixture
def told(monkeypatch, tmp_path):
    """Return what the locator makes of a clean verdict on a made-up stack."""

    def tell(part: Any, *, ids: int = 3, limits: Any = LIMITS, oracle: Any = None, sha256: str = "aa") -> Verdict:
        seen = golden()
        tokens = None if not ids else seen.tokens.model_copy(update={"ids": tuple(range(ids)), "pieces": ("",) * ids})
        seen = seen.model_copy(update={"tokens": tokens})
        monkeypatch.setattr(locate, "remembered_sha256", lambda path: "aa")
        monkeypatch.setattr(locate, "load_limits", lambda *_: (limits, set()))

        def read(path: Any) -> Any:
            del path
            if isinstance(oracle, Exception):
                raise oracle
            return Oracle()

        monkeypatch.setattr(locate.Oracle, "from_file", read)
        running = SimpleNamespace(
            part=lambda stage: part,
            model=SimpleNamespace(path=tmp_path, sha256=sha256, name="tiny"),
            stack=SimpleNamespace(stages=SimpleNamespace(component=lambda stage: "made")),
        )
        found = verdict((golden(), trace(golden())))
        assert found.status == "clean"
        return Locator(Project(tmp_path)).verdict(found, running, {"greeting": seen})

    return tell


def test_a_clean_verdict_says_that_its_nodes_were_held(told):
    found = told(Part(GOOD))
    assert found.line == "clean: five stages cleared, 5 comparisons in 1 case; inference by outputs and nodes"
    inference = found.stages[Stage.INFERENCE]
    assert inference.seen == Seen(by="outputs and nodes")
    assert inference.why.endswith("; seen by outputs and nodes")
    assert [stage for stage, said in found.stages.items() if said.seen] == [Stage.INFERENCE]
    assert Verdict.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("part", "given", "why"),
    [
        (object(), {}, "the engine of made shows no nodes"),
        (Part(GOOD), {"ids": 0}, f"no case has a prompt of at most {LONGEST} ids"),
        (Part(GOOD), {"ids": LONGEST + 1}, f"no case has a prompt of at most {LONGEST} ids"),
        (
            Part(GOOD),
            {"sha256": "bb"},
            "the limits of nodes were measured with the golden's file, and another one is served",
        ),
        (Part(GOOD), {"limits": {}}, "the noise of its nodes was not measured"),
        (Part(GOOD), {"oracle": UserError("no architecture 'mamba'")}, "no architecture 'mamba'"),
        (Part(StageUnobservedError("the layout is another one")), {}, "the layout is another one"),
        (
            Part(StageFailedError(Failure(reason="crash", signal="SIGSEGV"))),
            {},
            "when its nodes are watched, the engine ends: died by SIGSEGV",
        ),
        (Part({}), {}, "the engine does not show node embd and 1 more of 2 nodes"),
    ],
)
def test_a_clean_verdict_says_why_its_nodes_were_not_looked_at(told, part, given, why):
    found = told(part, **given)
    assert found.status == "clean"
    assert found.line == "clean: five stages cleared, 5 comparisons in 1 case; inference by outputs only"
    inference = found.stages[Stage.INFERENCE]
    assert inference.seen == Seen(by="outputs only", why=why)
    assert inference.why.endswith(f"; seen by outputs only ({why})")


def test_a_wrong_node_convicts(told):
    found = told(Part(BAD))
    assert found.status == "convicted"
    (finding,) = found.findings
    assert (finding.stage, finding.evidence, finding.cases) == (Stage.INFERENCE, "nodes", ("greeting",))
    assert "node l_out-0, token 2 of 3" in finding.summary
    assert found.stages[Stage.INFERENCE].seen == Seen(by="outputs and nodes")


def test_every_report_says_it(told):
    found = told(Part(GOOD), limits={})
    console = Console(width=300, file=io.StringIO())
    with console.capture() as captured:
        console.print(render_verdict(found))
    sheet = clean().model_copy(update={"stages": found.stages, "line": found.line})
    says = "seen by outputs only (the noise of its nodes was not measured)"
    assert says in captured.get()
    assert says in to_markdown([sheet]).replace("&#40;", "(").replace("&#41;", ")")
    assert says in to_html([sheet])
