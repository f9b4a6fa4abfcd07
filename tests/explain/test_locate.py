"""Where the first wrong number of a network is, in the real engine hurt at a known place."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest

from harness.checking.opened import open_session
from harness.components.llama_cpp_python import LlamaCppPython
from harness.explain.locate import Location, Locator, NodeNoise, local_errors, locate
from harness.llama import layout
from harness.llama.ggml import Watcher, float_parameters, rows_of
from harness.llama.layout import ROPE_FREQ_BASE, Tensor
from harness.project.project import Project
from harness.reference.oracle import Oracle
from harness.stage import Stage
from tests.components.test_llama_cpp_python import IDS

HERE = "tests.explain.test_locate"


@pytest.fixture(scope="module")
def oracle(smollm) -> Oracle:
    return Oracle.from_file(smollm.path)


@pytest.fixture(scope="module")
def limits(project) -> dict[str, float]:
    text = (project.golden / "smollm2-135m-instruct" / "nodes.json").read_text(encoding="utf-8")
    return NodeNoise.model_validate_json(text).limits("llama-cpp-python", "cache f16/f16, no flash attention")


@pytest.fixture
def part(engine, smollm) -> Iterator[LlamaCppPython]:
    with LlamaCppPython(smollm, {"n_ctx": 512, "n_threads": 1, "n_threads_batch": 1}) as opened:
        yield opened


def scaled_output(engine):
    """Make one row of a layer's feed-forward output 1.5 times as large."""

    def scale(tensor):
        rows = rows_of(tensor, len(IDS))
        rows[9] *= 1.5

    engine.nodes.watchers.append(Watcher(lambda name, op: (name, op) == ("ffn_out-7", "MUL_MAT"), after=scale))


def other_rotation(engine):
    """Rotate the keys of one layer by another base."""

    def edit(tensor):
        float_parameters(tensor)[ROPE_FREQ_BASE] = 2.0

    engine.nodes.watchers.append(Watcher(lambda name, op: (name, op) == ("Kcur-12", "ROPE"), before=edit))


def lost_value(engine):
    """Lose one number of what attention gives."""

    def lose(tensor):
        rows_of(tensor, len(IDS))[20:, 5] = np.nan

    engine.nodes.watchers.append(Watcher(lambda name, op: (name, op) == ("attn_out-3", "MUL_MAT"), after=lose))


@pytest.mark.parametrize(
    ("hook", "node", "layer", "row", "rows"),
    [
        ("scaled_output", "ffn_out-7", 7, 9, 1),
        # At position 0 nothing is rotated.
        ("other_rotation", "Kcur-12", 12, 1, len(IDS) - 1),
        ("lost_value", "attn_out-3", 3, 20, len(IDS) - 20),
    ],
)
def test_the_first_wrong_number_is_named(part, oracle, limits, hook, node, layer, row, rows):
    part.plant(f"{HERE}:{hook}")
    found = locate(part, oracle, IDS, limits)
    assert found is not None
    assert (found.node, found.layer, found.row, found.of) == (node, layer, row, len(IDS))

    assert found.rows == rows
    assert node in found.describe()
    assert f"token {row} of {len(IDS)}" in found.describe()


@pytest.mark.parametrize("options", [{}, {"n_batch": 8}, {"n_ubatch": 4}, {"flash_attn": True}, {"type_k": "f32"}])
def test_a_healthy_engine_has_none(engine, smollm, project, oracle, options):
    text = (project.golden / "smollm2-135m-instruct" / "nodes.json").read_text(encoding="utf-8")
    with LlamaCppPython(smollm, {"n_ctx": 512, "n_threads": 1, "n_threads_batch": 1, **options}) as part:
        limits = NodeNoise.model_validate_json(text).limits("llama-cpp-python", part.noise_class())
        assert locate(part, oracle, IDS, limits) is None


def test_every_node_of_every_layer_is_held_against_the_oracle(part, oracle, limits):
    errors = local_errors(part, oracle, IDS)
    assert set(errors) == set(oracle.node_names) == set(limits)
    assert all(len(rows) in (1, len(IDS)) for rows in errors.values())
    # Sums of what is given are exact; what goes through quantized activations is not.
    assert errors["ffn_inp-3"].max() == 0
    assert 1e-4 < errors["ffn_out-3"].max() < limits["ffn_out-3"]


def hurt(running):
    running.part(Stage.INFERENCE).plant("harness.defects.catalogue.operators:rope_base", watches_nodes=True)


def test_a_finding_about_the_engine_says_where(project, real_stack, smollm):
    with open_session(project, real_stack, smollm, ["system-and-user"], prepare=hurt) as session:
        verdict = session.verdict(session.results("system-and-user"))
        told = Locator(project).verdict(verdict, session.running, session.goldens)
    (finding,) = told.findings
    assert finding.location.startswith("the first wrong number is at node Kcur-0, token ")
    assert finding.model_copy(update={"location": None}) == verdict.findings[0]


def test_without_measured_noise_it_says_so(project, real_stack, smollm, tmp_path):
    with open_session(project, real_stack, smollm, ["system-and-user"], prepare=hurt) as session:
        verdict = session.verdict(session.results("system-and-user"))
        told = Locator(Project(tmp_path)).verdict(verdict, session.running, session.goldens)
    says = "where in the network cannot be said: the noise of its nodes was not measured. "
    assert told.findings[0].location.startswith(says)


def another_layout(engine):
    """Have tensors begin with a field that the library does not have, as another release's might."""
    fields = [("more", ctypes.c_void_p), *Tensor._fields_]
    layout.Tensor = type("Tensor", (ctypes.Structure,), {"_fields_": fields})
    layout.why_unreadable.cache_clear()


def test_with_another_layout_of_tensors_the_verdict_rests_on_outputs_only(project, real_stack, smollm):
    def prepare(running):
        running.part(Stage.INFERENCE).plant(f"{HERE}:another_layout")

    with open_session(project, real_stack, smollm, ["system-and-user"], prepare=prepare) as session:
        told = Locator(project).verdict(
            session.verdict(session.results("system-and-user")), session.running, session.goldens
        )
    assert told.line.endswith("; inference by outputs only")
    seen = told.stages[Stage.INFERENCE].seen
    assert seen.why.startswith("the layout of ggml_tensor in llama-cpp-python ")
    assert "(field `type` holds something else): the network cannot be looked into" in seen.why


def test_what_is_said_of_a_place():
    place = Location(node="l_out-3", layer=3, row=4, rows=1, of=20, error=float("inf"), limit=0.1, elsewhere=2)
    assert place.describe() == (
        "the first wrong number is at node l_out-3, token 4 of 20 (not a number, a healthy engine's is below 0.1; "
        "the only one wrong there); 2 other nodes are wrong by themselves"
    )
