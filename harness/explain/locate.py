"""Where in the network an engine's first wrong number is.

The engine shows what its nodes compute; the oracle computes each node again from the engine's own tensors before it, so
that an error shows where it is made and not all the way down. What a healthy engine is off at each node, by
quantizing activations and by the cache's type, is measured and stored beside the goldens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import RootModel

from harness.checking.compare.inference import Floor
from harness.checking.compare.outcome import Difference
from harness.checking.noise import floor_of, why_not_started
from harness.checking.running import RunningStack, open_stack
from harness.checking.verdict import Finding, Verdict, adding, seen_by
from harness.errors import UserError
from harness.llama.laboratory.invariants import check_invariants, open_engine
from harness.llama.laboratory.noise import floor_of_two
from harness.models.cache import remembered_sha256
from harness.project.cases import cases_for
from harness.project.documents import read_json
from harness.project.files import write_file
from harness.project.golden import Golden, beside_goldens, load_golden, load_provenance, model_folder
from harness.project.project import Project
from harness.project.stack import Stack, load_component, resolve_model
from harness.reference.oracle import Oracle
from harness.stage import Stage, StageFailedError, StageRefusedError, StageUnobservedError, Transparent
from harness.values import ModelRef, Value

NODES: Final = "nodes.json"
FACTOR: Final = 3.0
"""The limit over the largest error seen of a node: room for what was not measured. A choice."""
SMALLEST: Final = 1e-5
"""The limit below which none goes: float32 sums in another order."""
_PROMPTS: Final = 8
"""About how many prompts are measured: each gives a row for every token, of every node."""
_SHORT: Final = 48
"""And how many the invariants are tried on: each takes several runs."""
_TRIED: Final = 4
"""And how many prompts of a finding are looked at before saying that its nodes are right."""
LONGEST: Final = 128
"""How many ids of a prompt are looked at: the tensors of all nodes travel through a pipe."""
_UNMEASURED: Final = "the noise of its nodes was not measured"
_CANNOT: Final = "where in the network cannot be said: "
_LATER: Final = "its nodes are held where nothing else is wrong"

Errors = Mapping[str, NDArray[np.float64]]


class NodeNoise(RootModel[dict[str, dict[str, dict[str, float]]]]):
    """The largest error of a row of a healthy engine, by component, class of settings and node."""

    def limits(self, component: str, name: str) -> dict[str, float]:
        """Return the limits by node; of settings that were not measured, the loosest that were."""
        measured = self.root.get(component, {})
        classes = [measured[name]] if name in measured else list(measured.values())
        nodes = {node for one in classes for node in one}
        return {node: max(SMALLEST, FACTOR * max(one.get(node, 0.0) for one in classes)) for node in nodes}

    def optional(self, component: str, name: str) -> set[str]:
        """Return the nodes that an engine need not have: of settings that were not measured, what only some have."""
        measured = self.root.get(component, {})
        if name in measured or not measured:
            return set()
        kinds = measured.values()
        return {node for one in kinds for node in one if not all(node in other for other in kinds)}


class Location(Value):
    """The first node whose numbers do not follow from those before it.

    Attributes:
        node: Its name in llama.cpp's graph.
        layer: The layer; None outside of all.
        row: The first position of the prompt that is wrong there.
        rows: How many of its positions are.
        of: How many there are.
        error: The relative error of that row: the norm of the difference over the norm of what it should be.
        limit: What a healthy engine stays below at this node.
        elsewhere: How many other nodes are wrong by themselves.
    """

    node: str
    layer: int | None
    row: int
    rows: int
    of: int
    error: float
    limit: float
    elsewhere: int

    def describe(self) -> str:
        """Return one line for a human."""
        where = f"node {self.node}, token {self.row} of {self.of}"
        spread = f"{self.rows} of {self.of} tokens are wrong there" if self.rows > 1 else "the only one wrong there"
        more = f"; {self.elsewhere} other nodes are wrong by themselves" if self.elsewhere else ""
        size = "not a number" if not np.isfinite(self.error) else f"relative error {self.error:.2g}"
        healthy = f"a healthy engine's is below {self.limit:.2g}"
        return f"the first wrong number is at {where} ({size}, {healthy}; {spread}){more}"


class NodesLook(Value):
    """What a look at the nodes of a network says.

    Attributes:
        answer: `right`: every node whose limit is known was held and is within it; `wrong`: one is not; or
            `not looked at`, which clears nothing.
        why: Of what was not looked at, why.
        case: The case whose prompt was fed.
        place: Of what is wrong, where.
    """

    answer: Literal["right", "wrong", "not looked at"]
    why: str | None = None
    case: str | None = None
    place: Location | None = None


def _not_looked(why: str) -> NodesLook:
    return NodesLook(answer="not looked at", why=why)


def look(
    part: Transparent,
    oracle: Oracle,
    ids: Sequence[int],
    limits: Mapping[str, float],
    case: str | None = None,
    optional: Collection[str] = (),
) -> NodesLook:
    """Hold every node of a prompt that has a limit.

    Args:
        part: The engine.
        oracle: The model's reference.
        ids: The prompt.
        limits: By node.
        case: The case that it is of.
        optional: Nodes that the engine need not have.

    Raises:
        StageFailedError: the engine died.
        StageRefusedError: it does not take these ids.
        StageUnobservedError: its nodes cannot be read.
    """
    errors = local_errors(part, oracle, ids[:LONGEST])
    place = _first(errors, limits, min(len(ids), LONGEST))
    if place is not None:
        return NodesLook(answer="wrong", case=case, place=place)
    unseen = [node for node in limits if node not in optional and not len(errors.get(node, ()))]
    if unseen:
        more = f" and {len(unseen) - 1} more of {len(limits)} nodes" if len(unseen) > 1 else ""
        return _not_looked(f"the engine does not show node {unseen[0]}{more}")
    return NodesLook(answer="right", case=case)


def locate(part: Transparent, oracle: Oracle, ids: Sequence[int], limits: Mapping[str, float]) -> Location | None:
    """Return the first node that is wrong by itself; None where none is.

    Args:
        part: The engine.
        oracle: The model's reference.
        ids: A prompt.
        limits: By node.

    Raises:
        StageFailedError: the engine died.
        StageRefusedError: it does not take these ids.
    """
    return look(part, oracle, ids, limits).place


def _first(errors: Errors, limits: Mapping[str, float], length: int) -> Location | None:
    """Return the first node of a prompt of so many ids that is wrong by itself."""
    wrong = [
        (node, rows, limits[node])
        for node, rows in errors.items()
        if node in limits and not (rows <= limits[node]).all()
    ]
    if not wrong:
        return None
    node, rows, limit = wrong[0]
    bad = np.flatnonzero(~(rows <= limit))
    return Location(
        node=node,
        layer=int(node.rpartition("-")[2]) if "-" in node else None,
        row=int(bad[0]) + length - len(rows),
        rows=len(bad),
        of=length,
        error=float(rows[bad[0]]),
        limit=limit,
        elsewhere=len(wrong) - 1,
    )


def local_errors(part: Transparent, oracle: Oracle, ids: Sequence[int]) -> Errors:
    """Return the relative error of every row of every node that both know, each computed from the engine's own inputs.

    A row that is not a number has an infinite error; one that should be all zeros and is not, as well.
    """
    shown = part.activations(ids, oracle.node_names)
    strange = {node: np.full(1, np.inf) for node, rows in shown.items() if len(rows) > len(ids)}
    if strange:
        # It computes rows of which it was fed no ids.
        return strange
    expected = oracle.session().replay(ids, shown)
    found: dict[str, NDArray[np.float64]] = {}
    for node, should in expected.items():
        difference = np.linalg.norm(shown[node].astype(np.float64) - should, axis=1)
        size = np.linalg.norm(should.astype(np.float64), axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(difference == 0, 0.0, difference / size)
        found[node] = np.where(np.isnan(error), np.inf, error)
    return found


def measure(
    stack: Stack,
    model: ModelRef,
    goldens: Sequence[Golden],
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> dict[str, dict[str, float]]:
    """Return the largest error of a row by class of settings and node, over all healthy variations.

    Raises:
        UserError: the stack's engine cannot be looked into, or a healthy one gave what is not a number.
    """
    name = stack.stages.component(Stage.INFERENCE)
    oracle = Oracle.from_file(model.path)
    prompts = sorted({golden.tokens.ids[:LONGEST] for golden in goldens if golden.tokens is not None})
    prompts = prompts[:: max(1, len(prompts) // _PROMPTS)]
    found: dict[str, dict[str, float]] = {}
    for label, options in getattr(load_component(name), "variations", {}).items():
        with open_stack(stack.with_options(name, options), model) as running:
            part = running.part(Stage.INFERENCE)
            if why_not_started(part) is not None:
                # Unmeasured: the noise of what comes out says so.
                continue
            own = found.setdefault(part.noise_class(), {})
            if not isinstance(part, Transparent):
                raise UserError(f"the engine of stack {stack.name!r} cannot be looked into")
            for done, ids in enumerate(prompts):
                progress(f"nodes, {label}", done, len(prompts))
                for node, rows in local_errors(part, oracle, ids).items():
                    if not np.isfinite(rows).all():
                        raise UserError(f"node {node} of a healthy engine is not a number")
                    own[node] = max(own.get(node, 0.0), float(f"{rows.max():.3g}"))
    return found


def record_nodes(
    project: Project, stack: Stack, model: str, progress: Callable[[str, int, int], None] = lambda *_: None
) -> dict[str, dict[str, float]] | None:
    """Measure and store what the nodes of a healthy stack's engine are off; None where it cannot be looked into.

    Raises:
        UserError: a healthy engine gave what is not a number, or the file cannot be written.
    """
    component = stack.stages.component(Stage.INFERENCE)
    if not hasattr(load_component(component), "activations"):
        return None
    reference = resolve_model(project, model)
    provenance = load_provenance(project, reference)
    goldens = [load_golden(project, reference, case, provenance) for case in cases_for(project, model)]
    found = measure(stack, reference, goldens, progress)
    save(project, model, component, found)
    return found


def load_limits(project: Project, running: RunningStack) -> tuple[dict[str, float], set[str]]:
    """Return the limits of a running stack's engine by node, and the nodes that it need not have.

    Both are empty where none was measured.

    Raises:
        UserError: the file is wrong.
    """
    path = beside_goldens(project, running.model.name, NODES)
    if not path.is_file():
        return {}, set()
    part = running.part(Stage.INFERENCE)
    component = getattr(part, "noise_of", running.stack.stages.component(Stage.INFERENCE))
    noise, kind = read_json(path, NodeNoise), part.noise_class()
    return noise.limits(component, kind), noise.optional(component, kind)


def save(project: Project, model: str, component: str, noise: Mapping[str, Mapping[str, float]]) -> None:
    """Store a component's noise beside the goldens, and leave that of others as it is.

    Raises:
        UserError: it cannot be written.
    """
    before, path = beside_goldens(project, model, NODES), model_folder(project, model) / NODES
    known = read_json(before, NodeNoise).root if before.is_file() else {}
    text = json.dumps({**known, component: noise}, indent=2, sort_keys=True) + "\n"
    write_file(path, text.encode("utf-8"))


def _invariants(path: Path, ids: Sequence[int], floor: Floor | None) -> str:
    """Return what an engine of the same build, begun anew, does against what must hold of any, in one sentence."""
    child = open_engine(path)
    try:
        broken = check_invariants(child, ids[:_SHORT], floor)
    except StageFailedError as failed:
        return f"An engine of this build that is begun anew {failed.failure.describe()}"
    finally:
        child.close()
    if not broken:
        return "An engine of this build that is begun anew keeps its invariants (batches, sequences, cache, samplers)"
    return "An engine of this build that is begun anew breaks " + "; ".join(
        f"{one.invariant} ({one.what}: {one.message})" for one in broken
    )


def is_about_numbers(finding: Finding) -> bool:
    """Return whether a finding is that the engine computes wrong numbers."""
    # What an artifact's first wrong number is, nobody knows without the right file.
    is_engine = finding.stage is Stage.INFERENCE and finding.kind == "engine"
    return is_engine and bool({"numbers", "nan"} & set(finding.difference.causes))


def _finding(case: str, place: Location) -> Finding:
    summary = f"within the noise of what comes out, but {place.describe()}"
    return Finding(
        stage=Stage.INFERENCE,
        kind="engine",
        summary=summary,
        cases=(case,),
        example=case,
        difference=Difference(summary=summary, causes=(f"node\0{place.node}",), kind="engine"),
        evidence="nodes",
    )


def longest_prompt(goldens: Mapping[str, Golden]) -> str | None:
    """Return the case whose prompt is the longest of those that are looked at whole; None where there is none."""
    fitting = {
        name: len(golden.tokens.ids)
        for name, golden in goldens.items()
        if golden.tokens is not None and len(golden.tokens.ids) <= LONGEST
    }
    return max(fitting, key=lambda name: fitting[name], default=None)


class Locator:
    """Finds the first wrong number behind findings about an engine. The oracle is loaded when it is first needed.

    Args:
        project: Where the goldens are.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._oracles: dict[Path, Oracle] = {}

    def verdict(
        self, verdict: Verdict, running: RunningStack, goldens: Mapping[str, Golden], *, elsewhere: bool = False
    ) -> Verdict:
        """Return a verdict that says where in the network an engine's numbers begin to be wrong.

        Where nothing is convicted the nodes of one prompt are held all the same: what is wrong there may be too small
        to leave the noise of what comes out.

        Args:
            verdict: The verdict.
            running: The stack, still open.
            goldens: By case.
            elsewhere: The prompt that is held where nothing is convicted is not among these, but in another part of
                the run.
        """
        about = [finding for finding in verdict.findings if is_about_numbers(finding)]
        if not about:
            if verdict.stages[Stage.INFERENCE].status not in ("cleared", "inherits"):
                return verdict
            found = _not_looked(_LATER) if verdict.findings else self.look(running, goldens, elsewhere=elsewhere)
            if found.place is not None:
                verdict = adding(verdict, _finding(found.case or "", found.place))
            return seen_by(verdict, nodes=found.answer != "not looked at", why=found.why)
        anew = self._anew(running, goldens, about[0].cases)
        findings, places = [], []
        for finding in verdict.findings:
            place = self.located(running, goldens, finding.cases) if is_about_numbers(finding) else None
            said = ". ".join(one for one in (finding.location, place, anew) if one)
            findings.append(finding.model_copy(update={"location": said}) if place else finding)
            places.append(place or "")
        verdict = verdict.model_copy(update={"findings": tuple(findings)})
        looked = any(place and not place.startswith(_CANNOT) for place in places)
        why = next((place.removeprefix(_CANNOT) for place in places if place), "the engine shows no nodes")
        return seen_by(verdict, nodes=looked, why=why)

    def look(self, running: RunningStack, goldens: Mapping[str, Golden], *, elsewhere: bool = False) -> NodesLook:
        """Hold every node of one prompt.

        The prompt is the longest of those that are looked at whole: some errors strike long ones only.

        Args:
            running: The stack, still open.
            goldens: By case.
            elsewhere: The prompt that is held is in another part of the run.
        """
        part = running.part(Stage.INFERENCE)
        case = longest_prompt(goldens)
        if not isinstance(part, Transparent):
            return _not_looked(f"the engine of {running.stack.stages.component(Stage.INFERENCE)} shows no nodes")
        if elsewhere:
            return _not_looked("they are held with the longest prompt of the run, which is another case's")
        if case is None:
            return _not_looked(f"no case has a prompt of at most {LONGEST} ids")
        if remembered_sha256(running.model.path) != running.model.sha256:
            return _not_looked("the limits of nodes were measured with the golden's file, and another one is served")
        tokens = goldens[case].tokens
        assert tokens is not None
        try:
            limits, optional = load_limits(self._project, running)
            if not limits:
                return _not_looked(_UNMEASURED)
            return look(part, self._oracle(running.model.path), tokens.ids, limits, case, optional)
        except StageUnobservedError as unseen:
            return _not_looked(unseen.unobserved.reason)
        except (StageFailedError, StageRefusedError) as ended:
            return _not_looked(f"when its nodes are watched, the engine ends: {ended}")
        except UserError as error:
            return _not_looked(str(error))

    def located(self, running: RunningStack, goldens: Mapping[str, Golden], cases: Sequence[str]) -> str | None:
        """Return where the first wrong number of one of these cases is, in one line; None where nobody can say.

        Args:
            running: The stack, still open.
            goldens: By case.
            cases: Those that show it.
        """
        return next(self._places(running, goldens, cases), None)

    def _anew(self, running: RunningStack, goldens: Mapping[str, Golden], cases: Sequence[str]) -> str | None:
        """Return what an engine begun anew does on the first of these cases that has tokens."""
        tokens = next((one for case in cases if (one := goldens[case].tokens) is not None), None)
        if tokens is None or not isinstance(running.part(Stage.INFERENCE), Transparent):
            return None
        return _invariants(running.model.path, tokens.ids, floor_of_two(floor_of(self._project, running)))

    def _places(self, running: RunningStack, goldens: Mapping[str, Golden], cases: Sequence[str]) -> Iterator[str]:
        part = running.part(Stage.INFERENCE)
        if not isinstance(part, Transparent):
            return
        limits, _ = load_limits(self._project, running)
        if not limits:
            yield f"{_CANNOT}{_UNMEASURED}"
            return
        try:
            oracle = self._oracle(running.model.path)
        except UserError as error:
            yield f"{_CANNOT}{error}"
            return
        known = [tokens for case in cases if (tokens := goldens[case].tokens) is not None]
        looked = 0
        for tokens in known[:_TRIED]:
            try:
                place = locate(part, oracle, tokens.ids, limits)
            except (StageFailedError, StageRefusedError):
                continue
            except StageUnobservedError as unseen:
                yield f"{_CANNOT}{unseen.unobserved.reason}"
                return
            looked += 1
            if place is not None:
                yield place.describe()
        if not looked:
            yield f"{_CANNOT}the engine ends when its nodes are watched"
            return
        yield "every node follows from those before it: the error is made after the network, or not on these prompts"

    def _oracle(self, path: Path) -> Oracle:
        if path not in self._oracles:
            self._oracles[path] = Oracle.from_file(path)
        return self._oracles[path]
