"""The layout of ggml's tensors: proven by ggml itself, and nothing is read where it is another one."""

from __future__ import annotations

import ctypes

import pytest

from harness.llama import blocks, layout
from harness.llama.layout import NotReadableError, Tensor

pytest.importorskip("llama_cpp")

FIELDS = Tensor._fields_
NAMES = [name for name, _ in FIELDS]


def laid_out(*fields: tuple[str, object]) -> type[ctypes.Structure]:
    return type("Other", (ctypes.Structure,), {"_fields_": list(fields)})


def test_the_layout_known_here_is_that_of_the_library():
    assert layout.wrong_field(layout.ggml(), Tensor) is None
    assert layout.why_unreadable() is None


@pytest.mark.parametrize("at", range(1, len(FIELDS)))
def test_a_field_more_is_noticed_wherever_it_stands(at):
    other = laid_out(*FIELDS[:at], ("more", ctypes.c_void_p), *FIELDS[at:])
    found = layout.wrong_field(layout.ggml(), other)
    # What is moved between two fields that are right needs no name of its own: the number of an operator.
    assert found == ("op_params" if NAMES[at] == "op" else NAMES[at])


@pytest.mark.parametrize("at", range(len(FIELDS) - 1))
def test_two_fields_in_each_others_place_are_noticed(at):
    other = laid_out(*FIELDS[:at], FIELDS[at + 1], FIELDS[at], *FIELDS[at + 2 :])
    assert layout.wrong_field(layout.ggml(), other) is not None


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("ne", ctypes.c_int32 * 4),
        ("nb", ctypes.c_uint32 * 4),
        ("op_params", ctypes.c_int32 * 14),
        ("op_params", ctypes.c_int32 * 32),
        ("src", ctypes.c_void_p * 6),
        ("src", ctypes.c_void_p * 12),
        ("name", ctypes.c_char * 48),
    ],
)
def test_a_field_of_another_size_is_noticed(name, shape):
    other = laid_out(*((field, shape if field == name else known) for field, known in FIELDS))
    assert layout.wrong_field(layout.ggml(), other) is not None


@pytest.mark.parametrize(
    "name",
    [
        "ROPE_N_DIMS",
        "ROPE_MODE",
        "ROPE_FREQ_BASE",
        "ROPE_FREQ_SCALE",
        "ROPE_ATTN_FACTOR",
        "RMS_NORM_EPS",
        "SOFT_MAX_SCALE",
        "FLASH_ATTN_SCALE",
        "FLASH_ATTN_SOFT_CAP",
    ],
)
def test_a_parameter_in_another_place_is_noticed(monkeypatch, name):
    monkeypatch.setattr(layout, name, getattr(layout, name) + 1)
    assert layout.wrong_field(layout.ggml(), Tensor) == "op_params"


def test_other_numbers_of_types_are_noticed(monkeypatch):
    monkeypatch.setattr(layout, "TYPE_NAMES", {**layout.TYPE_NAMES, 2: "i8"})
    assert layout.wrong_field(layout.ggml(), Tensor) == "type"


@pytest.fixture
def unproven():
    """Have the next question prove the layout anew, and the one after the test as well."""
    layout.why_unreadable.cache_clear()
    yield
    layout.why_unreadable.cache_clear()


@pytest.mark.usefixtures("unproven")
def test_why_nothing_is_read_is_one_line(monkeypatch):
    monkeypatch.setattr(layout, "Tensor", laid_out(*FIELDS[:5], ("more", ctypes.c_void_p), *FIELDS[5:]))
    monkeypatch.setattr(layout, "_version", lambda: "9.9.9")
    with pytest.raises(NotReadableError) as raised:
        layout.require_readable()
    assert str(raised.value) == (
        "the layout of ggml_tensor in llama-cpp-python 9.9.9 is not the one known here (field `op_params` holds "
        "something else): the network cannot be looked into"
    )


@pytest.mark.usefixtures("unproven")
def test_a_library_that_lacks_a_function_proves_nothing(monkeypatch):
    monkeypatch.setitem(layout._FUNCTIONS, "ggml_of_tomorrow", (ctypes.c_int,))
    layout.ggml.cache_clear()
    why = layout.why_unreadable()
    layout.ggml.cache_clear()
    assert why is not None
    assert "its library cannot be asked" in why
    assert "ggml_of_tomorrow" in why


def test_the_sizes_of_blocks_known_here_are_those_of_the_library(monkeypatch):
    blocks.require_known(blocks.BLOCKS)
    monkeypatch.setitem(blocks.BLOCKS, 8, blocks.Block(36, {}))
    blocks.require_known({0, 2})
    with pytest.raises(NotReadableError, match=r"^a block of q8_0 has 34 bytes, not the 36 known here$"):
        blocks.require_known({0, 8})
