"""Goldens: what the reference made of each case, stage by stage, with where it came from.

    golden/cases/<case>.json                 what is asked
    golden/<model>/provenance.toml           who made the goldens, of which file, and the hash of every case
    golden/<model>/noise.json                how far healthy engines were seen from the reference
    golden/<model>/<case>/request.json prompt.txt tokens.json generation.json logits.npz reply.json

A case that the reference itself refuses has a `refusal.json` naming the stage, and nothing for the stages after it.
While goldens are recorded, and after that was killed, there is a folder more, which a load looks into and leaves as it
is: see `golden_writing`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from harness.errors import UserError
from harness.project.documents import read_toml
from harness.project.names import CaseName, case_name, model_name
from harness.project.project import Project
from harness.stage import Stage
from harness.values import (
    Case,
    Distributions,
    Generation,
    Json,
    ModelRef,
    Prompt,
    Refusal,
    Reply,
    Request,
    Tokens,
    Value,
)

FORMAT: Literal[1] = 1
PROVENANCE = "provenance.toml"
NOISE = "noise.json"
RECORDING = ".recording"
"""The folder of what is being recorded, beside the cases' folders. No case can have this name."""
_FILES = ("request.json", "prompt.txt", "tokens.json", "generation.json", "logits.npz", "reply.json", "refusal.json")
_LARGEST: Final = 1 << 28
"""Bytes of a golden's files and of its arrays. The largest published golden has a thousandth of it."""
_LOOKS: Final = 10
"""How often a golden that is being replaced is looked at anew."""


class GoldenError(UserError):
    """A golden that does not belong to what is held against it, or was changed by other hands."""


class Golden(Value):
    """What the reference made of one case.

    Attributes:
        case: The case.
        model: The model's name.
        request: The client stage's output; it has always one.
        prompt: The template stage's, or its refusal; None where it is not known, which of a stored golden it always is.
        tokens: The tokenization stage's; None after a refusal.
        generation: The inference stage's, or the refusal of a prompt longer than a context; None after a refusal, and
            where the reference does not compute the model.
        reply: The postprocess stage's; None after a refusal.
        streamed: What a stream must add up to, where that is something else.
    """

    case: Case
    model: str
    request: Request
    prompt: Prompt | Refusal | None
    tokens: Tokens | None = None
    generation: Generation | Refusal | None = None
    reply: Reply | None = None
    streamed: Reply | None = None

    def value(self, stage: Stage) -> Any:
        """Return what the stage should produce, or None where there is nothing to hold it against."""
        return {
            Stage.CLIENT: self.request,
            Stage.TEMPLATE: self.prompt,
            Stage.TOKENIZATION: self.tokens,
            Stage.INFERENCE: self.generation,
            Stage.POSTPROCESS: self.reply,
        }[stage]


class CaseRecord(BaseModel):
    """What provenance remembers of one case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: str
    golden: str


class Provenance(BaseModel):
    """Where a model's goldens come from.

    Attributes:
        format: The version of the file formats.
        model_sha256: The model file they were made of.
        template_sha256: The template that replaces the file's own, if one does.
        references: Who made each stage's goldens, with versions.
        cases: By case, the hash of what was asked and of the golden's files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    model_sha256: str
    template_sha256: str = ""
    references: dict[str, str]
    cases: dict[CaseName, CaseRecord] = Field(default_factory=dict)

    def with_case(self, case: str, record: CaseRecord | None) -> Provenance:
        """Return the provenance in which a case has another golden, or none."""
        others = {name: one for name, one in self.cases.items() if name != case}
        return self.model_copy(update={"cases": others if record is None else {**others, case: record}})


# Loading


def load_provenance(project: Project, model: ModelRef) -> Provenance:
    """Load a model's provenance and make sure that it speaks of this model.

    Raises:
        GoldenError: there are no goldens, or they were made of another file, template or format.
    """
    having = [layer for layer in project.layers if (model_folder(layer, model.name) / PROVENANCE).is_file()]
    if not having:
        raise GoldenError(f"no goldens for model {model.name!r}", f"make them: harness record {model.name}")
    whole = own_provenance(having[0], model)
    for layer in having[1:]:
        # Of the same name, but of another file: then it is the upper one's model, and has nothing to do with this.
        with contextlib.suppress(GoldenError):
            whole = whole.model_copy(update={"cases": {**own_provenance(layer, model).cases, **whole.cases}})
    return whole


def own_provenance(layer: Project, model: ModelRef) -> Provenance:
    """Load what the first folder of a project says of a model's goldens, and make sure that it speaks of this model.

    Raises:
        GoldenError: it was made of another file, template or format.
    """
    provenance = read_toml(model_folder(layer, model.name) / PROVENANCE, Provenance)
    for what, has, needs in (
        ("model file", provenance.model_sha256, model.sha256),
        ("template", provenance.template_sha256, template_digest(model)),
    ):
        if has != needs:
            raise GoldenError(
                f"the goldens of {model.name!r} were made with another {what} "
                f"(SHA-256 {has[:12] or 'none'}..., now {needs[:12] or 'none'}...): they are not compared",
                f"record them again: harness record {model.name}",
            )
    return provenance


