"""What defects cost, as the tables of a document and as a figure.

A table stands between `<!-- stages: begin NAME -->` and `<!-- stages: end NAME -->`; what stands around is written by
hand and left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from harness.errors import UserError

if TYPE_CHECKING:
    from harness.attribution.size import Interval, Placed, Size, Sizes
    from harness.checking.noise import Noise
    from harness.statistics import Share

_NUMBERS: Final = ("mean KL, nats", "median KL", "largest", "greedy choices turned", "texts changed")


def filled(document: str, tables: Mapping[str, str]) -> str:
    """Return a document with its tables as they are now.

    Args:
        document: The document.
        tables: By name.

    Raises:
        UserError: the document does not have the two comments of a table once each, in their order.
    """
    for name, table in tables.items():
        begin, end = f"<!-- stages: begin {name} -->", f"<!-- stages: end {name} -->"
        before, opened, rest = document.partition(begin)
        _, closed, after = rest.partition(end)
        if not opened or not closed or begin in rest or end in after:
            raise UserError(f"the document has no one table {name!r}", f"it stands between {begin} and {end}")
        document = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return document


def tables_of(sizes: Sizes, noise: Noise) -> dict[str, str]:
    """Return every table in Markdown, by name.

    Args:
        sizes: What the study says.
        noise: What was measured of healthy engines when the goldens were recorded.
    """
    return {
        "scale": _scale(sizes),
        "sizes": _stages(sizes),
        "silent": _silent(sizes),
        "settings": _settings(sizes),
        "engines": _engines(noise),
        "defects": _defects(sizes),
    }


def _scale(sizes: Sizes) -> str:
    rows = []
    for step, size in sizes.scale:
        types = ", ".join(f"{count} {name}" for name, count in step.types.items() if name != "F32") or "none"
        name = step.name if step.name in sizes.steps else f"{step.name} (the file's own grid)"
        rows.append((name, types, f"{step.size / 1e6:.0f}", *_numbers(size)))
    return _table(("step", "tensors that are not F32", "MB", *_NUMBERS), rows)


def _defects(sizes: Sizes) -> str:
    rows = [_defect(one) for one in sizes.effects if one.effect.struck]
    table = _table(("defect", "stage", "cases struck", *_NUMBERS, "without an answer", "on the scale"), rows)
    idle = [f"`{one.effect.id}`" for one in sizes.effects if not one.effect.struck]
    return f"{table}\n\nOther ids in no case: {', '.join(idle)}." if idle else table


def _defect(placed: Placed) -> tuple[str, ...]:
    effect, size = placed.effect, placed.size
    numbers = ("-",) * len(_NUMBERS) if size is None else _numbers(size)
    return (
        f"`{effect.id}`",
        effect.stage,
        f"{effect.struck} of {effect.of}",
        *numbers,
        str(len(effect.lost)),
        placed.place,
    )


def _stages(sizes: Sizes) -> str:
    rows = []
    for one in sizes.stages:
        means = ("-",) * 3 if one.means is None else tuple(_nats(mean) for mean in one.means)
        rows.append((one.stage, *map(str, (one.measured, one.idle, one.lost, one.struck)), *means))
    head = ("stage", "defects", "other ids in no case", "a case without an answer", "with a KL", "smallest mean KL")
    return _table((*head, "median of means", "largest mean"), rows)


def _silent(sizes: Sizes) -> str:
    rows = [
        (one.stage, str(one.above), *(_share(share) for share in (one.silent, one.fluent, one.kept)))
        for one in sizes.stages
    ]
    head = ("stage", "defects above Q8_0", "greedy text of no case changed", "fluent", "cases that keep their text")
    return _table(head, rows)


def _settings(sizes: Sizes) -> str:
    rows = []
    for one, default, golden in sizes.settings:
        rows.append(
            (
                f"{one.component}: {one.name}",
                f"{one.identical} of {default.cases}",
                _within(default.mean, default.mean_within),
                _nats(default.largest),
                _share(default.turned),
                f"{default.texts.count} of {default.texts.of}",
                _within(golden.mean, golden.mean_within),
                _nats(golden.largest),
                _share(golden.turned),
            )
        )
    default_head = ("mean KL from the default", "largest", "choices turned", "texts changed")
    golden_head = ("mean KL from the golden", "largest", "choices turned")
    return _table(("setting", "cases with the same bits", *default_head, *golden_head), rows)


def _engines(noise: Noise) -> str:
    rows = [
        (f"{component}: {name}", f"{seen.positions:,}", *(_nats(one) for one in (seen.mean, seen.p99, seen.max)))
        for component, measured in noise.root.items()
        for name, seen in measured.classes.items()
    ]
    return _table(("engine and settings", "positions", "mean KL from the golden", "99th percentile", "largest"), rows)


def _numbers(size: Size) -> tuple[str, ...]:
    return (
        _within(size.mean, size.mean_within),
        _within(size.median, size.median_within),
        _nats(size.largest),
        _share(size.turned),
        f"{size.texts.count} of {size.texts.of}",
    )


def _within(value: float, interval: Interval | None) -> str:
    return _nats(value) if interval is None else f"{_nats(value)} ({_nats(interval[0])} to {_nats(interval[1])})"


def _nats(value: float) -> str:
    return f"{value:.2g}"


def _share(share: Share) -> str:
    if not share.of:
        return "-"
    return f"{share.count} of {share.of} ({100 * share.low:.0f} to {100 * share.high:.0f} %)"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ("---", *["---:"] * (len(head) - 1)), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
