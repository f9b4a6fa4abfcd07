"""Defects of what a template is given, of its source, of Jinja's environment and of the text that comes of it."""

from __future__ import annotations

from typing import Any

from harness.defects.defect import defect


@defect(
    "tpl-generation-prompt-lost",
    place="part",
    stage="template",
    kind="integration",
    component="llama-cpp-python",
    sentence="The formatter renders without add_generation_prompt: the assistant's turn is never opened.",
    cause="API usage",
)
def generation_prompt_lost(engine: Any) -> None:
    """Switch the generation prompt off in the formatter."""
    engine.formatter.add_generation_prompt = False
