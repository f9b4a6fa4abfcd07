"""What a bit of a packed field means, against gguf's own way of unpacking it."""

import numpy as np
import pytest

from harness.inject.bits import place_of
from harness.inject.fault import Fault
from harness.llama.blocks import BLOCKS

gguf = pytest.importorskip("gguf")
Q8_0, Q2_K, Q3_K, Q4_K, Q6_K = 8, 10, 11, 12, 14
QUANTIZED = (2, 3, 6, 7, Q8_0, Q2_K, Q3_K, Q4_K, 13, Q6_K)


def place(field, bit, kind):
    return place_of(Fault(kind="weight-bit", site="t", field=field, bit=bit), {"t": kind}, {})


def unpacked(block, kind):
    return gguf.dequantize(block, gguf.GGMLQuantizationType(kind)).reshape(-1)


@pytest.mark.parametrize("kind", QUANTIZED)
def test_a_bit_of_a_quantized_weight_moves_that_weight_by_its_power_of_two(kind):
    block = BLOCKS[kind]
    clean = np.zeros(block.size, np.uint8)
    for name, scale in (("scale", 1.0), ("minimum", 0.0)):
        if name in block.fields:
            at = block.fields[name].offset
            clean[at : at + 2] = np.array([scale], np.float16).view(np.uint8)
    # All bits of the sub-scales: none is zero, and all are the same.
    if "sub_scale" in block.fields:
        at, size = block.fields["sub_scale"]
        clean[at : at + size] = 0xFF
    before = unpacked(clean, kind)
    steps = {}
    for field in ("quant", "quant_high"):
        for bit in range(8 * block.fields[field].size) if field in block.fields else ():
            hurt = clean.copy()
            hurt[block.fields[field].offset + bit // 8] ^= 1 << bit % 8
            moved = np.abs(unpacked(hurt, kind) - before)
            assert np.count_nonzero(moved) == 1
            steps.setdefault(place(field, bit, kind).bit, set()).add(float(moved.max()))
    lowest = steps[0].pop()
    steps[0].add(lowest)
    assert steps == {bit: {lowest * 2**bit} for bit in range(len(steps))}
    assert place("quant", 0, kind).form.parts[-1].last == len(steps) - 1


@pytest.mark.parametrize("kind", [Q2_K, Q3_K, Q4_K, 13, Q6_K])
def test_a_bit_of_a_sub_scale_moves_its_weights_by_its_power_of_two(kind):
    block = BLOCKS[kind]
    clean = np.zeros(block.size, np.uint8)
    for name in ("scale", "minimum"):
        if name in block.fields:
            at = block.fields[name].offset
            clean[at : at + 2] = np.array([1.0], np.float16).view(np.uint8)
    # Every quant is one, so that neither a scale nor a minimum is without effect.
    at, size = block.fields["quant"]
    clean[at : at + size] = {Q2_K: 0x55, Q3_K: 0x55}.get(kind, 0x11)
    before = unpacked(clean, kind)
    steps = {}
    offset, size = block.fields["sub_scale"]
    for bit in range(8 * size):
        hurt = clean.copy()
        hurt[offset + bit // 8] ^= 1 << bit % 8
        steps.setdefault(place("sub_scale", bit, kind).bit, set()).add(
            float(np.abs(unpacked(hurt, kind) - before).max())
        )
    lowest = max(steps[0])
    assert steps == {bit: {lowest * 2**bit} for bit in range(len(steps))}
    assert place("sub_scale", 0, kind).form.parts[-1].last == len(steps) - 1


@pytest.mark.parametrize(
    ("fault", "caches", "expected"),
    [
        (Fault(kind="activation-bit", site="norm-0/MUL", bit=31), {}, ("activation", "float32", 31)),
        (Fault(kind="cache-bit", site="cache_k_l0", bit=15), {}, ("cache", "float16", 15)),
        (Fault(kind="cache-bit", site="cache_v_l0", bit=31), {"cache_v": 0}, ("cache", "float32", 31)),
        (Fault(kind="weight-bit", site="f32", field="value", bit=30), {}, ("weight", "float32", 30)),
        (Fault(kind="weight-bit", site="bf16", field="value", bit=14), {}, ("weight", "bfloat16", 14)),
        (Fault(kind="weight-bit", site="unknown", field="scale", bit=3), {}, ("scale", "float16", 3)),
    ],
)
def test_floats(fault, caches, expected):
    found = place_of(fault, {"f32": 0, "bf16": 30}, caches)
    assert (found.what, found.form.name, found.bit) == expected


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="weight-zero", site="f32"),
        Fault(kind="weight-bit", site="unknown", field="quant", bit=3),
        Fault(kind="weight-bit", site="unknown", field="value", bit=3),
        Fault(kind="cache-bit", site="cache_k_l0", bit=3),
    ],
)
def test_what_has_no_known_place(fault):
    assert place_of(fault, {}, {"cache_k": Q8_0}) is None
