"""Defects of the weights in the model file: what a converter, a quantizer or a disk does to them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.defects.defect import Place, defect
from harness.defects.model_copy import ModelCopy
from harness.llama.blocks import BLOCKS
from harness.stage import Stage

Bytes = NDArray[np.uint8]

_FP16_NAN, _FP16_INF = 0x7E00, 0x7C00
_SEED: Final = 6
_HEAD: Final = 64
"""The width of a head."""

_weights = partial(defect, place=Place.MODEL, kind="artifact", stage=Stage.INFERENCE, cause="corruption")


def _field(copy: ModelCopy, name: str, field: str) -> Bytes:
    """Return a part of every block of a tensor, `(rows, blocks of a row, bytes)`."""
    block = BLOCKS[copy.tensor_type(name)]
    data = copy.tensor(name)
    place = block.fields[field]
    return data.reshape(len(data), -1, block.size)[:, :, place.offset : place.offset + place.size]


def _scales(copy: ModelCopy, name: str) -> NDArray[np.float16]:
    """Return the scale of every block of a tensor, `(rows, blocks of a row)`."""
    return _field(copy, name, "scale").view("<f2")[:, :, 0]


def _exchange(copy: ModelCopy, first: str, second: str) -> None:
    one, other = copy.tensor(first), copy.tensor(second)
    kept = one.copy()
    one[:] = other
    other[:] = kept


def _of_block(copy: ModelCopy, number: int) -> list[str]:
    """Return the names of a block's tensors, without its number."""
    begin = f"blk.{number}."
    return [name.removeprefix(begin) for name in copy.tensor_names if name.startswith(begin)]


def _row_of(copy: ModelCopy, text: str) -> int:
    return int(copy.metadata["tokenizer.ggml.tokens"].index(text))


# One block's scale

_NAN = ("intel/auto-round#1908", "ggml-org/llama.cpp#6884")


@_weights(
    "art-scale-nan", sentence="The scale of one block of a matrix is not a number.", references=_NAN, bits=_FP16_NAN
)
@_weights("art-scale-inf", sentence="The scale of one block of a matrix is infinite.", references=_NAN, bits=_FP16_INF)
@_weights("art-scale-zero", sentence="The scale of one block of a matrix is zero.", references=_NAN, bits=0)
def scale_set(copy: ModelCopy, bits: int) -> None:
    """Write bits over the scale of a block."""
    _field(copy, "blk.5.ffn_down.weight", "scale").view("<u2")[100, 3, 0] = bits


@_weights("art-scale-negative", sentence="The scale of one block of a matrix has the wrong sign.", rows=1, factor=-1)
@_weights("art-scale-doubled", sentence="The scale of one block of a matrix is twice as large.", rows=1, factor=2)
@_weights("art-scales-doubled", sentence="Every scale of a matrix is twice as large.", rows=576, factor=2)
@_weights(
    "art-scales-near", sentence="Every scale of a matrix is one part in a hundred too large.", rows=576, factor=1.01
)
@_weights("art-scales-negative", sentence="Every scale of a matrix has the wrong sign.", rows=576, factor=-1)
def scale_multiplied(copy: ModelCopy, rows: int, factor: float) -> None:
    """Multiply the scale of one block, or those of all."""
    scales = _scales(copy, "blk.5.ffn_down.weight")
    (scales[100:101, 3:4] if rows == 1 else scales)[:] *= np.float16(factor)


@_weights("art-scales-big-endian", sentence="The scales of a matrix were written with the bytes of each exchanged.")
def scales_big_endian(copy: ModelCopy) -> None:
    """Exchange the bytes of every scale."""
    scales = _field(copy, "blk.5.attn_output.weight", "scale")
    scales[:] = scales[:, :, ::-1].copy()


@_weights("art-minima-lost", sentence="The minima of a matrix are zero, as in a format that has none.")
def minima_lost(copy: ModelCopy) -> None:
    """Set every minimum to zero."""
    _field(copy, "blk.5.ffn_up.weight", "minimum")[:] = 0


# Quants


@_weights("art-quants-shifted", sentence="The bytes of a matrix were written one too far.")
def quants_shifted(copy: ModelCopy) -> None:
    """Move all bytes of a tensor by one."""
    data = copy.tensor("blk.5.ffn_gate.weight")
    data[:] = np.roll(data.reshape(-1), 1).reshape(data.shape)


@_weights("art-nibbles-exchanged", sentence="The two weights in each byte of a matrix have each other's place.")
def nibbles_exchanged(copy: ModelCopy) -> None:
    """Exchange the halves of every byte of quants."""
    quants = _field(copy, "blk.5.attn_v.weight", "quant")
    quants[:] = quants >> 4 | quants << 4


@_weights("art-coarser-matrix", sentence="A matrix has three bits a weight instead of four.", layers=(12,), mask=0xEE)
@_weights("art-coarser-network", sentence="Every down projection has three bits a weight.", layers=range(30), mask=0xEE)
@_weights("art-two-bit-network", sentence="Every down projection has two bits a weight.", layers=range(30), mask=0xCC)
def coarser(copy: ModelCopy, layers: Any, mask: int) -> None:
    """Clear the low bits of every weight."""
    for layer in layers:
        _field(copy, f"blk.{layer}.ffn_down.weight", "quant")[:] &= mask


