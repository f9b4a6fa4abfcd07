"""Checks of what llama.cpp refuses to load: the types of keys, their values, and the tensors that must be there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.doctor.architectures import ARCHITECTURES, Architecture
from harness.doctor.diagnosis import Check
from harness.doctor.facts import Facts, Judgement, judge, quoted, some
from harness.doctor.pre_tokenizers import BPE_TOKENIZERS, ENGINE_VERSION
from harness.doctor.wanted import Shape, Sizes, Wanted, allow_scales

_CONVERT = f"llama.cpp {ENGINE_VERSION} does not load the file; convert the model again"
_MOST_LAYERS = 512
_MOST_EXPERTS = 1024
_UNSIGNED = (1 << 32) - 1

# Keys that every file has or may have, each with the only type that is taken. `!`: it must be there.
_GENERAL = {
    "!general.architecture": "STRING",
    "general.name": "STRING",
    "general.file_type": "UINT32",
    "split.count": "UINT16",
    "general.tensor_extra.name": "STRING[]",
}
# The same under the architecture's prefix.
_COMMON = {
    "!context_length": "UINT32",
    "!embedding_length": "UINT32",
    "!block_count": "UINT32",
    "embedding_length_out": "UINT32",
    "attention.causal": "BOOL",
    "pooling_type": "UINT32",
    "classifier.pooling_type": "UINT32",
    "nextn_predict_layers": "UINT32",
    "expert_count": "UINT32",
    "expert_used_count": "UINT32 or array",
    "expert_group_count": "UINT32",
    "expert_group_used_count": "UINT32",
    "feed_forward_length": "UINT32 or array",
    "attention.head_count": "UINT32 or array",
    "attention.head_count_kv": "UINT32 or array",
    "rope.scaling.finetuned": "BOOL",
    "rope.scaling.original_context_length": "UINT32",
    "rope.freq_base": "FLOAT32",
    "rope.scaling.type": "STRING",
    "rope.scaling.factor": "FLOAT32",
    "rope.scaling.attn_factor": "FLOAT32",
    "rope.scaling.alpha": "FLOAT32",
    "attention.key_length_swa": "UINT32",
    "attention.value_length_swa": "UINT32",
    "rope.dimension_count_swa": "UINT32",
    "classifier.output_labels": "labels",
}
# Read where there are heads.
_OF_HEADS = {
    "attention.key_length": "UINT32",
    "attention.value_length": "UINT32",
    "rope.dimension_count": "UINT32",
}
_VOCABULARY = {
    "!tokenizer.ggml.model": "STRING",
    "tokenizer.ggml.pre": "STRING",
    "tokenizer.ggml.token_type_count": "UINT32",
}
# Read where the model of the tokenizer is not that of a file without a vocabulary.
_TOKENS = {
    "!tokenizer.ggml.tokens": "STRING[]",
    "tokenizer.ggml.scores": "FLOAT32[] or INT32[]",
    "tokenizer.ggml.token_type": "INT32[]",
    "tokenizer.ggml.suppress_tokens": "INT32[]",
    **dict.fromkeys(
        (
            *("tokenizer.ggml.add_space_prefix", "tokenizer.ggml.remove_extra_whitespaces"),
            *("tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token", "tokenizer.ggml.add_sep_token"),
            *("tokenizer.ggml.normalizer.lowercase", "tokenizer.ggml.normalizer.strip_accents"),
        ),
        "BOOL",
    ),
    **{
        f"tokenizer.ggml.{role}_token_id": "UINT32"
        for role in (
            *("bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "mask"),
            *("fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep", "prefix", "suffix", "middle"),
        )
    },
}
# No matrix is multiplied in these types; measured with llama-cpp-python 0.3.36.
_NO_WEIGHTS = ("Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64")
# Tensors that are added, or that a row is scaled by. Any type but float32 ends the process; measured as well.
_ADDED_OR_SCALED = re.compile(r"\.(?:bias|scales?|input_scale)$|norm\w*\.weight$|^rope_|attn_sinks")
_WINDOW = "attention.sliding_window"
# A wider one needs more memory than can be had.
_WIDEST_WINDOW = 1 << 31
_PER_LAYER = ("UINT32[]", "INT32[]", "BOOL[]")
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")


def wanted_tensors(facts: Facts) -> Wanted | None:
    """Return the tensors that a file's keys ask for, or None where the keys or the architecture do not say."""
    architecture = ARCHITECTURES.get(facts.known_architecture)
    sizes = _read(_Keys(facts), architecture)
    if architecture is None or sizes is None:
        return None
    return _wanted(facts, architecture, sizes)