def load_golden(project: Project, model: ModelRef, case: Case, provenance: Provenance) -> Golden:
    """Load one golden, also while it is being replaced; nothing is written.

    Raises:
        GoldenError: there is none, the case was changed since, or the golden's files are not those that were recorded.
    """
    places = _places(project, model, checked(case_name, case.name))
    remedy = f"look at what would change: harness record {model.name}"
    record = provenance.cases.get(case.name)
    before: tuple[object, ...] = ()
    for _ in range(_LOOKS):
        if record is None:
            raise GoldenError(f"case {case.name!r} has no golden for model {model.name!r}", remedy)
        if record.asked != case_digest(case):
            raise GoldenError(f"case {case.name!r} was changed after its golden was recorded", remedy)
        digests = []
        for place in places:
            files = read_files(place)
            digests.append(files_digest(files))
            if digests[-1] == record.golden:
                return _decode(case, model.name, place, files)
        # Somebody may have recorded it between the look at the provenance and that at the files.
        seen = (record, *digests)
        if seen == before:
            break
        before, record = seen, _recorded_now(project, model, case.name, record)
    raise GoldenError(
        f"the golden {model.name}/{case.name} is not what was recorded: its files were changed, or their line "
        "endings were",
        f"restore them, or {remedy}",
    )


def _places(project: Project, model: ModelRef, case: str) -> list[Path]:
    """Return where a case's golden is, or is being put: of the folders of a project the upper one that has it."""
    for layer in project.layers:
        folder = model_folder(layer, model.name)
        places = [folder / case, folder / RECORDING / case]
        if any(place.is_dir() or place.is_symlink() for place in places):
            return places
    folder = model_folder(project, model.name)
    return [folder / case, folder / RECORDING / case]


def _recorded_now(project: Project, model: ModelRef, case: str, record: CaseRecord) -> CaseRecord | None:
    try:
        return load_provenance(project, model).cases.get(case)
    except GoldenError:
        return record


def beside_goldens(project: Project, model: str, file: str) -> Path:
    """Return a file beside a model's goldens: the upper one that exists; the first folder's where none does.

    Raises:
        UserError: the name is no model's.
    """
    paths = [model_folder(layer, model) / file for layer in project.layers]
    return next((path for path in paths if path.is_file()), paths[0])


def model_folder(project: Project, model: str) -> Path:
    """Return the folder of a model's goldens in the project's first folder, where they are written.

    Raises:
        UserError: the name is no model's.
    """
    return project.golden / checked(model_name, model)


def checked(check: Callable[[str], str], name: str) -> str:
    """Return a name that a check of `names` takes.

    Raises:
        UserError: it does not.
    """
    try:
        return check(name)
    except ValueError as error:
        raise UserError(str(error)) from None


def template_digest(model: ModelRef) -> str:
    """Return the SHA-256 of a model's replacement template, or an empty string."""
    return "" if model.chat_template is None else hashlib.sha256(model.chat_template.encode("utf-8")).hexdigest()


def case_digest(case: Case) -> str:
    """Return the hash of what a case asks; its description and coverage are not part of it."""
    asked = case.model_dump(mode="json", include={"body", "options"})
    return hashlib.sha256(_json_bytes(asked)).hexdigest()


def files_digest(files: Mapping[str, bytes]) -> str:
    """Return one hash of a golden's files."""
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(f"{name}\0{len(files[name])}\0".encode())
        whole.update(files[name])
    return whole.hexdigest()


def read_files(folder: Path) -> dict[str, bytes]:
    """Read a golden's files; none where there is no folder.

    Raises:
        GoldenError: they cannot be read, are none, or are larger than any golden's.
    """
    paths = [folder / name for name in _FILES]
    link = next((path for path in (folder, *paths) if path.is_symlink()), None)
    if link is not None:
        raise GoldenError(f"{link} is a symbolic link, no golden", "put what it points to in its place")
    try:
        found = [path for path in paths if path.is_file()]
        large = next((path for path in found if _size(path) > _LARGEST), None)
        if large is not None:
            raise GoldenError(f"{large} has more than {_LARGEST:,} bytes: no golden's file has so many")
        files = {}
        for path in found:
            # Unless its golden is being replaced just now.
            with contextlib.suppress(FileNotFoundError):
                files[path.name] = path.read_bytes()
        return files
    except OSError as error:
        raise GoldenError(f"the golden in {folder} cannot be read: {error.strerror}") from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


# The files


