"""Checks of the weights: where they lie in the file, and that every one of them is a finite number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from harness.doctor.diagnosis import Check
from harness.doctor.facts import Facts, Judgement, check, judge, quoted, some
from harness.models.gguf import Tensor, numpy_type

_CONVERT = "download or convert the model again"
_NO_TENSORS = Judgement("unobserved", "the file has no tensors")
# Decoded at once: 4 MB of float32.
_CHUNK = 1 << 20
# Mixtures whose name is not that of their commonest type.
_TYPE_OF_MIXTURE = {
    "IQ2_S": "IQ2_XS",
    "IQ2_M": "IQ2_S",
    "IQ3_XS": "IQ3_S",
    "IQ3_M": "IQ3_S",
    "MXFP4_MOE": "MXFP4",
}
# What the quantizer of llama.cpp takes where 256 does not divide a row. What is not here it does not take at all.
_FALLBACK = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
_QUANTIZATION_VERSION = 2
# Of every tensor where the file does not say, and of the first one in memory in any case.
_ALIGNMENT = 32


@dataclass
class _Scan:
    """What decoding all weights once has shown."""

    decoded: int = 0
    not_finite: list[str] = field(default_factory=list)
    zero: list[str] = field(default_factory=list)
    undecodable: list[str] = field(default_factory=list)


def tensor_checks(facts: Facts, *, readable: bool = True) -> Iterator[Check]:
    """Run every check of the weights; where they are not on the disk, only those of where they should be."""
    yield _layout(facts)
    yield _quantization(facts)
    scan = _scan(facts) if readable else _Scan()
    not_read = Judgement("unobserved", "not read: most of the file is a hole")
    yield Check(name="tensor values", **(_values(scan) if readable else not_read)._asdict())
    yield Check(name="zero tensors", **(_zeros(scan) if readable else not_read)._asdict())


@check("tensor layout")
def _layout(facts: Facts) -> Judgement:
    if not facts.model.tensors:
        return _NO_TENSORS
    # Reading the file has already refused a tensor that ends beyond it.
    bad = [f"{quoted(tensor.name)} has no elements" for tensor in facts.model.tensors if not tensor.n_elements]
    alignment = facts.integer("general.alignment") or _ALIGNMENT
    start = facts.model.data_start
    if start % _ALIGNMENT:
        bad.append(f"the data begins at byte {start:,}, at which llama.cpp aborts: not aligned to {_ALIGNMENT} bytes")
    expected, previous = start, ""
    for tensor in facts.model.tensors:
        offset = tensor.data_offset
        if offset < expected:
            bad.append(f"{quoted(tensor.name)} overlaps {previous}")
        elif offset % alignment:
            bad.append(f"{quoted(tensor.name)} is not aligned to {alignment} bytes")
        elif offset > expected:
            bad.append(f"{quoted(tensor.name)} is {offset - expected:,} bytes behind where llama.cpp wants it")
        expected = offset + -(-tensor.n_bytes // alignment) * alignment
        previous = quoted(tensor.name)
    fine = f"{len(facts.model.tensors)} inside the file, side by side"
    return judge([some(bad)] if bad else [], [], fine, _CONVERT)


@check("quantization")
def _quantization(facts: Facts) -> Judgement:
    import gguf

    # Vectors stay in float32 whatever the file type is.
    counts = Counter(tensor.tensor_type for tensor in facts.model.tensors if len(tensor.shape) > 1)
    if not counts:
        return Judgement("unobserved", "the file has no matrices")
    commonest = counts.most_common(1)[0][0].name
    fine = "matrices: " + some(f"{count} {type_.name}" for type_, count in counts.most_common())
    odd = []
    version = facts.integer("general.quantization_version")
    if any(gguf.GGML_QUANT_SIZES[type_][0] > 1 for type_ in counts) and version != _QUANTIZATION_VERSION:
        said = "missing" if version is None else version
        odd.append(f"general.quantization_version is {said}, not {_QUANTIZATION_VERSION}")
    declared = facts.integer("general.file_type")
    names = {int(member): member.name for member in gguf.LlamaFileType}
    if declared is None:
        odd.append(f"general.file_type is missing; most matrices are {commonest}")
    elif declared not in names:
        odd.append(f"general.file_type {declared} is unknown; most matrices are {commonest}")
    elif names[declared] != "GUESSED":
        meant, found = _meant_and_found(facts, _commonest_type_of(names[declared]))
        if meant != found:
            odd.append(f"general.file_type says {names[declared]}, but most matrices are {found}")
    return judge([], odd, fine, "right for a mixture made by hand; else " + _CONVERT)


def _meant_and_found(facts: Facts, meant: str) -> tuple[str, str]:
    """Return the type that a file's matrices should have and the commonest one that they have.

    Rows that the type's blocks do not divide cannot have it: llama.cpp's quantizer takes another one. They count only
    where there are no others.
    """
    import gguf

    block = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[meant]][0]
    matrices = [tensor for tensor in facts.model.tensors if len(tensor.shape) > 1]
    fitting = [tensor for tensor in matrices if tensor.shape[0] % block == 0]
    if not fitting:
        smaller = _FALLBACK.get(meant, meant)
        width = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[smaller]][0]
        meant = smaller if matrices[0].shape[0] % width == 0 else "F16"
    return meant, Counter(tensor.tensor_type.name for tensor in fitting or matrices).most_common(1)[0][0]


def _commonest_type_of(file_type: str) -> str:
    """Return the tensor type that a file of this type is named after: `Q4_K` for `MOSTLY_Q4_K_M`."""
    name = file_type.removeprefix("MOSTLY_").removeprefix("ALL_")
    name = _TYPE_OF_MIXTURE.get(name, name)
    return name[:-2] if "_K_" in name else name


def _values(scan: _Scan) -> Judgement:
    bad = [f"not finite: {some(scan.not_finite)}"] if scan.not_finite else []
    fine = f"all weights of {scan.decoded} tensors are finite"
    if not bad and scan.undecodable:
        found = f"{fine}; gguf cannot decode {some(scan.undecodable)}"
        return Judgement("unobserved", found, "upgrade gguf, or convert to a type it decodes")
    if not scan.decoded:
        return _NO_TENSORS
    return judge(bad, [], fine, f"one NaN spoils every reply; {_CONVERT}")


def _zeros(scan: _Scan) -> Judgement:
    if not scan.decoded:
        return Judgement("unobserved", "no tensor was decoded")
    odd = [f"all zero: {some(scan.zero)}"] if scan.zero else []
    return judge([], odd, "no tensor is all zero", f"right for an unused bias; else {_CONVERT}")


def _scan(facts: Facts) -> _Scan:
    scan = _Scan()
    with facts.model.path.open("rb") as file:
        for tensor in facts.model.tensors:
            if not tensor.n_elements:
                continue
            try:
                first_not_finite, any_value = _decode(tensor, file)
            except NotImplementedError:
                scan.undecodable.append(f"{quoted(tensor.name)} ({tensor.tensor_type.name})")
                continue
            scan.decoded += 1
            if first_not_finite is not None:
                row, value = first_not_finite
                scan.not_finite.append(f"{quoted(tensor.name)} row {row} ({value})")
            elif not any_value:
                scan.zero.append(quoted(tensor.name))
    return scan


def _decode(tensor: Tensor, file: BinaryIO) -> tuple[tuple[int, float] | None, bool]:
    """Decode a tensor piece by piece. It is read, not mapped: mapped pages count as this process's memory.

    Returns:
        The row and the value of the first weight that is not finite, or None; and whether any weight is not zero.

    Raises:
        NotImplementedError: gguf cannot decode the type.
    """
    import gguf
    import numpy as np
    from gguf.quants import dequantize

    block, block_bytes = gguf.GGML_QUANT_SIZES[tensor.tensor_type]
    row_length = tensor.shape[0] if tensor.shape else 1
    blocks = max(1, _CHUNK // block)
    step = blocks * block_bytes
    plain = numpy_type(tensor.tensor_type)
    any_value = False
    file.seek(tensor.data_offset)
    for number, start in enumerate(range(0, tensor.n_bytes, step)):
        stored = np.frombuffer(file.read(min(step, tensor.n_bytes - start)), np.uint8)
        # Bytes of zeros are weights of zero in every type; the first piece shows whether the type can be decoded.
        if start and not stored.any():
            continue
        # Forged block scales overflow or multiply infinity by zero: that is what is looked for, not a mishap.
        with np.errstate(all="ignore"):
            weights = dequantize(stored.view(plain).reshape(1, -1), tensor.tensor_type).reshape(-1)
        finite = np.isfinite(weights)
        if not finite.all():
            place = int(np.argmin(finite))
            row = (number * blocks * block + place) // row_length
            return (row, float(weights[place])), True
        any_value = any_value or bool(weights.any())
    return None, any_value