def loading_checks(facts: Facts) -> Iterator[Check]:
    """Run every check of what llama.cpp refuses to load."""
    if not facts.is_language_model:
        reason = Judgement("unobserved", "the file does not say to be a language model (general.type)")
        yield Check(name="keys", **reason._asdict())
        yield Check(name="tensors", **reason._asdict())
        return
    keys = _Keys(facts)
    architecture = ARCHITECTURES.get(facts.known_architecture)
    sizes = _read(keys, architecture)
    fine = f"{len(keys.asked)} that llama.cpp reads, all of the types that it takes"
    yield Check(name="keys", **judge([some(keys.wrong)] if keys.wrong else [], [], fine, _CONVERT)._asdict())
    yield Check(name="tensors", **_tensors(facts, architecture, sizes)._asdict())


class _Keys:
    """A file's keys, each asked for with the type that llama.cpp takes.

    Attributes:
        asked: Those that were asked for and are there.
        wrong: What it refuses.
        of_vocabulary_alone: Whether they are of a file that holds a vocabulary and nothing else.
    """

    def __init__(self, facts: Facts) -> None:
        self.asked: set[str] = set()
        self.wrong: list[str] = []
        self._values = facts.model.metadata
        self._types = facts.model.types
        self._prefix = facts.known_architecture
        self.of_vocabulary_alone = facts.is_vocabulary_alone

    def read(self, wanted: Mapping[str, str], *, layers: int = 0) -> dict[str, Any]:
        """Return the values of the keys that are there, those of a wrong type left out."""
        found = {}
        for name, type_ in wanted.items():
            key = name.removeprefix("!")
            if key not in self._types:
                if name.startswith("!"):
                    self.wrong.append(f"{quoted(key)} is missing")
                continue
            self.asked.add(key)
            problem = self._problem(key, type_, layers)
            if problem:
                self.wrong.append(f"{quoted(key)} {problem}")
            else:
                found[key] = self._values[key]
        return found

    def under(self, wanted: Mapping[str, str], *, layers: int = 0) -> dict[str, Any]:
        """Do the same for keys under the architecture's prefix, which the names returned are without."""
        prefix = f"{self._prefix}."
        whole = {("!" if key[0] == "!" else "") + prefix + key.removeprefix("!"): of for key, of in wanted.items()}
        return {key.removeprefix(prefix): value for key, value in self.read(whole, layers=layers).items()}

    def _problem(self, key: str, wanted: str, layers: int) -> str:
        found = self._types[key]
        if wanted == "labels":  # what is no array is passed over
            return "" if found == "STRING[]" or not found.endswith("[]") else f"is {found}, not STRING[]"
        first, _, second = wanted.partition(" or ")
        if found == first or (second.endswith("[]") and found == second):
            return ""
        if found.endswith("[]") and second in ("array", "window array", "four"):
            if found not in _PER_LAYER:
                return f"is {found}, not UINT32[]"
            count = len(self._values[key])
            right = {"array": layers, "four": 4, "window array": min(count, _MOST_LAYERS)}[second]
            return "" if count == right else f"has {count:,} values, not {right}"
        return f"is {found}, not {wanted}"


def _read(keys: _Keys, architecture: Architecture | None) -> Sizes | None:
    """Ask for every key that llama.cpp reads, and return the sizes of the architecture if it takes them."""
    if keys.read(_GENERAL).get("split.count", 0) > 1:
        keys.read({"!split.no": "UINT16", "!split.tensors.count": "INT32"})
    vocabulary = _read_vocabulary(keys)
    if keys.of_vocabulary_alone:
        return None
    layers = keys.under({"block_count": "UINT32"}).get("block_count", 0)
    found = keys.under(_COMMON, layers=layers)
    own = architecture.keys if architecture else {}
    found |= keys.under({key: of for key, of in own.items() if not key.startswith("vocab")}, layers=layers)
    heads = _first(found.get("attention.head_count", 0))
    if heads:
        found |= keys.under(_OF_HEADS)
    if "rope.scaling.factor" not in found:
        keys.under({"rope.scale_linear": "FLOAT32"})
    if vocabulary is None or "vocab_size" in own:
        size = keys.under({"vocab_size": "UINT32"}).get("vocab_size", 0)
        vocabulary = size if vocabulary is None else vocabulary
    keys.wrong += _refused(found, architecture, heads)
    if keys.wrong or architecture is None:
        return None
    return _sizes(found, vocabulary)


