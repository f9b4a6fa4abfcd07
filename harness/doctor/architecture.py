"""Checks of the architecture: are the hyper-parameters there, sane, and those of these tensors?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.doctor.architectures import ENGINE_ARCHITECTURES
from harness.doctor.diagnosis import Check
from harness.doctor.facts import Facts, Judgement, check, judge, quoted, some
from harness.doctor.pre_tokenizers import ENGINE_VERSION

_CONVERT = "convert the model again from the original weights"
_NOT_A_LANGUAGE_MODEL = Judgement("unobserved", "the file does not say to be a language model (general.type)")

# A limit on the digits, because a hostile name may hold more than int() takes.
_LAYER = re.compile(r"(?:enc\.|dec\.)?blk\.(\d{1,9})\.")
# Every language model has these; what else is required depends on the architecture.
_REQUIRED = ("block_count", "context_length", "embedding_length")
_EPSILONS = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "attention.group_norm_epsilon")
# 1e-12 to 1e-3, both inclusive after rounding to float32, as files store them.
_SANE_EPSILON = (0.999e-12, 1.001e-3)
# Published models lie between 10,000 and 1e8 or so; far outside is more likely a value of the wrong unit or type.
_SANE_ROPE_BASE = (100.0, 1e12)
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")


def architecture_checks(facts: Facts) -> Iterator[Check]:
    """Run every check of the architecture and its hyper-parameters."""
    yield _architecture(facts)
    yield _hyper_parameters(facts)
    yield _layers(facts)
    yield _embedding(facts)
    yield _attention_heads(facts)
    yield _rope(facts)
    yield _norm_epsilon(facts)


@check("architecture")
def _architecture(facts: Facts) -> Judgement:
    name = facts.architecture
    if not name:
        return Judgement("bad", "general.architecture is missing; no engine can load the file", _CONVERT)
    if name in ENGINE_ARCHITECTURES:
        return Judgement("ok", quoted(name))
    return Judgement(
        "bad",
        f"{quoted(name)} is unknown to llama.cpp {ENGINE_VERSION}, which refuses to load the file",
        "check the spelling of general.architecture, or use an engine new enough to know it",
    )


@check("hyper-parameters")
def _hyper_parameters(facts: Facts) -> Judgement:
    if not facts.is_language_model:
        return _NOT_A_LANGUAGE_MODEL
    if facts.is_vocabulary_alone:
        return Judgement("unobserved", "the file holds a vocabulary alone")
    bad = []
    for name in _REQUIRED:
        value = facts.integer(facts.hyper(name))
        if value is None:
            bad.append(f"{quoted(facts.hyper(name))} is missing")
        elif value <= 0:
            bad.append(f"{quoted(facts.hyper(name))} is {value}")
    fine = ", ".join(f"{name} {facts.integer(facts.hyper(name))}" for name in _REQUIRED)
    return judge(bad, [], fine, f"expected positive integers; {_CONVERT}")


@check("layers")
def _layers(facts: Facts) -> Judgement:
    declared = facts.integer(facts.hyper("block_count"))
    if declared is None:
        return Judgement("unobserved", "the file does not declare block_count")
    if not facts.model.tensors:
        return Judgement("unobserved", "the file has no tensors")
    if facts.is_one_of_several:
        return Judgement("unobserved", "one shard of a split model; the other layers are in other files")
    present = {int(match[1]) for tensor in facts.model.tensors if (match := _LAYER.match(tensor.name))}
    bad = []
    # Counting up to the first missing one ends, however large the declared count is.
    first_missing = next(number for number in range(len(present) + 1) if number not in present)
    if first_missing < declared:
        bad.append(f"block_count is {declared}, but there is no tensor blk.{first_missing}.*")
    beyond = sorted(number for number in present if number >= declared)
    if beyond:
        bad.append(f"block_count is {declared}, but there are tensors of layer {some(beyond)}")
    return judge(bad, [], f"{declared}, all present", f"block_count and the layers must agree; {_CONVERT}")


@check("embedding")
def _embedding(facts: Facts) -> Judgement:
    embedding = next((tensor for tensor in facts.model.tensors if tensor.name == "token_embd.weight"), None)
    if embedding is None:
        if facts.model.tensors and facts.is_language_model and not facts.is_one_of_several:
            return Judgement("bad", "there is no tensor token_embd.weight", _CONVERT)
        return Judgement("unobserved", "the file has no tensor token_embd.weight")
    shape = list(embedding.shape)
    while len(shape) > 2 and shape[-1] == 1:
        shape.pop()
    if len(shape) != 2:
        return Judgement("bad", f"token_embd.weight has the shape {shape}, not two dimensions", _CONVERT)
    bad = []
    length = facts.integer(facts.hyper("embedding_length"))
    if length is not None and length != shape[0]:
        bad.append(f"embedding_length is {length}, but token_embd.weight has rows of {shape[0]}")
    if facts.tokens and len(facts.tokens) != shape[1]:
        bad.append(f"the vocabulary has {len(facts.tokens)} tokens, but token_embd.weight has {shape[1]} rows")
    return judge(bad, [], f"{shape[1]} rows of {shape[0]}", f"metadata and weights must agree; {_CONVERT}")


@check("attention heads")
def _attention_heads(facts: Facts) -> Judgement:
    if not facts.is_language_model:
        return _NOT_A_LANGUAGE_MODEL
    heads = _per_layer(facts, "attention.head_count")
    if heads is None:
        return Judgement("unobserved", "the file does not declare attention.head_count (state-space models need none)")
    kv_heads = _per_layer(facts, "attention.head_count_kv") or heads
    if len(heads) > 1 and len(kv_heads) > 1 and len(heads) != len(kv_heads):
        found = f"attention.head_count has {len(heads)} entries, head_count_kv has {len(kv_heads)}"
        return Judgement("bad", found, _CONVERT)
    layers = max(len(heads), len(kv_heads))
    pairs = set(zip(_spread(heads, layers), _spread(kv_heads, layers), strict=True))
    bad = []
    for head_count, kv_count in sorted(pairs):
        # Zero marks a layer without attention, in hybrid models.
        if head_count < 0 or kv_count < 0 or (kv_count and head_count % kv_count):
            bad.append(f"{head_count} heads cannot share {kv_count} key-value heads evenly")
    # With a key_length of its own the head size does not follow from the embedding.
    length = facts.integer(facts.hyper("embedding_length")) or 0
    if facts.integer(facts.hyper("attention.key_length")) is None:
        bad += [
            f"embedding_length {length} is no multiple of {count} heads"
            for count in set(heads)
            if count and length % count
        ]
    if not any(heads) and len(heads) == 1 and "attn" in _tensor_names(facts):
        bad.append("attention.head_count is 0, but there are attention tensors")
    fine = f"{some(sorted(set(heads)))} heads, {some(sorted(set(kv_heads)))} key-value heads"
    return judge([some(bad)] if bad else [], [], fine, _CONVERT)


@check("rope")
def _rope(facts: Facts) -> Judgement:
    if not facts.is_language_model:
        return _NOT_A_LANGUAGE_MODEL
    bad, odd = [], []
    base = facts.number(facts.hyper("rope.freq_base"))
    dimensions = facts.integer(facts.hyper("rope.dimension_count"))
    if base is None and dimensions is not None:
        odd.append("rope.freq_base is missing: the engine silently takes 10000")
    elif base is not None and base <= 0:
        bad.append(f"rope.freq_base is {base:g}")
    elif base is not None and not _SANE_ROPE_BASE[0] <= base <= _SANE_ROPE_BASE[1]:
        odd.append(f"rope.freq_base is {base:g}, far from that of any published model")
    if dimensions is not None and (dimensions <= 0 or dimensions % 2):
        bad.append(f"rope.dimension_count is {dimensions}, not a positive even number")
    scaling = facts.text(facts.hyper("rope.scaling.type"))
    if scaling is not None and scaling not in _ROPE_SCALINGS:
        bad.append(f"rope.scaling.type is {quoted(scaling)}, none of {', '.join(_ROPE_SCALINGS)}")
    factor = facts.number(facts.hyper("rope.scaling.factor"))
    if factor is not None and factor <= 0:
        bad.append(f"rope.scaling.factor is {factor:g}")
    original = facts.integer(facts.hyper("rope.scaling.original_context_length"))
    if original is not None and original <= 0:
        bad.append(f"rope.scaling.original_context_length is {original}")
    if base is None and dimensions is None:
        fine = "not declared; right for a model without rotary embeddings"
    else:
        fine = f"base {base:g}" if base is not None else ""
        fine += f", {dimensions} dimensions" if dimensions is not None else ""
        fine += f", {scaling} scaling by {factor or 1:g}" if scaling not in (None, "none") else ""
    return judge(bad, odd, fine, f"compare with the original model's config.json; {_CONVERT}")


@check("norm epsilon")
def _norm_epsilon(facts: Facts) -> Judgement:
    if not facts.is_language_model:
        return _NOT_A_LANGUAGE_MODEL
    declared = {name: value for name in _EPSILONS if (value := facts.number(facts.hyper(name))) is not None}
    if not declared and "norm" in _tensor_names(facts):
        found = "there are norm tensors, but no layer_norm_rms_epsilon or layer_norm_epsilon"
        return Judgement("bad", found, _CONVERT)
    if not declared:
        return Judgement("unobserved", "the file declares no epsilon and has no norm tensors")
    low, high = _SANE_EPSILON
    bad = [f"{name} is {value:g}" for name, value in declared.items() if not low <= value <= high]
    fine = ", ".join(f"{name.removeprefix('attention.')} {value:g}" for name, value in declared.items())
    return judge(bad, [], fine, f"expected between 1e-12 and 1e-3; {_CONVERT}")


def _per_layer(facts: Facts, name: str) -> list[int] | None:
    """Return a hyper-parameter that is one number for all layers, or an array with one for each."""
    key = facts.hyper(name)
    if isinstance(facts.model.metadata.get(key), list):
        return facts.integers(key) or None
    value = facts.integer(key)
    return None if value is None else [value]


def _spread(values: list[int], layers: int) -> list[int]:
    return values if len(values) == layers else values * layers


def _tensor_names(facts: Facts) -> str:
    return " ".join(tensor.name for tensor in facts.model.tensors)
