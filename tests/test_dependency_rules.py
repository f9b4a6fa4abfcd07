"""The rules of ARCHITECTURE.md that a machine can hold."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT

HEAVY = ("llama_cpp", "transformers", "tokenizers", "torch", "gguf", "numpy", "pydantic", "rich")


def test_import_rules():
    run = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 broken" in run.stdout


def loaded_by(code: str) -> set[str]:
    """Return which of the heavy packages a fresh interpreter has loaded after the code."""
    script = f"import sys\n{code}\nprint(' '.join(name for name in {HEAVY!r} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split()) if run.stdout.strip() else set()


def test_the_package_and_the_plugin_load_nothing_heavy():
    assert loaded_by("import harness") == set()
    assert loaded_by("import harness.pytest_plugin") == set()


def test_help_loads_no_engine_and_no_reference():
    code = (
        "import contextlib, io\n"
        "from harness import cli\n"
        "sys.argv = ['harness', '--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    cli.main()"
    )
    assert loaded_by(code) <= {"rich"}


def test_the_public_interface_is_small_and_whole():
    import harness

    assert len(harness.__all__) < 25
    for name in harness.__all__:
        assert getattr(harness, name).__name__ == name
