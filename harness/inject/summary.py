"""What a campaign says: shares of outcomes, what notices a fault, and where an engine is vulnerable.

A share is of the faults that struck: what is `void` changed nothing where it was to strike, is in no denominator and is
counted apart. Harm is silent data corruption (`sdc`) or a detected unrecoverable error (`due`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Final, TypeVar, get_args

from harness.inject.bits import F16, Part, place_of
from harness.inject.campaign import Manifest
from harness.inject.fault import OUTCOMES, Fault, Injection, Outcome, Phase
from harness.statistics import Share, margin, mcnemar, sample_size, wilson
from harness.values import Value

_Pair = tuple[Fault, Injection]
_Key = TypeVar("_Key", bound=Hashable)
_Name = TypeVar("_Name", str, int)

HARM: Final = frozenset({"sdc", "due_nan", "due_crash", "due_hang"})
CHECKS: Final = ("digest", "nan", "distribution", "text", "ended")
"""What can notice a fault: the checks of `Injection.detected_by`, and that the engine crashed or hung."""
_ENDED: Final = frozenset({"due_crash", "due_hang"})
_MARGINS: Final = (0.05, 0.01)


class Divergence(Value):
    """KL divergences from the clean run, in nats, of the runs that ended with numbers.

    Quantiles are by nearest rank; None where there is no run, or where the one of that rank is infinite.

    Attributes:
        runs: How many runs.
        infinite: How many of them leave out what the clean run does not.
        median: The median.
        high: The 90th percentile.
    """

    runs: int
    infinite: int
    median: float | None
    high: float | None


class Group(Value):
    """Faults that have something in common.

    Attributes:
        name: What that is.
        index: The layer or the bit, where it is one.
        struck: How many faults struck.
        void: How many others did not.
        sdc: The share of silent data corruption.
        harm: The share of any harm.
        divergence: How far the runs are from the clean one.
    """

    name: str
    index: int | None = None
    struck: int
    void: int
    sdc: Share
    harm: Share
    divergence: Divergence


class Bits(Value):
    """Flipped bits of one sort of number.

    Attributes:
        name: The form of the number, and what it is: `float16 scale`.
        parts: What its bits are, from the lowest on.
        groups: A group a bit; a bit without a fault has none.
    """

    name: str
    parts: tuple[Part, ...]
    groups: tuple[Group, ...]


class Cell(Value):
    """The faults of one module in one layer.

    Attributes:
        layer: The layer.
        module: The module.
        struck: How many struck.
        sdc: How many of them corrupted silently.
        harm: How many did any harm.
    """

    layer: int
    module: str
    struck: int
    sdc: int
    harm: int


class Detection(Value):
    """What a check notices, of the faults that changed a number or ended the engine.

    Attributes:
        check: The check.
        noticed: What it noticed.
        alone: How many no other check noticed.
        alone_but_digest: How many no other check noticed but the digest, which needs the same machine and build.
    """

    check: str
    noticed: Share
    alone: int
    alone_but_digest: int


class Summary(Value):
    """A campaign's results.

    Attributes:
        model: The model's name.
        sha256: Its file's hash.
        engine: What identifies the engine.
        seed: What the faults were drawn from.
        drawn: Faults in the manifest.
        run: Faults that were run.
        void: Those of them that did not strike.
        limit: The KL divergence in nats above which the check of distributions notices.
        population: How many different faults there are, where that is known.
        margin: The margin, at 95 % and for a share of one half, that the faults that struck make.
        needed: By margin, how many faults it takes, where the population is known.
        outcomes: The share of every outcome but `void`.
        harm: The share of any harm.
        detection: What each check notices.
        kinds: By kind of fault.
        modules: By module.
        layers: By layer; what is in none is in no group.
        fields: By field of a packed block; faults in nothing packed are in no group.
        phases: By phase.
        bits: By bit, for each sort of number.
        cells: By layer and module.
        notes: What to know before these numbers are used.
    """

    model: str
    sha256: str
    engine: dict[str, str]
    seed: int
    drawn: int
    run: int
    void: int
    limit: float
    population: int | None
    margin: float
    needed: dict[str, int]
    outcomes: dict[Outcome, Share]
    harm: Share
    detection: tuple[Detection, ...]
    kinds: tuple[Group, ...]
    modules: tuple[Group, ...]
    layers: tuple[Group, ...]
    fields: tuple[Group, ...]
    phases: tuple[Group, ...]
    bits: tuple[Bits, ...]
    cells: tuple[Cell, ...]
    notes: tuple[str, ...]


def summarise(manifest: Manifest, found: Mapping[str, Injection]) -> Summary:
    """Return what a campaign says so far.

    Args:
        manifest: The campaign.
        found: What came of its faults, by their id; see `harness.inject.campaign.results`.
    """
    ran = [(fault, found[name]) for fault in manifest.faults if (name := fault.id) in found]
    struck = [(fault, one) for fault, one in ran if one.outcome != "void"]
    counts = Counter(one.outcome for _, one in struck)
    bits, unknown = _bits(manifest, ran)
    population = manifest.population
    return Summary(
        model=manifest.model,
        sha256=manifest.setup.sha256,
        engine=manifest.engine,
        seed=manifest.seed,
        drawn=len(manifest.faults),
        run=len(ran),
        void=len(ran) - len(struck),
        limit=manifest.setup.limit,
        population=population,
        margin=margin(population, len(struck)),
        needed={} if population is None else {f"{one:g}": sample_size(population, one) for one in _MARGINS},
        outcomes={outcome: wilson(counts[outcome], len(struck)) for outcome in OUTCOMES if outcome != "void"},
        harm=wilson(sum(counts[outcome] for outcome in OUTCOMES if outcome in HARM), len(struck)),
        detection=_detection([one for _, one in struck]),
        kinds=_grouped(ran, lambda fault: fault.kind, manifest.kinds),
        modules=_grouped(ran, lambda fault: fault.module or None),
        layers=_grouped(ran, lambda fault: fault.layer),
        fields=_grouped(ran, lambda fault: fault.field),
        phases=_grouped(ran, lambda fault: fault.phase, get_args(Phase)),
        bits=bits,
        cells=_cells(struck),
        notes=_notes(manifest, len(ran), unknown),
    )


def _notes(manifest: Manifest, run: int, unknown: int) -> tuple[str, ...]:
    notes = [
        "Kinds and sites took turns when the faults were drawn: an overall share is of this mix of faults, not of all "
        "faults that there are weighted by their number. Within one kind, site and field every fault was as likely. "
        "A module, layer, field or phase is of all kinds that were drawn in it."
    ]
    if run < len(manifest.faults):
        notes.append(f"{len(manifest.faults) - run} of {len(manifest.faults)} faults are still to be run.")
    if unknown:
        notes.append(f"{unknown} flipped bits are in no table of bits: the type of their tensor or cache is not known.")
    return tuple(notes)


def _split(pairs: Iterable[_Pair], key: Callable[[Fault], _Key | None]) -> dict[_Key, list[_Pair]]:
    split: dict[_Key, list[_Pair]] = defaultdict(list)
    for fault, one in pairs:
        at = key(fault)
        if at is not None:
            split[at].append((fault, one))
    return split


def _grouped(
    pairs: Iterable[_Pair], key: Callable[[Fault], _Name | None], order: Sequence[_Name] = ()
) -> tuple[Group, ...]:
    """Return groups in a given order, else in that of their names or numbers."""
    rank = {name: at for at, name in enumerate(order)}
    split = sorted(_split(pairs, key).items(), key=lambda item: (rank.get(item[0], len(rank)), item[0]))
    return tuple(_group(name, [one for _, one in own]) for name, own in split)


def _group(at: str | int, found: Sequence[Injection]) -> Group:
    struck = [one for one in found if one.outcome != "void"]
    return Group(
        name=str(at),
        index=at if isinstance(at, int) else None,
        struck=len(struck),
        void=len(found) - len(struck),
        sdc=wilson(sum(one.outcome == "sdc" for one in struck), len(struck)),
        harm=wilson(sum(one.outcome in HARM for one in struck), len(struck)),
        divergence=_divergence(struck),
    )


def _divergence(struck: Iterable[Injection]) -> Divergence:
    # JSON has no infinity: what was infinite when it was measured is null in the results.
    ended_with_numbers = ("masked_identical", "masked_semantic", "sdc")
    values = sorted(
        math.inf if one.divergence is None else one.divergence for one in struck if one.outcome in ended_with_numbers
    )

    def quantile(share: float) -> float | None:
        value = values[math.ceil(share * len(values)) - 1] if values else math.inf
        return value if math.isfinite(value) else None

    infinite = sum(map(math.isinf, values))
    return Divergence(runs=len(values), infinite=infinite, median=quantile(0.5), high=quantile(0.9))


def _detection(struck: Iterable[Injection]) -> tuple[Detection, ...]:
    noticed = [
        frozenset(("ended",) if one.outcome in _ENDED else one.detected_by)
        for one in struck
        if one.outcome != "masked_identical"
    ]
    return tuple(
        Detection(
            check=check,
            noticed=wilson(sum(check in by for by in noticed), len(noticed)),
            alone=sum(by == {check} for by in noticed),
            alone_but_digest=sum(by - {"digest"} == {check} for by in noticed),
        )
        for check in CHECKS
    )


def _bits(manifest: Manifest, ran: Iterable[_Pair]) -> tuple[tuple[Bits, ...], int]:
    """Return groups by bit, and how many flipped bits have no known place."""
    context = manifest.setup.context
    caches = {f"cache_{side}": int(context.get(f"type_{side}", F16)) for side in "kv"}
    places = [(place_of(fault, manifest.types, caches), one) for fault, one in ran if fault.bit is not None]
    split: dict[tuple[str, tuple[Part, ...]], dict[int, list[Injection]]] = defaultdict(lambda: defaultdict(list))
    for place, one in places:
        if place is not None:
            split[f"{place.form.name} {place.what}", place.form.parts][place.bit].append(one)
    series = tuple(
        Bits(name=name, parts=parts, groups=tuple(_group(bit, groups[bit]) for bit in sorted(groups)))
        for (name, parts), groups in sorted(split.items(), key=lambda item: item[0][0])
    )
    return series, sum(place is None for place, _ in places)


def _cells(struck: Iterable[_Pair]) -> tuple[Cell, ...]:
    split = _split(struck, lambda f: (f.layer, f.module) if f.layer is not None and f.module else None)
    return tuple(
        Cell(
            layer=layer,
            module=module,
            struck=len(pairs),
            sdc=sum(one.outcome == "sdc" for _, one in pairs),
            harm=sum(one.outcome in HARM for _, one in pairs),
        )
        for (layer, module), pairs in sorted(split.items())
    )


class Contrast(Value):
    """What two arms do alike and not, over the same faults.

    Attributes:
        what: What they do: `sdc` or `harm`.
        both: Faults that do it in both arms.
        only_one: In the first arm only.
        only_other: In the second arm only.
        neither: In neither.
        p: The two-sided p-value that the arms are alike (McNemar's test, exact).
    """

    what: str
    both: int
    only_one: int
    only_other: int
    neither: int
    p: float


class Paired(Value):
    """Two arms over the same manifest, fault by fault.

    Attributes:
        compared: Faults that struck in both arms.
        void: Faults that were run in both but did not strike in one of them, or in both.
        unpaired: Faults that were run in one arm only.
        changed: By outcome in the first arm and in the second, how many faults went that way.
        contrasts: What differs.
    """

    compared: int
    void: int
    unpaired: int
    changed: dict[Outcome, dict[Outcome, int]]
    contrasts: tuple[Contrast, ...]


def paired(one: Mapping[str, Injection], other: Mapping[str, Injection]) -> Paired:
    """Compare two results over the same manifest, fault by fault.

    Args:
        one: The first arm's results, by fault.
        other: The second arm's.
    """
    ids = [fault for fault in one if fault in other]
    pairs = [(one[fault].outcome, other[fault].outcome) for fault in ids]
    struck = [pair for pair in pairs if "void" not in pair]
    counts = Counter(struck)
    changed = {
        first: {second: counts[first, second] for second in OUTCOMES if counts[first, second]}
        for first in OUTCOMES
        if any(first == before for before, _ in counts)
    }
    return Paired(
        compared=len(struck),
        void=len(pairs) - len(struck),
        unpaired=len(set(chain(one, other))) - len(ids),
        changed=changed,
        contrasts=(_contrast("sdc", struck, frozenset({"sdc"})), _contrast("harm", struck, HARM)),
    )


def _contrast(what: str, pairs: Iterable[tuple[Outcome, Outcome]], meant: frozenset[str]) -> Contrast:
    counts = Counter((first in meant, second in meant) for first, second in pairs)
    only_one, only_other = counts[True, False], counts[False, True]
    return Contrast(
        what=what,
        both=counts[True, True],
        only_one=only_one,
        only_other=only_other,
        neither=counts[False, False],
        p=mcnemar(only_one, only_other),
    )
