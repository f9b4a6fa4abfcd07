"""Results that are published: what benches of several stacks say, in one file from which documents are written."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from pydantic import Field

from harness.attribution.summary import Summary
from harness.project.documents import read_json
from harness.project.files import write_file
from harness.values import Value

_FOLDER = re.compile(re.escape(tempfile.gettempdir()) + r"/harness-[^/\"\s]*/")


class Published(Value):
    """Published results.

    Attributes:
        stacks: What each stack's bench says, by the stack's name.
    """

    stacks: dict[str, Summary] = Field(default_factory=dict)


def load_published(path: Path) -> Published:
    """Read published results.

    Raises:
        UserError: they are not there, or are damaged.
    """
    return read_json(path, Published)


def publish(path: Path, summary: Summary) -> None:
    """Put what a bench says in the place of what its stack's last one said.

    Raises:
        UserError: the file is damaged, or cannot be written.
    """
    before = load_published(path).stacks if path.exists() else {}
    stacks = {**before, summary.stack: summary}
    write_file(path, _written({name: stacks[name] for name in sorted(stacks)}).encode("utf-8"))


def _written(stacks: dict[str, Summary]) -> str:
    """Return results as JSON with a line a field and a line a defect, so that two of them can be compared by line."""
    parts = []
    for name, summary in stacks.items():
        fields = []
        for field, value in summary.model_dump(mode="json").items():
            rows = value if field in ("defects", "pairs", "stages", "places", "symptoms", "causes") else None
            lines = json.dumps(value) if not rows else "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]"
            fields.append(f"{json.dumps(field)}: {lines}")
        parts.append(f"{json.dumps(name)}: {{\n" + ",\n".join(fields) + "\n}")
    # A copy of a model that did not load was in a folder of its own, which is nobody's business.
    return _FOLDER.sub("", '{"stacks": {\n' + ",\n".join(parts) + "\n}}\n")
