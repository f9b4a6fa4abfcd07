"""Which model file a part really has, and what it differs in from the golden's.

What a stack names is not always what is served: a component's options, a server that runs already or a program around
the real one may have another file. So the part itself is asked where it can tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.checking.running import FILE, RunningStack
from harness.errors import UserError
from harness.models.cache import remembered_sha256
from harness.models.file_difference import FileDifference
from harness.stage import Stage, StageFailedError, StageRefusedError, StageUnobservedError, TellsFile

SHOWN: Final = 12
"""How much of a hash is shown."""
SERVED: Final = "served file"
"""How a note on another file begins."""
_TEMPLATE: Final = "tokenizer.chat_template"
_VOCABULARY: Final = "tokenizer."


@dataclass(frozen=True)
class OtherFile:
    """A file that a component has and that is not the golden's.

    Attributes:
        component: Its name.
        stages: The stages that it performs.
        path: The file.
        digest: Its SHA-256; empty where it cannot be read here.
        golden: The SHA-256 that it should have.
    """

    component: str
    stages: tuple[Stage, ...]
    path: Path
    digest: str
    golden: str

    def describe(self) -> str:
        """Return one line, without what differs."""
        which = f"SHA-256 {self.digest[:SHOWN]}..." if self.digest else "it cannot be read here"
        return (
            f"{self.component} serves {self.path.name}, which is not the golden's file ({which} instead of "
            f"{self.golden[:SHOWN]}...)"
        )


def given_file(running: RunningStack, stage: Stage) -> Path:
    """Return the model file that a stage's part was given."""
    own = running.stack.options.get(running.stack.stages.component(stage), {}).get(FILE)
    return running.model.path if own is None else Path(own)


def told_file(running: RunningStack, stage: Stage) -> Path | None:
    """Return the model file that a stage's part has, as it tells itself; None where it does not."""
    part = running.part(stage)
    if not isinstance(part, TellsFile):
        return None
    try:
        return part.model_file()
    except (StageFailedError, StageRefusedError, StageUnobservedError, UserError):
        return None


def served_file(running: RunningStack, stage: Stage) -> Path:
    """Return the model file that a stage's part has: where it does not tell, the one that it was given."""
    return told_file(running, stage) or given_file(running, stage)


def other_files(running: RunningStack) -> Iterator[OtherFile]:
    """Yield the files that are not the golden's, one a component."""
    golden = running.golden_model.sha256
    stages_of: dict[str, tuple[Stage, ...]] = {}
    for stage in Stage:
        if stage is not Stage.CLIENT:
            name = running.stack.stages.component(stage)
            stages_of[name] = (*stages_of.get(name, ()), stage)
    for name, stages in stages_of.items():
        path = served_file(running, stages[0])
        try:
            digest = remembered_sha256(path)
        except OSError:
            digest = ""
        if digest != golden:
            yield OtherFile(name, stages, path, digest, golden)


def by_stage(found: FileDifference, stages: tuple[Stage, ...]) -> dict[Stage, FileDifference]:
    """Return what a file differs in by the stage that it is for, of a component that performs these stages.

    What is for none of them, and a file that says the same in other bytes, is told of the last stage but the reply's
    that the component performs.
    """
    parts = {
        Stage.TEMPLATE: FileDifference(tuple(key for key in found.keys if _stage_of(key) is Stage.TEMPLATE), ()),
        Stage.TOKENIZATION: FileDifference(tuple(k for k in found.keys if _stage_of(k) is Stage.TOKENIZATION), ()),
        Stage.INFERENCE: FileDifference(
            tuple(key for key in found.keys if _stage_of(key) is Stage.INFERENCE), found.tensors
        ),
    }
    mine = {stage: part for stage, part in parts.items() if stage in stages and (part.keys or part.tensors)}
    last = [stage for stage in stages if stage is not Stage.POSTPROCESS][-1:] or stages[-1:]
    return mine or {last[-1]: found}


def _stage_of(key: str) -> Stage:
    if key.startswith(_TEMPLATE):
        return Stage.TEMPLATE
    return Stage.TOKENIZATION if key.startswith(_VOCABULARY) else Stage.INFERENCE