def encode(golden: Golden) -> dict[str, bytes]:
    """Return a golden's files."""
    files = {"request.json": _json_bytes(golden.request.model_dump(mode="json"))}
    if isinstance(golden.prompt, Refusal):
        files["refusal.json"] = _refusal_bytes(Stage.TEMPLATE, golden.prompt)
        return files
    assert golden.prompt is not None
    assert golden.tokens is not None
    files["prompt.txt"] = golden.prompt.text.encode("utf-8")
    files["tokens.json"] = _json_bytes(
        {
            "prompt_suffix": golden.prompt.suffix,
            "literals": golden.prompt.literals,
            "dates": golden.prompt.dates,
            "prompt_policies": golden.prompt.policies,
            **golden.tokens.model_dump(mode="json"),
        },
        flat=("ids", "pieces", "policies", "literals", "dates"),
    )
    if isinstance(golden.generation, Refusal):
        files["refusal.json"] = _refusal_bytes(Stage.INFERENCE, golden.generation)
        return files
    if golden.generation is None:
        # The reference does not compute this model.
        return files
    assert golden.generation.distributions is not None
    assert golden.reply is not None
    files["generation.json"] = _json_bytes(golden.generation.model_dump(mode="json"), flat=("ids", "chosen"))
    files["logits.npz"] = encode_distributions(golden.generation.distributions)
    files["reply.json"] = _json_bytes(golden.reply.model_dump(mode="json"))
    return files


def _refusal_bytes(stage: Stage, refusal: Refusal) -> bytes:
    return _json_bytes({"stage": stage.value, **refusal.model_dump(mode="json")})


def _decode(case: Case, model: str, folder: Path, files: Mapping[str, bytes]) -> Golden:
    """Read a golden's files, which are those that were recorded.

    Raises:
        GoldenError: they are no golden, whoever recorded them.
    """
    try:
        return _decoded(case, model, files)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        # Whatever else a file of any bytes makes of the readers; pydantic's errors have a line for each problem.
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise GoldenError(
            f"the files in {folder} are no golden, though they have the hash that was recorded ({reason})",
            f"record it again: harness record {model}",
        ) from error


def _decoded(case: Case, model: str, files: Mapping[str, bytes]) -> Golden:
    request = Request.model_validate_json(files["request.json"])
    refused: dict[str, Refusal] = {}
    if "refusal.json" in files:
        data = json.loads(files["refusal.json"])
        stage = data.pop("stage")
        refused[stage] = Refusal.model_validate(data)
    if Stage.TEMPLATE in refused:
        return Golden(case=case, model=model, request=request, prompt=refused[Stage.TEMPLATE])
    tokens = json.loads(files["tokens.json"])
    prompt = Prompt(
        text=files["prompt.txt"].decode("utf-8"),
        suffix=tokens.pop("prompt_suffix"),
        literals=tuple(tuple(span) for span in tokens.pop("literals")),
        dates=tuple(tuple(span) for span in tokens.pop("dates", ())),
        policies=tokens.pop("prompt_policies", {}),
    )
    whole = Golden(
        case=case,
        model=model,
        request=request,
        prompt=prompt,
        tokens=Tokens.model_validate(tokens),
        generation=refused.get(Stage.INFERENCE),
    )
    if "generation.json" not in files:
        return whole
    generation = Generation.model_validate_json(files["generation.json"])
    return whole.model_copy(
        update={
            "generation": generation.model_copy(update={"distributions": decode_distributions(files["logits.npz"])}),
            "reply": Reply.model_validate_json(files["reply.json"]),
        }
    )


def encode_distributions(distributions: Distributions) -> bytes:
    """Return distributions as the bytes of an `.npz` that are the same for the same numbers."""
    top = distributions.top()
    assert top.ids is not None
    assert top.rest is not None
    buffer = io.BytesIO()
    # numpy writes fixed dates into the archive, so equal arrays give equal bytes.
    np.savez_compressed(buffer, ids=top.ids, logprobs=top.logprobs, rest=top.rest)
    return buffer.getvalue()


def decode_distributions(data: bytes) -> Distributions:
    """Read what `encode_distributions` wrote. No pickled object is accepted.

    Raises:
        ValueError: it is nothing of that kind.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _LARGEST:
                raise ValueError(f"arrays of more than {_LARGEST:,} bytes")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            logprobs, ids, rest = (arrays[name] for name in ("logprobs", "ids", "rest"))
    except (KeyError, OSError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"no arrays of distributions: {error}") from error
    if logprobs.ndim != 2 or ids.shape != logprobs.shape or rest.shape != logprobs.shape[:1]:
        raise ValueError("arrays of distributions with other shapes")
    return Distributions(logprobs, ids, rest)


def _json_bytes(data: Json, flat: Iterable[str] = ()) -> bytes:
    """Return JSON that diffs well: one key a line, but the long lists named in `flat` on one line each."""
    held = {key: data[key] for key in flat if key in data}
    text = json.dumps({**data, **dict.fromkeys(held, "")}, ensure_ascii=False, indent=2)
    for key, value in held.items():
        text = text.replace(f'"{key}": ""', f'"{key}": {json.dumps(value, ensure_ascii=False)}', 1)
    return (text + "\n").encode("utf-8")
