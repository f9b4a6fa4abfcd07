"""An engine against its own past: the same bits are the same, and the first node with others is named."""

from __future__ import annotations

import shutil

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.components.llama_cpp_python import LlamaCppPython
from harness.explain.checksums import Change, checksums, compared
from harness.models.gguf import read_model_file
from harness.reference.model_config import ModelConfig
from harness.reference.nodes import node_names
from tests.components.test_llama_cpp_python import IDS

OPTIONS = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1}


def test_a_change_of_one_layer_is_named_and_the_same_engine_has_none(engine, smollm):
    names = node_names(ModelConfig.from_model_file(read_model_file(smollm.path)))
    with LlamaCppPython(smollm, OPTIONS) as part:
        past = checksums(part, names, IDS)
        assert compared("c", past, checksums(part, names, IDS)) is None
        part.plant("tests.explain.test_locate:scaled_output")
        found = compared("c", past, checksums(part, names, IDS))
    assert found is not None
    assert (found.node, found.row, found.of) == ("ffn_out-7", 9, len(names))
    # All that is computed from it, and nothing before.
    assert found.nodes == len(names) - names.index("ffn_out-7")
    assert "token 9 is the first with other bits" in found.describe()


def test_a_row_that_differs_late_is_found():
    past = {"embd": "aaaabbbb", "l_out-0": "ccccdddd", "result_output": "eeee"}
    seen = {**past, "l_out-0": "cccc0000", "result_output": "ffff"}
    assert compared("c", past, seen) == Change(case="c", node="l_out-0", row=1, nodes=2, of=3)
    assert compared("c", {}, seen).node == "embd"


@pytest.mark.usefixtures("engine")
def test_the_command_records_compares_and_tells(project, tmp_path):
    for part in ("stacks", "golden"):
        shutil.copytree(project.root / part, tmp_path / part)
    call = ["record", "smollm2-135m-instruct", "--checksums", "llama-cpp-python", "--project", str(tmp_path)]
    first = CliRunner().invoke(app, call)
    assert (first.exit_code, first.stdout.strip()) == (
        1,
        "nothing was recorded of this engine in these settings (--approve new)",
    )
    written = CliRunner().invoke(app, [*call, "--approve", "new"])
    assert written.exit_code == 0, written.output
    again = CliRunner().invoke(app, call)
    assert (again.exit_code, again.stdout.strip()) == (0, "every node computes the bits that were recorded")
    refused = CliRunner().invoke(app, [*call[:3], "llama-server", *call[4:]])
    assert refused.exit_code == 2