@_weights("art-coarser-embeddings", sentence="The embeddings have four bits a weight instead of eight.")
def coarser_embeddings(copy: ModelCopy) -> None:
    """Clear the low bits of the embeddings."""
    _field(copy, "token_embd.weight", "quant")[:] &= 0xF0


@_weights("art-bit-quant", sentence="One low bit of one weight is flipped.", field="quant", bits=1, mask=0x01)
@_weights("art-bits-quant", sentence="A low bit of a thousand weights is flipped.", field="quant", bits=1000, mask=0x01)
@_weights(
    "art-bits-quant-high",
    sentence="The high bit of a thousand weights is flipped.",
    field="quant",
    bits=1000,
    mask=0x08,
)
@_weights(
    "art-bit-minimum", sentence="The lowest bit of one block's minimum is flipped.", field="minimum", bits=1, mask=0x01
)
def bits_flipped(copy: ModelCopy, field: str, bits: int, mask: int) -> None:
    """Flip a bit in as many bytes, drawn by a fixed seed, of a matrix."""
    found = _field(copy, "blk.20.ffn_up.weight", field)
    places = np.random.default_rng(_SEED).choice(found[:, :, 0].size, bits, replace=False)
    rows, blocks = np.divmod(places, found.shape[1])
    found[rows, blocks, 0] ^= mask


@_weights("art-bit-exponent", sentence="The highest bit of the exponent of one block's scale is flipped.")
def exponent_flipped(copy: ModelCopy) -> None:
    """Flip bit 14 of an IEEE half."""
    _field(copy, "blk.20.ffn_up.weight", "scale").view("<u2")[7, 7, 0] ^= 1 << 14


# Rows and heads


@_weights("art-row-zero", sentence="One row of a matrix is zero.", rows=slice(100, 101), tensor="blk.5.ffn_down.weight")
@_weights(
    "art-query-head-zero",
    sentence="One query head of a block is zero.",
    rows=slice(0, _HEAD),
    tensor="blk.8.attn_q.weight",
)
@_weights(
    "art-value-head-zero",
    sentence="One value head of a block is zero.",
    rows=slice(0, _HEAD),
    tensor="blk.8.attn_v.weight",
)
@_weights("art-matrix-zero", sentence="A whole matrix is zero.", rows=slice(None), tensor="blk.8.attn_output.weight")
def rows_zero(copy: ModelCopy, rows: slice, tensor: str) -> None:
    """Set rows to zero: a scale and a minimum of zero make every weight of a block zero."""
    copy.tensor(tensor)[rows] = 0


