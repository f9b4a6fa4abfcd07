"""What must hold of an inference engine whatever it is fed: the list, what was seen of an invariant, what breaks it.

No reference is needed: one run of the engine is held against another one that must agree with it, or a sampler against
its own documentation. The engine runs in a child process; nothing here imports it.

Three rules for two runs. *Exact*: bit for bit, where the same kernels add the same numbers in the same order. *Order*:
the same numbers in another order; a micro-batch of one token takes other matrix kernels than one of two or more, and in
other cells of the cache a sum begins elsewhere. *Rounding*: other numbers that stand for the same, such as keys turned
to other positions, or kept in other bits. The limit of the last two is the caller's, and the median over the positions
is held to it: of a healthy engine (SmolLM2-135M, Q4_1) single positions of made-up prompts were seen to differ by 1.7
nats with other rounding and by 2.9 with another order, where the median of no prompt passed 0.012.

The exact rules were measured on the CPU backend without repacked weights, which is what `Engine` sets up.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from harness.checking.compare.inference import FEWEST, Floor
from harness.errors import unknown_name
from harness.process.child import Child
from harness.process.worker import Worker
from harness.stage import StageFailedError
from harness.values import Failure, Value

_BATCHES = "harness.llama.laboratory.properties_batches"
_SEQUENCES = "harness.llama.laboratory.properties_sequences"
_SAMPLING = "harness.llama.laboratory.properties_sampling"


LONGEST = 256
"""Ids of a prompt: a trial may feed it, and as much again for another sequence, to one context."""


class Invariant(NamedTuple):
    """A property of an engine.

    Attributes:
        name: Its name, and that of the function that tries it.
        sentence: What must hold.
        module: Where the function is; only the child imports it.
        quick: Whether it is among those that `check_invariants` tries.
        shortest: Ids that a prompt must have for anything to be compared and judged.
        slow: Whether it takes minutes; it is then tried once, and only when it is named.
    """

    name: str
    sentence: str
    module: str
    quick: bool = False
    shortest: int = 1
    slow: bool = False


INVARIANTS: tuple[Invariant, ...] = (
    Invariant("n_ubatch", "the size of a micro-batch does not change the logits", _BATCHES, quick=True),
    Invariant("n_batch", "the size of a batch does not change the logits", _BATCHES),
    Invariant("lengths", "a prompt that ends around a batch's end has the logits of a longer one's start", _BATCHES),
    Invariant("n_ctx", "the size of the context does not change the logits", _BATCHES),
    Invariant("threads", "the number of threads does not change the logits", _BATCHES),
    Invariant("split", "a prompt fed in two parts has the logits of the whole", _BATCHES, shortest=2),
    Invariant("one_by_one", "a prompt fed token by token has the logits of the whole", _BATCHES, shortest=FEWEST),
    Invariant("repeated", "the same prompt has the same logits again", _SEQUENCES, quick=True),
    Invariant(
        "neighbours", "another sequence in the batch and the cache does not change the logits", _SEQUENCES, quick=True
    ),
    Invariant("own_cache", "another sequence with a cache of its own does not change the logits", _SEQUENCES),
    Invariant(
        "prefix_shared",
        "a prefix shared with another sequence is as good as a fresh one",
        _SEQUENCES,
        quick=True,
        shortest=2,
    ),
    Invariant(
        "state", "a saved state restored goes on as if it had never been saved", _SEQUENCES, quick=True, shortest=2
    ),
    Invariant("rewound", "what was fed and removed again leaves no trace", _SEQUENCES, shortest=2),
    Invariant(
        "offset", "all positions moved by the same amount have the same logits", _SEQUENCES, quick=True, shortest=FEWEST
    ),
    Invariant("shift", "a cache whose positions were all moved goes on as before", _SEQUENCES, shortest=2 * FEWEST),
    Invariant(
        "hole", "after a middle part is removed and the rest moved up, the engine goes on", _SEQUENCES, shortest=3
    ),
    Invariant("flash_attention", "flash attention does not change the logits", _SEQUENCES, shortest=FEWEST),
    Invariant(
        "cache_types", "a cache of 32 bits instead of 16 does not change the logits", _SEQUENCES, shortest=FEWEST
    ),
    Invariant("past_training", "positions beyond the training length have finite logits", _SEQUENCES),
    Invariant("long_prompt", "a prompt longer than the training length has finite logits", _SEQUENCES, slow=True),
    Invariant("greedy", "the greedy sampler, and temperature 0, choose the likeliest id", _SAMPLING, quick=True),
    Invariant("seed", "a seed repeats its choices, and another seed makes others", _SAMPLING, quick=True),
    Invariant("logit_bias", "a bias forces and forbids its id, and changes no other logit", _SAMPLING, quick=True),
    Invariant(
        "penalties", "penalties change the logits of the ids seen, by their rule, and no other", _SAMPLING, quick=True
    ),
    Invariant("grammar", "a grammar lets through the texts that match it, and no other", _SAMPLING, quick=True),
    Invariant("end_ids", "an id that ends generation ends it, and nothing else does", _SAMPLING),
)


def invariants_named(names: Sequence[str]) -> tuple[Invariant, ...]:
    """Return invariants by name, in the order of the list; without a name all that are not slow.

    Raises:
        UserError: there is no such invariant.
    """
    known = {one.name for one in INVARIANTS}
    for name in names:
        if name not in known:
            raise unknown_name("invariant", name, known)
    return tuple(one for one in INVARIANTS if (one.name in names if names else not one.slow))


class Seen(Value):
    """One comparison that an invariant made.

    Attributes:
        what: The two sides, or what was claimed.
        rule: `exact`, `order` or `rounding` (see the module), or `claim` where no logits are compared.
        positions: How many rows of logits were compared.
        kl: The largest Kullback-Leibler divergence between them at one position, in nats; None where there is none.
        median: Its median over the positions.
        wrong: What is wrong whatever the limit; empty where nothing is.
    """

    what: str
    rule: Literal["exact", "order", "rounding", "claim"]
    positions: int = 0
    kl: float | None = None
    median: float | None = None
    wrong: str = ""

    def judged(self, floor: Floor | None) -> bool:
        """Return whether it can be judged: by a limit only if there is one, by a median only over enough positions."""
        if self.wrong or self.rule in ("exact", "claim"):
            return True
        return floor is not None and self.positions >= FEWEST

    def judge(self, floor: Floor | None) -> str:
        """Return what is wrong with it; empty where nothing is, or where it cannot be judged."""
        if self.share(floor) <= 1:
            return self.wrong
        assert floor is not None
        found = f"median KL over {self.positions} positions {self.median:.3g} nats"
        return f"{found}, limit {floor.mean:.3g} ({floor.source})"

    def share(self, floor: Floor | None) -> float:
        """Return how much of the limit its median takes; 0 where no limit applies."""
        if floor is None or self.rule in ("exact", "claim") or not self.judged(floor) or self.median is None:
            return 0.0
        return self.median / floor.mean


class Broken(Value):
    """An invariant that does not hold.

    Attributes:
        invariant: Its name.
        what: The comparison that broke.
        message: How.
        failure: How the engine's process ended, where it did.
    """

    invariant: str
    what: str
    message: str
    failure: Failure | None = None


class Trial(Value):
    """An invariant tried on one input.

    Attributes:
        invariant: Its name.
        seen: What was compared; nothing where the input is too short for it.
        failure: How the engine's process ended, where it did.
    """

    invariant: str
    seen: tuple[Seen, ...] = ()
    failure: Failure | None = None

    def broken(self, floor: Floor | None) -> Broken | None:
        """Return the first thing that is wrong, or None."""
        if self.failure is not None:
            said = self.failure.describe()
            return Broken(invariant=self.invariant, what="the engine's process", message=said, failure=self.failure)
        for one in self.seen:
            wrong = one.judge(floor)
            if wrong:
                return Broken(invariant=self.invariant, what=one.what, message=wrong)
        return None

    def judged(self, floor: Floor | None) -> bool:
        """Return whether anything of it could be judged."""
        return self.failure is not None or any(one.judged(floor) for one in self.seen)


def open_engine(path: Path, seconds: float = 120.0) -> Child:
    """Return the child process, not yet started, in which an engine is tried.

    Args:
        path: The GGUF.
        seconds: How long one trial may take.
    """
    return Child(Worker("harness.llama.laboratory.trials:Trials", {"path": str(path)}, seconds=seconds))


def attempt(child: Child, invariant: str, ids: Sequence[int], choice: int = 0) -> Trial:
    """Try an invariant on an input. A process that dies or hangs is an outcome; the next trial has a new one.

    Args:
        child: The process.
        invariant: Its name.
        ids: The prompt, from one to `LONGEST` ids.
        choice: What picks the settings; 0 picks the first ones.

    Raises:
        ValueError: the prompt is empty or too long.
        RemoteError: a defect of ours.
    """
    if not 0 < len(ids) <= LONGEST:
        raise ValueError(f"a prompt of {len(ids)} ids; from 1 to {LONGEST} can be tried")
    try:
        seen = child.call("attempt", invariant=invariant, ids=list(ids), choice=choice)
    except StageFailedError as failed:
        return Trial(invariant=invariant, failure=failed.failure)
    return Trial(invariant=invariant, seen=tuple(Seen.model_validate(one) for one in seen))


def check_invariants(child: Child, ids: Sequence[int], floor: Floor | None) -> tuple[Broken, ...]:
    """Try the quick invariants on one prompt, and return those that do not hold.

    Args:
        child: The process; see `open_engine`.
        ids: The prompt, from one to `LONGEST` ids. The time it takes is about that of 15 such prompts.
        floor: How far apart two healthy runs may be where they cannot be bit-identical (its mean); None leaves these
            unjudged.

    Raises:
        StageFailedError: the engine does not start: nothing can be said of it.
        ValueError: the prompt is empty or too long.
        RemoteError: a defect of ours.
    """
    child.start()
    tried = (attempt(child, one.name, ids) for one in INVARIANTS if one.quick)
    return tuple(broken for trial in tried if (broken := trial.broken(floor)) is not None)
