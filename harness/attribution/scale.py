"""The scale: what quantizing the weights costs, and what healthy settings and another build do, in nats.

The model file is written in float32 and quantized again by llama.cpp itself, so that the steps differ in nothing else.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.attribution.held import ENGINE, Engine, Held, engine, held
from harness.errors import UserError
from harness.models.gguf import read_model_file
from harness.process.worker import RemoteError, Worker
from harness.project.golden import Golden
from harness.project.project import Project
from harness.project.stack import load_component
from harness.values import Generation, ModelRef, Value

FLOAT = 0
"""llama.cpp's number (`llama_ftype`) of a file that is all float32."""
STEPS: Mapping[str, int] = {
    "F16": 1,
    "Q8_0": 7,
    "Q5_1": 9,
    "Q5_0": 8,
    "Q4_1": 3,
    "Q4_0": 2,
    "IQ4_NL": 25,
    "Q3_K_M": 12,
    "Q2_K": 10,
}
"""What is quantized to, with llama.cpp's numbers."""
SHIPPED = "as shipped"
"""The name of the file itself among the steps."""
OTHER = "llama-server"
_SECONDS = 900.0
Said = dict[str, Generation]


class Step(Value):
    """A step of the scale.

    Attributes:
        name: What the file was quantized to.
        size: The file's size in bytes.
        types: How many tensors are of which type: llama.cpp falls back where a row does not fit a block.
        cases: KL(float32 || quantized).
    """

    name: str
    size: int
    types: dict[str, int]
    cases: tuple[Held, ...]


class Setting(Value):
    """A healthy setting of a build.

    Attributes:
        component: The component.
        name: The setting's.
        noise_class: The class of settings that its noise belongs to.
        identical: In how many cases every number has the bits that the component's default gives.
        cases: KL(default of `ENGINE` || this).
        golden: KL(golden || this), of the oracle's golden.
    """

    component: str
    name: str
    noise_class: str
    identical: int
    cases: tuple[Held, ...]
    golden: tuple[Held, ...]


class Quantizer:
    """The child's side: llama.cpp's own quantization."""

    def quantize(self, source: str, target: str, kind: int) -> None:
        """Write a file anew.

        Args:
            source: The file.
            target: Where to.
            kind: llama.cpp's number of what it is to be.
        """
        import ctypes

        import llama_cpp

        parameters = llama_cpp.llama_model_quantize_default_params()
        parameters.nthread = 1
        parameters.ftype = kind
        parameters.allow_requantize = True
        if llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(parameters)) != 0:
            raise ValueError(f"llama.cpp does not quantize {source} to {kind}")


@contextmanager
def quantizing(model: ModelRef) -> Iterator[Callable[[str, int], Path]]:
    """Yield what quantizes a model to a name and llama.cpp's number; a file is gone when the next one is made.

    Raises:
        UserError: llama.cpp does not quantize it.
    """
    with (
        tempfile.TemporaryDirectory(prefix="harness-") as folder,
        Worker("harness.attribution.scale:Quantizer", {}, seconds=_SECONDS) as worker,
    ):
        exact = Path(folder) / "F32.gguf"
        last = exact

        def write(source: Path, target: Path, kind: int) -> None:
            try:
                worker.call("quantize", source=str(source), target=str(target), kind=kind)
            except RemoteError as error:
                raise UserError(error.message) from error

        def quantized(name: str, kind: int) -> Path:
            nonlocal last
            if last != exact:
                last.unlink()
            if kind == FLOAT:
                return exact
            last = Path(folder) / f"{name}.gguf"
            write(exact, last, kind)
            return last

        write(model.path, exact, FLOAT)
        yield quantized


def scale_of(
    project: Project,
    model: ModelRef,
    goldens: Mapping[str, Golden],
    progress: Callable[[str], None],
    steps: Mapping[str, int] = STEPS,
) -> tuple[Step, ...]:
    """Return what quantizing a model costs, beginning with the file as it is.

    Args:
        project: Where the stack is.
        model: The model.
        goldens: By case.
        progress: Told of every step.
        steps: By name, llama.cpp's number.

    Raises:
        UserError: llama.cpp does not quantize it.
    """
    with quantizing(model) as quantized:
        progress("F32")
        exact = _said(project, model, quantized("F32", FLOAT), goldens)
        found = []
        for name, kind in {SHIPPED: None, **steps}.items():
            progress(name)
            path = model.path if kind is None else quantized(name, kind)
            said = _said(project, model, path, goldens)
            types = Counter(one.tensor_type.name for one in read_model_file(path).tensors)
            cases = compared(goldens, exact, said)
            found.append(Step(name=name, size=path.stat().st_size, types=dict(types.most_common()), cases=cases))
    return tuple(found)


def settings_of(
    project: Project,
    model: ModelRef,
    goldens: Mapping[str, Golden],
    progress: Callable[[str], None],
    stacks: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
) -> tuple[Setting, ...]:
    """Return what healthy settings do, of the engine and of the other build of it.

    Args:
        project: Where the stacks are.
        model: The model.
        goldens: By case.
        progress: Told of every setting.
        stacks: By stack, whose component of inference has its name, options by setting; the first one is the default.

    Raises:
        MissingPackageError: a component's package is not installed.
    """
    right: Said = {case: one.generation for case, one in goldens.items() if isinstance(one.generation, Generation)}
    default: Said = {}
    found = []
    for name, settings in (stacks or {one: load_component(one).variations for one in (ENGINE, OTHER)}).items():  # type: ignore[attr-defined]
        own: Said = {}
        for label, options in settings.items():
            progress(f"{name}: {label}")
            with engine(project, model, options, name) as opened:
                said = said_by(opened, goldens)
                noise_class = opened.part.noise_class()
            own, default = own or said, default or said
            found.append(
                Setting(
                    component=name,
                    name=label,
                    noise_class=noise_class,
                    identical=sum(_same(own[case], said[case]) for case in goldens),
                    cases=compared(goldens, default, said),
                    golden=compared(goldens, right, said),
                )
            )
    return tuple(found)


def said_by(opened: Engine, goldens: Mapping[str, Golden]) -> Said:
    """Return what an open engine says on golden ids, by case."""
    found = {}
    for case, golden in goldens.items():
        assert golden.tokens is not None
        found[case] = opened.forced(golden, golden.tokens.ids)
    return found


def compared(goldens: Mapping[str, Golden], one: Said, other: Said) -> tuple[Held, ...]:
    """Hold what was said of every case against what was said of it elsewhere."""
    answers = {case: golden.generation for case, golden in goldens.items()}
    return tuple(
        held(case, answer, one[case], other[case]) for case, answer in answers.items() if isinstance(answer, Generation)
    )


def _said(project: Project, model: ModelRef, path: Path, goldens: Mapping[str, Golden]) -> Said:
    with engine(project, model.model_copy(update={"path": path})) as opened:
        return said_by(opened, goldens)


def _same(one: Generation, other: Generation) -> bool:
    """Return whether two generations have the same bits, as far as they are shown."""
    return one.digests == other.digests and one.distributions == other.distributions