def _read_vocabulary(keys: _Keys) -> int | None:
    """Return the number of tokens, or None if the file says to have no vocabulary."""
    found = keys.read(_VOCABULARY)
    model = found.get("tokenizer.ggml.model")
    if model in ("none", "no_vocab"):
        return None
    tokens = keys.read(_TOKENS)
    if model in BPE_TOKENIZERS:
        needed = "" if found.get("tokenizer.ggml.pre") == "kimi-k2" and model != "gemma4" else "!"
        keys.read({f"{needed}tokenizer.ggml.merges": "STRING[]"})
    count = len(tokens.get("tokenizer.ggml.tokens", ()))
    for name in ("scores", "token_type"):
        values = tokens.get(f"tokenizer.ggml.{name}")
        if values is not None and len(values) < count:
            keys.wrong.append(f"'tokenizer.ggml.{name}' has {len(values):,} values for {count:,} tokens")
    return count


def _first(value: Any) -> int:
    """Return the first layer's value as llama.cpp stores it, which knows no sign."""
    if isinstance(value, list):
        value = value[0] if value else 0
    return int(value) & _UNSIGNED


def _refused(found: Mapping[str, Any], architecture: Architecture | None, heads: int) -> Iterator[str]:
    """Yield each value that llama.cpp refuses."""
    layers, further = found.get("block_count", 1), found.get("nextn_predict_layers", 0)
    if not 0 < layers <= _MOST_LAYERS:
        yield f"block_count is {layers}, not 1 to {_MOST_LAYERS}"
    if further > layers:
        yield f"nextn_predict_layers is {further}, more than block_count"
    scaling = found.get("rope.scaling.type", "none")
    if scaling not in _ROPE_SCALINGS:
        yield f"rope.scaling.type is {quoted(scaling)}, none of {', '.join(_ROPE_SCALINGS)}"
    # Minus one, as an unsigned number, means none.
    if architecture and architecture.windows != "never" and _WIDEST_WINDOW <= found.get(_WINDOW, 0) < _UNSIGNED:
        yield f"{_WINDOW} is {found[_WINDOW]}"
    yield from _refused_experts(found, architecture)
    if architecture and heads:
        yield from _refused_heads(found, architecture, heads)


def _refused_heads(found: Mapping[str, Any], architecture: Architecture, heads: int) -> Iterator[str]:
    width = found.get("embedding_length", 0) // heads
    keys, values = found.get("attention.key_length", width), found.get("attention.value_length", width)
    rotated = found.get("rope.dimension_count", keys)
    if architecture.rotates == "a part apart":
        whole = found.get("attention.key_length_mla") or keys
        if rotated >= whole:
            yield f"rope.dimension_count is {rotated}, but heads have {whole} dimensions, some of which do not turn"
        return
    if keys != values:
        yield f"heads of keys have {keys} dimensions, of values {values}"
    wrong = {"all": rotated != keys, "some": rotated > keys, "none": False}[architecture.rotates]
    if wrong:
        yield f"rope.dimension_count is {rotated}, but heads have {keys} dimensions"
    if architecture.windows == "never" or (architecture.windows == "if given" and not found.get(_WINDOW)):
        return
    # The other layers have no window, and one set of shapes is asked of all.
    for name, whole in (
        ("attention.key_length", keys),
        ("attention.value_length", values),
        ("rope.dimension_count", rotated),
    ):
        own = found.get(f"{name}_swa", whole)
        if own != whole:
            yield f"{name}_swa is {own}, but {name} is {whole}"


def _refused_experts(found: Mapping[str, Any], architecture: Architecture | None) -> Iterator[str]:
    count, used = found.get("expert_count", 0), found.get("expert_used_count", 0)
    most = max((_first([one]) for one in used), default=0) if isinstance(used, list) else used
    groups, groups_used = found.get("expert_group_count", 0), found.get("expert_group_used_count", 0)
    if count > _MOST_EXPERTS:
        yield f"expert_count is {count}, more than {_MOST_EXPERTS}"
    if most > count or (count and not most):
        yield f"expert_used_count is {most} of {count} experts"
    if groups and groups >= count:
        yield f"expert_group_count is {groups} for {count} experts"
    elif groups > 1 and (count % groups or not 0 < groups_used < groups):
        yield f"{count} experts are in {groups} groups, of which {groups_used} are used"
    if architecture and architecture.experts and not count:
        yield "there is no expert_count, which the architecture needs"


