"""A tensor's data: read and written in this process's memory, fetched or left alone where they lie elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from harness.llama import ggml as seen
from harness.llama import layout
from harness.llama.ggml import Nodes, Watcher, bytes_of, copied_rows_of, data_of, rows_of, tensor_at
from harness.llama.layout import NotReadableError

pytest.importorskip("llama_cpp")

COMPUTED, WEIGHTS = 2, 1
NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def tensor() -> Iterator[layout.Tensor]:
    """Two rows of three numbers in a buffer of ggml's CPU backend."""
    ggml = layout.ggml()
    context = ggml.init(layout._InitParams(1 << 16, None, True))
    made = ggml.new_tensor_4d(context, 0, 3, 2, 1, 1)
    ggml.set_name(made, b"l_out-7")
    buffer = ggml.backend_alloc_ctx_tensors_from_buft(context, ggml.backend_cpu_buffer_type())
    found = tensor_at(made)
    data_of(found)[...] = NUMBERS
    yield found
    ggml.backend_buffer_free(buffer)
    ggml.free(context)


class OfADevice:
    """ggml, whose buffers are said to be a device's. What is fetched of them comes through the real function."""

    def __init__(self, usage: int) -> None:
        self._usage = usage

    def backend_buffer_is_host(self, buffer: int) -> bool:
        del buffer
        return False

    def backend_buffer_get_usage(self, buffer: int) -> int:
        del buffer
        return self._usage

    def backend_tensor_get(self, *arguments: object) -> None:
        layout.ggml().backend_tensor_get(*arguments)


@pytest.mark.parametrize("read", [data_of, bytes_of, lambda tensor: rows_of(tensor, 2)])
def test_data_on_a_device_are_not_touched(monkeypatch, tensor, read):
    read(tensor)
    monkeypatch.setattr(seen, "ggml", lambda: OfADevice(COMPUTED))
    with pytest.raises(NotReadableError, match=r"^the tensor 'l_out-7' lies in the memory of a device$"):
        read(tensor)


def test_what_a_device_computed_is_fetched_through_ggml(monkeypatch, tensor):
    monkeypatch.setattr(seen, "ggml", lambda: OfADevice(COMPUTED))
    assert np.array_equal(copied_rows_of(tensor, 2), NUMBERS)


def test_weights_on_a_device_are_not_even_fetched(monkeypatch, tensor):
    monkeypatch.setattr(seen, "ggml", lambda: OfADevice(WEIGHTS))
    with pytest.raises(NotReadableError, match="lies in the memory of a device"):
        copied_rows_of(tensor, 2)


def test_a_copy_does_not_change_with_the_tensor(tensor):
    copied = copied_rows_of(tensor, 2)
    rows_of(tensor, 2)[...] = 0
    assert np.array_equal(copied, NUMBERS)


def test_a_tensor_without_data_is_not_read(tensor):
    without = layout.Tensor.from_buffer_copy(tensor)
    without.data = None
    with pytest.raises(NotReadableError, match="'l_out-7' has no data"):
        data_of(without)


def test_no_tensor_is_read_where_the_layout_is_another_one(monkeypatch):
    """Not even its name: the address leads nowhere."""
    monkeypatch.setattr(seen, "require_readable", _refuse)
    nodes = Nodes()
    with nodes.watched(Watcher(lambda name, operator: True)):
        assert nodes.callback(8, True, None)
    with pytest.raises(NotReadableError, match="another one"):
        nodes.check()


def _refuse() -> None:
    raise NotReadableError("another one")
