"""What llama.cpp's loader asks of a file: sizes out of its keys, and the tensors that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Sizes:
    """The hyper-parameters that shapes follow from, of the first layer where each has its own.

    Attributes:
        layers: Layers of the network, without those that predict further tokens (`nextn`).
        all_layers: Layers with those.
        embedding: Width of the embedding.
        context: Length of the context that it was trained with.
        vocabulary: Number of tokens.
        feed_forward: Width of the feed-forward network.
        expert_feed_forward: The same of one expert, 0 where the file does not say.
        shared_feed_forward: The same of the shared experts, 0 where the file does not say.
        heads: Heads of the queries.
        kv_heads: Heads of the keys and values.
        key_length: Width of a head of queries and keys.
        value_length: Width of a head of values.
        rotated: Dimensions of a head that RoPE turns.
        experts: Number of experts, 0 if there are none.
        experts_used: How many of them a token goes through.
        labels: Number of labels of a classifier.
        longrope: Whether RoPE's frequencies are divided by one of two tables.
        own: The integers that the architecture alone reads, by key.
    """

    layers: int
    all_layers: int
    embedding: int
    context: int
    vocabulary: int
    feed_forward: int
    expert_feed_forward: int
    shared_feed_forward: int
    heads: int
    kv_heads: int
    key_length: int
    value_length: int
    rotated: int
    experts: int
    experts_used: int
    labels: int
    longrope: bool
    own: Mapping[str, int]

    @property
    def queries(self) -> int:
        """Width of all queries."""
        return self.heads * self.key_length

    @property
    def keys(self) -> int:
        """Width of all keys."""
        return self.kv_heads * self.key_length

    @property
    def values(self) -> int:
        """Width of all values."""
        return self.kv_heads * self.value_length


@dataclass
class Wanted:
    """The tensors that an architecture asks for.

    Attributes:
        sizes: What their shapes follow from.
        present: The shapes of the file's tensors by name, innermost dimension first.
        required: Shapes of those that must be there.
        optional: Shapes of those that may be there.
    """

    sizes: Sizes
    present: Mapping[str, Shape]
    required: dict[str, Shape] = field(default_factory=dict)
    optional: dict[str, Shape] = field(default_factory=dict)

    def need(self, name: str, *shape: int) -> None:
        """Ask for a tensor."""
        self.required[name] = shape

    def may(self, name: str, *shape: int) -> None:
        """Allow a tensor."""
        self.optional[name] = shape

    def ask(self, name: str, *shape: int, needed: bool) -> None:
        """Ask for a tensor or allow it."""
        (self.need if needed else self.may)(name, *shape)

    def embedding(self) -> None:
        """Ask for the rows of the tokens."""
        self.need("token_embd.weight", self.sizes.embedding, self.sizes.vocabulary)

    def output(self, *, needed: bool = False) -> None:
        """Ask for the output's own rows, or allow them, where the embedding's are taken otherwise."""
        self.ask("output.weight", self.sizes.embedding, self.sizes.vocabulary, needed=needed)

    def norm(self, name: str, *, bias: bool | None = False) -> None:
        """Ask for a norm as wide as the embedding; `bias` is None where it may have one."""
        self.need(f"{name}.weight", self.sizes.embedding)
        if bias is not False:
            self.ask(f"{name}.bias", self.sizes.embedding, needed=bool(bias))

    def matrix(self, name: str, inner: int, outer: int, *, bias: bool | None = False) -> None:
        """Ask for a matrix; `bias` is None where it may have one."""
        self.need(f"{name}.weight", inner, outer)
        if bias is not False:
            self.ask(f"{name}.bias", outer, needed=bool(bias))

    def attention(self, block: str, queries: int, keys: int, values: int) -> None:
        """Ask for queries, keys and values, which may be one tensor; each may have a bias."""
        width = self.sizes.embedding
        self.may(f"{block}.attn_qkv.weight", width, queries + keys + values)
        parts = {"attn_q": queries, "attn_k": keys, "attn_v": values}
        if f"{block}.attn_qkv.weight" in self.present:
            self.may(f"{block}.attn_qkv.bias", queries + keys + values)
        else:
            for name, size in parts.items():
                self.need(f"{block}.{name}.weight", width, size)
        if f"{block}.attn_qkv.bias" not in self.present:
            for name, size in parts.items():
                self.may(f"{block}.{name}.bias", size)

    def gated(self, block: str, *, bias: bool | None = False) -> None:
        """Ask for a feed-forward network with a gate."""
        inner, outer = self.sizes.embedding, self.sizes.feed_forward
        self.matrix(f"{block}.ffn_gate", inner, outer, bias=bias)
        self.plain(block, bias=bias)

    def plain(self, block: str, *, bias: bool | None = False) -> None:
        """Ask for a feed-forward network without a gate."""
        inner, outer = self.sizes.embedding, self.sizes.feed_forward
        self.matrix(f"{block}.ffn_up", inner, outer, bias=bias)
        self.matrix(f"{block}.ffn_down", outer, inner, bias=bias)

    def experts(self, block: str, width: int, *, gate_needed: bool = True) -> None:
        """Ask for the router and the experts' matrices."""
        inner, count = self.sizes.embedding, self.sizes.experts
        self.need(f"{block}.ffn_gate_inp.weight", inner, count)
        self.ask(f"{block}.ffn_gate_exps.weight", inner, width, count, needed=gate_needed)
        self.need(f"{block}.ffn_up_exps.weight", inner, width, count)
        self.need(f"{block}.ffn_down_exps.weight", width, inner, count)

    def shared_experts(self, block: str, width: int) -> None:
        """Ask for the matrices of the experts that every token goes through."""
        inner = self.sizes.embedding
        self.need(f"{block}.ffn_gate_shexp.weight", inner, width)
        self.need(f"{block}.ffn_up_shexp.weight", inner, width)
        self.need(f"{block}.ffn_down_shexp.weight", width, inner)

    def blocks(self) -> list[str]:
        """Return the prefixes of the layers' tensors."""
        return [f"blk.{number}" for number in range(self.sizes.layers)]


_SCALED = (
    *("attn_q", "attn_k", "attn_v", "attn_output", "attn_qkv", "attn_gate", "ffn_gate", "ffn_down", "ffn_up"),
    *("ffn_gate_shexp", "ffn_down_shexp", "ffn_up_shexp"),
)
_SCALED_BY_EXPERT = ("ffn_gate_exps", "ffn_down_exps", "ffn_up_exps")


def allow_scales(wanted: Wanted) -> None:
    """Allow the scales that any matrix of a layer may have beside it."""
    kinds = {**dict.fromkeys(_SCALED, 1), **dict.fromkeys(_SCALED_BY_EXPERT, wanted.sizes.experts)}
    for name in wanted.present:
        block, _, rest = name.rpartition(".")
        if rest == "weight" and block.startswith("blk.") and block.split(".")[-1] in kinds:
            for scale in ("scale", "input_scale"):
                wanted.may(f"{block}.{scale}", kinds[block.split(".")[-1]])