def _sizes(found: Mapping[str, Any], vocabulary: int) -> Sizes:
    heads, embedding = _first(found.get("attention.head_count", 0)), found["embedding_length"]
    of_head = embedding // heads if heads else 0
    key_length = found.get("attention.key_length", of_head)
    layers = found["block_count"]
    return Sizes(
        layers=layers - found.get("nextn_predict_layers", 0),
        all_layers=layers,
        embedding=embedding,
        context=found["context_length"],
        vocabulary=vocabulary,
        feed_forward=_first(found.get("feed_forward_length", 0)),
        expert_feed_forward=_first(found.get("expert_feed_forward_length", 0)),
        shared_feed_forward=found.get("expert_shared_feed_forward_length", 0),
        heads=heads,
        kv_heads=_first(found.get("attention.head_count_kv", heads)),
        key_length=key_length,
        value_length=found.get("attention.value_length", of_head),
        rotated=found.get("rope.dimension_count", key_length),
        experts=found.get("expert_count", 0),
        experts_used=_first(found.get("expert_used_count", 0)),
        labels=len(found.get("classifier.output_labels", ())) or 1,
        longrope=found.get("rope.scaling.type") == "longrope",
        own={key: value for key, value in found.items() if isinstance(value, int)},
    )


def _tensors(facts: Facts, architecture: Architecture | None, sizes: Sizes | None) -> Judgement:
    if not facts.model.tensors:
        return Judgement("unobserved", "the file has no tensors")
    if facts.is_one_of_several:
        return Judgement("unobserved", "one shard of a split model; the other tensors are in other files")
    if architecture is None:
        found = f"nothing is known of the architecture {quoted(facts.known_architecture)}: its tensors were not held"
        return Judgement("unobserved", f"{found} against anything")
    if sizes is None:
        return Judgement("unobserved", "no sizes follow from the keys, so no shapes either")
    if architecture.further_layers and sizes.layers != sizes.all_layers:
        return Judgement("unobserved", "the tensors of layers that predict further tokens are not known")
    wanted = _wanted(facts, architecture, sizes)
    present = wanted.present
    types = _wrong_types(facts, wanted)
    missing = [quoted(name) for name in wanted.required if name not in present]
    shapes = {**wanted.optional, **wanted.required}
    unknown = [quoted(name) for name in present if name not in shapes]
    wrong = [
        f"{quoted(name)} is {_written(shape)}, not {_written(_stripped(shapes[name]))}"
        for name, shape in present.items()
        if name in shapes and shape != _stripped(shapes[name])
    ]
    bad = [f"missing: {some(missing)}"] if missing else []
    bad += [f"of a wrong shape: {some(wrong)}"] if wrong else []
    bad += [f"of a type that it cannot compute with: {some(types)}"] if types else []
    bad += [f"of no use to the architecture: {some(unknown)}"] if unknown else []
    fine = f"{len(present)}, with all that {quoted(facts.known_architecture)} needs, of the right shapes"
    return judge(bad, [], fine, _CONVERT)


def _wanted(facts: Facts, architecture: Architecture, sizes: Sizes) -> Wanted:
    wanted = Wanted(sizes, {tensor.name: _stripped(tensor.shape) for tensor in facts.model.tensors})
    architecture.tensors(wanted)
    allow_scales(wanted)
    return wanted


def _wrong_types(facts: Facts, wanted: Wanted) -> list[str]:
    """Return the tensors of a type that llama.cpp's processor code aborts at, or runs into nothing with."""
    asked = {**wanted.optional, **wanted.required}
    return [
        f"{quoted(tensor.name)} is {tensor.tensor_type.name}"
        for tensor in facts.model.tensors
        if tensor.name in asked
        and (
            tensor.tensor_type.name in _NO_WEIGHTS
            or (_ADDED_OR_SCALED.search(tensor.name) and tensor.tensor_type.name != "F32")
        )
    ]


def _stripped(shape: Shape) -> Shape:
    """Return a shape without the ones at its end, which mean nothing."""
    sizes = [int(size) for size in shape]
    while len(sizes) > 1 and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes) or (1,)


def _written(shape: Shape) -> str:
    return "x".join(map(str, shape))
