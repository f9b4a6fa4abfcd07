"""The search over groups of tokenizers, each group in one child process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from pydantic import Field

from harness.errors import UserError, unknown_name
from harness.fuzz.finding import Broken, Finding, Output, merged
from harness.fuzz.tokenizer.journal import Journal
from harness.fuzz.tokenizer.properties import PROPERTIES
from harness.fuzz.tokenizer.scans import CONTROLS, PIECES, ROLES
from harness.process.worker import RemoteError, Worker, WorkerDiedError
from harness.values import Failure, Json, Value

Progress = Callable[[str, int, int], None]
"""Told the group, and how many of how many texts are tried."""

_TARGET = "harness.fuzz.tokenizer.child:Laboratory"
_MEMORY = 8 << 30
"""Bytes: three tokenizers of 250,000 ids need less than 2 GB."""
_GRACE = 300.0
"""Seconds that loading and the longest single text may take beside the budget."""
_SCAN = 120.0
"""Seconds that a vocabulary's entries may take."""
_LONGEST = 24 * 3600.0
_DEATHS = 3
"""After how many texts that end the process a group is left."""
_ALIVE = "a tokenizer answers every text and every vocabulary without ending its process"
_SENTENCES = {"pieces": PIECES, "controls": CONTROLS, "roles": ROLES, "alive": _ALIVE}


_OF_THE_CALLER = (
    *("UserError", "ModelFileError", "MissingPackageError"),
    *("ImportError", "ModuleNotFoundError", "FileNotFoundError", "ValueError"),
)
"""Errors of the child that a wrong path, a missing package or a bad file gives."""


class Part(Value):
    """A tokenizer of a group.

    Attributes:
        path: The import path of its class.
        name: Its name in the findings; None for its own.
        keywords: What it is made with.
        over: Made over a file of this form with the vocabulary of the group's first part, as the keyword `path`.
    """

    path: str
    name: str | None = None
    keywords: Json = Field(default_factory=dict)
    over: Literal["gguf", "json"] | None = None


class Group(Value):
    """Tokenizers that must agree. The first is the model's own definition where there is one.

    Attributes:
        name: What the findings are of.
        parts: The tokenizers.
    """

    name: str
    parts: tuple[Part, ...] = Field(min_length=1)


class Statistics(Value):
    """What a group's search came to.

    Attributes:
        group: Its name.
        versions: Each tokenizer's name and version, by its name.
        inputs: How many different texts were tried.
        held: On how many of them each property was judged, by name.
        ended: Whether the time was over before the examples were.
        classes: By tokenizer, how many entries of its vocabulary there are of each class (`scans.entries`).
        drift: By tokenizer, the share of random streams of ids whose text has other ids.
    """

    group: str
    versions: dict[str, str] = Field(default_factory=dict)
    inputs: int = 0
    held: dict[str, int] = Field(default_factory=dict)
    ended: bool = False
    classes: dict[str, dict[str, int]] = Field(default_factory=dict)
    drift: dict[str, float] = Field(default_factory=dict)


def fuzz_tokenizers(
    groups: Sequence[Group],
    texts: str,
    *,
    only: Sequence[str] = tuple(PROPERTIES),
    examples: int,
    number: int,
    seconds: float | None = None,
    replayed: Sequence[str] = (),
    scans: bool = True,
    progress: Progress = lambda *_: None,
) -> tuple[list[Finding], list[Statistics]]:
    """Search for texts on which tokenizers break properties, and make each root cause's example small.

    Args:
        groups: What is held against each other.
        texts: The import path of what makes a strategy for texts, given the keyword `tokenizer`: the group's first.
        only: The properties' names.
        examples: How many texts are made up for each group; 0 for none.
        number: The seed.
        seconds: The time budget of each group; None for none.
        replayed: Texts that are tried first.
        scans: Whether the whole vocabularies are asked too.
        progress: Told how far it is, from another thread.

    Returns:
        The findings, one for each root cause, and each group's statistics.

    Raises:
        UserError: a property has no such name, or a tokenizer cannot be made.
    """
    wrong = next((name for name in only if name not in PROPERTIES), None)
    if wrong is not None:
        raise unknown_name("property", wrong, PROPERTIES)
    asked = {
        "texts": texts,
        "only": list(only),
        "examples": examples,
        "number": number,
        "seconds": seconds,
        "replayed": list(replayed),
    }
    findings: list[Finding] = []
    statistics = []
    for group in groups:
        with _Run(group, seconds) as run:
            with _told(run.journal, partial(_progress, progress, group.name, examples)):
                statistics.append(run.searched(asked, scans=scans))
            findings += run.findings
    return merged(findings), statistics