@_weights(
    "art-k-permuted-block",
    sentence="The key rows of one block are in the order of another rotation.",
    cause="API usage",
    references=("ggml-org/llama.cpp#3364",),
    layers=(3,),
    kinds="k",
)
@_weights(
    "art-k-permuted",
    sentence="The key rows of every block are in the order of another rotation.",
    cause="API usage",
    references=("ggml-org/llama.cpp#3364", "huggingface/transformers#31766"),
    layers=range(30),
    kinds="k",
)
@_weights(
    "art-qk-unpermuted",
    sentence="The query and key rows of every block are in the order of another rotation.",
    cause="API usage",
    references=("karpathy/llama2.c#286",),
    layers=range(30),
    kinds="qk",
)
def rows_permuted(copy: ModelCopy, layers: Any, kinds: str) -> None:
    """Put the rows that are rotated together half a head apart."""
    for name in (f"blk.{layer}.attn_{kind}.weight" for layer in layers for kind in kinds):
        data = copy.tensor(name)
        heads = data.reshape(-1, _HEAD // 2, 2, data.shape[1]).swapaxes(1, 2)
        data[:] = heads.reshape(data.shape).copy()


@_weights("art-heads-exchanged", sentence="Two key heads of a block have each other's rows.", cause="API usage")
def heads_exchanged(copy: ModelCopy) -> None:
    """Exchange the first two key heads."""
    data = copy.tensor("blk.8.attn_k.weight")
    data[: 2 * _HEAD] = np.roll(data[: 2 * _HEAD], _HEAD, axis=0)


# Tensors under another's name


@_weights(
    "art-k-v-swapped",
    sentence="The keys and values of a block have each other's matrix.",
    cause="API usage",
    layers=(8,),
    names=("attn_k", "attn_v"),
)
@_weights(
    "art-q-output-swapped",
    sentence="The queries and the output of a block have each other's matrix.",
    cause="API usage",
    layers=(8,),
    names=("attn_q", "attn_output"),
)
@_weights(
    "art-gate-up-swapped-block",
    sentence="Gate and up of one block have each other's matrix.",
    cause="API usage",
    layers=(8,),
    names=("ffn_gate", "ffn_up"),
)
@_weights(
    "art-gate-up-swapped",
    sentence="Gate and up of every block have each other's matrix.",
    cause="API usage",
    layers=range(30),
    names=("ffn_gate", "ffn_up"),
)
@_weights(
    "art-norms-swapped",
    sentence="The two norms of a block have each other's weights.",
    cause="API usage",
    layers=(8,),
    names=("attn_norm", "ffn_norm"),
)
def tensors_swapped(copy: ModelCopy, layers: Any, names: tuple[str, str]) -> None:
    """Exchange two tensors of a block."""
    for layer in layers:
        _exchange(copy, *(f"blk.{layer}.{name}.weight" for name in names))


@_weights(
    "art-blocks-swapped", sentence="Two distant blocks have each other's place.", cause="API usage", first=10, second=20
)
@_weights(
    "art-neighbours-swapped",
    sentence="Two neighbouring blocks have each other's place.",
    cause="API usage",
    first=14,
    second=15,
)
def blocks_swapped(copy: ModelCopy, first: int, second: int) -> None:
    """Exchange all tensors of two blocks."""
    for name in _of_block(copy, first):
        _exchange(copy, f"blk.{first}.{name}", f"blk.{second}.{name}")


@_weights("art-block-repeated", sentence="A block has the tensors of its neighbour.", cause="API usage")
def block_repeated(copy: ModelCopy) -> None:
    """Copy all tensors of a block over the next."""
    for name in _of_block(copy, 16):
        copy.tensor(f"blk.17.{name}")[:] = copy.tensor(f"blk.16.{name}")


# Norms


def _norm(
    name: str, sentence: str, tensor: str, factor: float = 1.0, added: float = 0.0, **more: Any
) -> Callable[[Any], Any]:
    return _weights(f"art-norm-{name}", sentence=sentence, tensor=tensor, factor=factor, added=added, **more)


@_norm("near", "A norm's weights are one part in a hundred too large.", "blk.10.attn_norm.weight", 1.01)
@_norm("doubled", "A norm's weights are twice as large.", "blk.10.attn_norm.weight", 2.0)
@_norm("zero", "A norm's weights are zero.", "blk.10.ffn_norm.weight", 0.0)
@_norm("output-doubled", "The last norm's weights are twice as large.", "output_norm.weight", 2.0)
@_norm(
    "plus-one",
    "One is added to a norm's weights, as other families want it.",
    "blk.10.attn_norm.weight",
    added=1.0,
    cause="API usage",
)
def norm_scaled(copy: ModelCopy, tensor: str, factor: float, added: float) -> None:
    """Change a norm's weights."""
    weights = copy.tensor(tensor).view("<f4")
    weights[:] = weights * np.float32(factor) + np.float32(added)


# Embeddings, which are the output's rows too


@_weights(
    "art-embedding-zero",
    sentence="The embedding of the line break, which is in every prompt, is zero.",
    text="\u010a",
    bits=0,
)
@_weights(
    "art-embedding-nan",
    sentence="The embedding of the line break, which is in every prompt, is not a number.",
    text="\u010a",
    bits=_FP16_NAN,
)
@_weights(
    "art-embedding-unused-zero",
    sentence="The embedding of a token that no case uses is zero.",
    text="\u0120archaeologists",
    bits=0,
)
def embedding_set(copy: ModelCopy, text: str, bits: int) -> None:
    """Write bits over the scales of a token's row."""
    _field(copy, "token_embd.weight", "scale").view("<u2")[_row_of(copy, text)] = bits


@_weights("art-embeddings-swapped", sentence="Two words have each other's embedding.", cause="API usage")
def embeddings_swapped(copy: ModelCopy) -> None:
    """Exchange the rows of two words."""
    data = copy.tensor("token_embd.weight")
    rows = [_row_of(copy, "\u0120the"), _row_of(copy, "\u0120a")]
    data[rows] = data[rows[::-1]]


@_weights(
    "art-embeddings-shifted",
    sentence="Every token but the first few has the embedding of its neighbour.",
    cause="API usage",
)
def embeddings_shifted(copy: ModelCopy) -> None:
    """Move the rows of all ordinary tokens by one, as a converter does that counts an added token twice."""
    data = copy.tensor("token_embd.weight")
    data[17:] = np.roll(data[17:], 1, axis=0)


# The disk


@_weights("art-tail-zero", sentence="The last three megabytes of the file are zeros, as after a broken download.")
def tail_zero(copy: ModelCopy) -> None:
    """Set the last tensors of the file to zero."""
    left = 3 << 20
    for name in reversed(copy.tensor_names):
        data = copy.tensor(name)
        data[:] = 0
        left -= data.size
        if left <= 0:
            return


@_weights("art-sector-zero", sentence="4,096 bytes in the middle of a matrix are zeros, as of a disk's lost sector.")
def sector_zero(copy: ModelCopy) -> None:
    """Set a page of a tensor to zero."""
    copy.tensor("blk.2.ffn_up.weight").reshape(-1)[40_960:45_056] = 0