def _progress(progress: Progress, group: str, examples: int, count: int) -> None:
    progress(group, count, examples)


class _Run:
    """A group's search."""

    def __init__(self, group: Group, seconds: float | None) -> None:
        self._group = group
        self._folder = TemporaryDirectory()
        path = Path(self._folder.name) / "journal"
        self.journal = Journal(path)
        parts = [part.model_dump(mode="json") for part in group.parts]
        limit = _GRACE + (_LONGEST if seconds is None else seconds)
        # An assertion's own words are the evidence; a debugger's listing of frames would push them out of the log.
        variables = {"GGML_NO_BACKTRACE": "1"}
        init = {"parts": parts, "journal": str(path)}
        self._worker = Worker(_TARGET, init, seconds=limit, memory=_MEMORY, environment=variables)
        self.findings: list[Finding] = []

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()
        self.journal.close()
        self._folder.cleanup()

    def searched(self, asked: Mapping[str, Any], *, scans: bool) -> Statistics:
        """Search, and once more without the text that ended the process."""
        statistics = Statistics(group=self._group.name)
        try:
            facts = self._call("facts")
        except WorkerDiedError as death:
            self._note_death(death.failure, self.journal.text, "a vocabulary")
            return statistics
        names = [one["name"] for one in facts]
        statistics = statistics.model_copy(update={"versions": {one["name"]: one["version"] for one in facts}})
        skipped: list[str] = []
        while len(skipped) < _DEATHS:
            try:
                result = self._call("search", **asked, skipped=skipped)
            except WorkerDiedError as death:
                text = self.journal.text
                self._note_death(death.failure, self._culprit(text, names), "a text", text)
                skipped.append(text)
                continue
            self._note(result["found"])
            statistics = statistics.model_copy(update={name: result[name] for name in ("inputs", "held", "ended")})
            break
        return self._scanned(statistics, names, asked["number"]) if scans else statistics

    def _scanned(self, statistics: Statistics, names: Sequence[str], number: int) -> Statistics:
        try:
            result = self._call("scan", number=number, seconds=_SCAN)
        except WorkerDiedError as death:
            self._note_death(death.failure, " / ".join(names), "an id")
            return statistics
        self._note(result["found"])
        by_name = {key: dict(zip(names, result[key], strict=True)) for key in ("classes", "drift")}
        return statistics.model_copy(update=by_name)

    def _call(self, method: str, **arguments: Any) -> Any:
        try:
            return self._worker.call(method, **arguments)
        except RemoteError as error:
            if error.error in _OF_THE_CALLER or error.whose in ("user", "unobserved"):
                raise UserError(f"{self._group.name}: {error.message}") from error
            raise

    def _culprit(self, text: str, names: Sequence[str]) -> str:
        """Return which tokenizer alone ends the process at a text; all of them where none does alone."""
        for number, name in enumerate(names):
            try:
                self._worker.call("ask", part=number, text=text)
            except WorkerDiedError:
                return name
        return " / ".join(names)

    def _note(self, found: Sequence[Json]) -> None:
        for one in found:
            broken = Broken.model_validate(one["broken"])
            self._add(broken, one["example"], one["inputs"])

    def _note_death(self, failure: Failure, path: str, what: str, example: Any = None) -> None:
        ended = failure.signal or failure.reason
        broken = Broken(
            name="alive",
            path=path,
            cause=f"{ended} at {what}",
            message=f"{path} ends its process at {what}: {failure.describe()}",
            shown=(Output(by=path, error="\n".join([failure.describe(), *failure.log])),),
        )
        self._add(broken, example, 1)

    def _add(self, broken: Broken, example: Any, inputs: int) -> None:
        sentence = _SENTENCES.get(broken.name) or PROPERTIES[broken.name].sentence
        subject = self._group.name
        self.findings.append(
            Finding(
                broken=broken,
                sentence=sentence,
                subjects=(subject,),
                inputs=inputs,
                example=example,
                subject=subject,
            )
        )


@contextlib.contextmanager
def _told(journal: Journal, progress: Callable[[int], None]) -> Iterator[None]:
    """Tell how many texts were tried, twice a second, while the child works."""
    over = threading.Event()

    def tell() -> None:
        while not over.wait(0.5):
            progress(journal.count)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
