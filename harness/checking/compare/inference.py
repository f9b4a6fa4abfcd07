"""The inference stage: the same ids in, so the same distributions out, within the noise measured on healthy engines.

Distributions are compared, not greedy text: a near-tie may turn the text of a healthy engine, and a wrong rope base may
keep it. Three things are kept apart: settings that are not those asked for (an integration defect), numbers that
differ (the engine), and numbers that agree while another token is chosen (the sampler).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.checking.compare.hunks import common_prefix
from harness.checking.compare.outcome import (
    Comparison,
    Difference,
    Hunk,
    compare_endings,
    diverged,
    equivalent,
    told_as,
    unobserved,
)
from harness.values import Distributions, Ending, Generation, Refusal, Value

FEWEST = 8
"""Positions from which the mean of a case is judged. Of so many positions drawn at random from those of a healthy
llama.cpp, one mean in 10,000 reaches 0.45 of the limit; that of a single one can exceed it (with flash attention)."""
_SMALLEST = 1e-12
_ROUNDED = 1e-2
"""By how much rounding may have the probabilities of a position exceed one, with room: float32 has it by about 1e-6."""
_UNASKED = "(not asked for)"
BEYOND_CONTEXT = "prompt longer than the context"
"""What a case covers whose prompt need not fit: of any other, a context without room for it is a wrong setting."""
_CHARACTER = 3
"""How many ids beyond a limit may complete a character, which is a declared policy of the postprocess stage's."""
_NEUTRAL: Mapping[str, Any] = {
    "repeat_penalty": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logit_bias": {},
    "typical_p": 1,
    "xtc_probability": 0,
    "dynatemp_range": 0,
    "dry_multiplier": 0,
    "mirostat": 0,
}
"""Settings that turn a greedy choice, with the value at which they do not."""


class Floor(Value):
    """The noise floor in force: how far from the reference a healthy engine may be.

    Attributes:
        limit: The largest Kullback-Leibler divergence from the reference, in nats, at any one position.
        mean: The largest mean of it over all positions of a case that has `FEWEST` of them or more.
        source: Where the limit comes from, for the report.
    """

    limit: float
    mean: float
    source: str


def compare(
    golden: Generation | Refusal, observed: Generation | Ending | None, asked: Mapping[str, Any], floor: Floor | None
) -> Comparison:
    """Hold a generation against the reference's.

    Args:
        golden: The reference's, on the same ids.
        observed: The stack's; its ids may leave the golden's where its sampler was free to choose.
        asked: The settings that the case asks for.
        floor: The noise floor, or None where none was measured.
    """
    ended = compare_endings(golden, observed)
    if ended is not None:
        return _refused(ended, observed)
    assert isinstance(golden, Generation)
    assert isinstance(observed, Generation)
    settings = _settings(asked, observed)
    if settings is not None:
        return diverged(settings)
    if observed.distributions is None or golden.distributions is None:
        return unobserved("the engine does not show its distributions")
    # A position's distribution rests on the ids before it, so the first id that differs ends the comparison.
    same = common_prefix(golden.ids, observed.ids)
    positions = min(same + 1, len(golden.ids), len(observed.distributions))
    if positions < min(same + 1, len(golden.ids), len(observed.ids)):
        return unobserved(f"the engine shows its distributions at {len(observed.distributions)} positions only")
    if positions == 0:
        return unobserved("no position to compare")
    divergence = divergences(golden.distributions.head(positions), observed.distributions.head(positions))
    broken = np.flatnonzero(~np.isfinite(divergence))
    if broken.size:
        at = int(broken[0])
        what = "not a number" if np.isnan(observed.distributions.logprobs[at]).any() else "no distribution"
        summary = f"{what} in the log-probabilities of generated position {at}"
        return diverged(Difference(summary=summary, causes=("nan",), kind="engine"))
    worst = float(divergence.max())
    if floor is None:
        return unobserved(f"no noise floor was measured for this model (KL {worst:.3g})")
    # A mean over fewer positions than were measured together would vary more than the measured ones.
    steady = positions == len(golden.ids) >= FEWEST
    if worst > floor.limit or (steady and divergence.mean() > floor.mean):
        return diverged(_numbers(golden, observed, divergence, floor), kl=worst, limit=floor.limit)
    sampler = _sampler(observed, positions, asked)
    if sampler is not None:
        return diverged(sampler, kl=worst)
    end = _end(golden, observed, same, asked)
    if end is not None:
        return diverged(end)
    rule = f"within the noise floor (KL {worst:.3g} <= {floor.limit:.3g})"
    pairs = zip(golden.chosen[:positions], observed.chosen[:positions], strict=True)
    turns = sum(a != b for a, b in pairs) if asked.get("temperature") == 0 else 0
    if turns:
        rule += f", near-tie at {turns} position{'s' if turns > 1 else ''}"
    return equivalent(rule, kl=worst, limit=floor.limit)


def outside_context(
    golden: Generation | Refusal | None, observed: object, ids: int, context: int | None, *, covered: bool
) -> Comparison | None:
    """Return that nothing can be held where the context in force is another than the golden's; else None.

    The reference's context is the one that the model was trained for, the part's the one that its stack sets.

    Args:
        golden: The reference's generation, or its refusal.
        observed: The part's.
        ids: How many the prompt has.
        context: How many the part's context takes; None if it does not show that.
        covered: Whether the case is there for a prompt that does not fit.
    """
    if isinstance(golden, Refusal) and golden.context and isinstance(observed, Generation):
        if context is not None and ids < context:
            return unobserved(f"the prompt of {ids} ids fits this part's context of {context}: no refusal is due")
        return None
    refuses = isinstance(golden, Generation) and isinstance(observed, Refusal) and observed.context
    if covered and refuses and (context is None or ids >= context):
        size = "" if context is None else f" of {context}"
        return unobserved(f"the prompt of {ids} ids does not fit this part's context{size}, and it says so")
    return None


def _refused(ended: Comparison, observed: Generation | Ending | None) -> Comparison:
    """Say whose it is that ids are refused which the reference takes: a setting's, or the engine's own."""
    if not isinstance(observed, Refusal):
        return ended
    asked_wrongly = observed.context or observed.error.startswith("HTTP 4") or observed.error == TypeError.__name__
    return told_as("integration" if asked_wrongly else "engine", ended)


def divergences(golden: Distributions, observed: Distributions) -> NDArray[np.float64]:
    """Return KL(golden || observed) in nats, (positions,).

    It is taken over the golden's kept tokens and one bucket for all others; merging outcomes can only lower a
    divergence (data-processing inequality: Cover and Thomas, Elements of Information Theory, 2.8), so a difference is
    never invented. Not finite where the observed row holds a NaN, or is no distribution.
    """
    assert golden.ids is not None
    assert golden.rest is not None
    result = np.empty(len(golden))
    for row in range(len(golden)):
        ids = golden.ids[row]
        p = golden.logprobs[row].astype(np.float64)
        rest_p = float(np.exp(np.float64(golden.rest[row])))
        # What only one side keeps goes to the bucket, and so does what the golden rules out (0 log 0 is 0).
        both = np.isfinite(p) if observed.ids is None else np.isfinite(p) & np.isin(ids, observed.ids[row])
        rest_p += float(np.exp(p[~both]).sum())
        p, q = p[both], observed.at(row, ids[both]).astype(np.float64)
        with np.errstate(over="ignore"):
            mass_p, mass_q = np.exp(p), np.exp(q)
        rest_q = max(1.0 - float(mass_q.sum()), _SMALLEST)
        kept = float((mass_p * (p - np.maximum(q, np.log(_SMALLEST)))).sum())
        rest = rest_p * float(np.log(max(rest_p, _SMALLEST)) - np.log(rest_q))
        # A NaN anywhere in the row condemns it, whichever tokens are compared; and so does more than all probability.
        wrong = np.isnan(observed.logprobs[row]).any() or _too_likely(observed, row)
        result[row] = np.nan if wrong else max(kept + rest, 0.0)
    return result


def _too_likely(observed: Distributions, row: int) -> bool:
    """Return whether the probabilities that an engine shows itself sum to more than one."""
    if observed.ids is None:
        return False
    with np.errstate(over="ignore"):
        return bool(np.exp(observed.logprobs[row].astype(np.float64)).sum() > 1.0 + _ROUNDED)


def _end(golden: Generation, observed: Generation, same: int, asked: Mapping[str, Any]) -> Difference | None:
    """Return how a generation that chose nothing else ended somewhere else, or for another reason."""
    length = len(observed.ids)
    most = asked.get("max_tokens")
    if most is not None and length > most + _CHARACTER:
        summary = f"generation went on for {length - most} ids where max_tokens is {most}"
        return Difference(summary=summary, causes=("longer than max_tokens",))
    if same < min(length, len(golden.ids)):
        return None
    if length < len(golden.ids) and observed.finish != "stop":
        wanted = f"not by {golden.finish} after {len(golden.ids)}"
        summary = f"generation ended by {observed.finish} after {length} ids, {wanted}"
    elif length > len(golden.ids + golden.beyond) and golden.finish != "stop":
        summary = f"generation went on for {length - len(golden.ids)} ids where it must end by {golden.finish}"
    elif length == len(golden.ids) and observed.finish not in (golden.finish, "forced"):
        summary = f"generation ended by {observed.finish}, not by {golden.finish}"
    else:
        return None
    return Difference(summary=summary, causes=(f"finish\0{golden.finish}\0{observed.finish}",))


def _settings(asked: Mapping[str, Any], observed: Generation) -> Difference | None:
    in_force, defaults = observed.settings, observed.defaults
    wrong = [
        Hunk(at=name, golden=str(value), observed=str(in_force[name]))
        for name, value in asked.items()
        if name in in_force and in_force[name] != value
    ]
    if defaults is not None:
        unasked = (name for name in in_force if name not in asked and name not in defaults)
        wrong += [Hunk(at=name, golden=_UNASKED, observed=str(in_force[name])) for name in unasked]
    if not wrong:
        return None
    first = wrong[0]
    wanted = "nobody asked for it" if first.golden == _UNASKED else f"asked was {first.golden}"
    summary = f"the sampler runs with {first.at} {first.observed}, {wanted}"
    causes = tuple(f"setting\0{place.at}" for place in wrong)
    return Difference(summary=summary, hunks=tuple(wrong), causes=causes, kind="integration")


def _numbers(golden: Generation, observed: Generation, divergence: NDArray[np.float64], floor: Floor) -> Difference:
    above = np.flatnonzero(divergence > floor.limit)
    assert golden.distributions is not None
    assert observed.distributions is not None
    if above.size:
        first = int(above[0])
        size = f"KL {divergence.max():.3g} nats, limit {floor.limit:.3g} ({floor.source})"
    else:
        first = int(divergence.argmax())
        size = f"mean KL {divergence.mean():.3g} nats, limit {floor.mean:.3g} ({floor.source})"
    where = "first" if above.size else "most"
    summary = f"same ids in, other numbers out: {size}; {where} at generated position {first}"
    place = Hunk(
        at=f"generated position {first}",
        golden=_likeliest(golden.distributions, first),
        observed=_likeliest(observed.distributions, first),
    )
    return Difference(summary=summary, hunks=(place,), causes=("numbers",), kind="engine", size=float(divergence.max()))


def _likeliest(distributions: Distributions, row: int) -> str:
    top = Distributions(
        distributions.logprobs[row : row + 1],
        None if distributions.ids is None else distributions.ids[row : row + 1],
    ).top(3)
    assert top.ids is not None
    pairs = zip(top.ids[0, :3].tolist(), top.logprobs[0, :3].tolist(), strict=True)
    return " ".join(f"{i}:{logprob:.3f}" for i, logprob in pairs)


def _sampler(observed: Generation, positions: int, asked: Mapping[str, Any]) -> Difference | None:
    """Return how the sampler's choice contradicts its own numbers; only greedy choices can be judged."""
    assert observed.distributions is not None
    if asked.get("temperature") != 0:
        return None
    likeliest = observed.distributions.head(positions).argmax()
    for row, best in enumerate(likeliest[: len(observed.chosen)]):
        choice = observed.chosen[row]
        pair = observed.distributions.at(row, np.array([best, choice], dtype=np.int32))
        if choice != best and pair[0] != pair[1]:
            in_force = {name: observed.settings.get(name) for name in _NEUTRAL}
            turning = [name for name, value in in_force.items() if value not in (None, [], _NEUTRAL[name])]
            for name in turning[:1]:
                summary = (
                    f"nobody asked for {name} {observed.settings[name]}, which is in force and turns the choice at "
                    f"generated position {row} from id {best} to {choice}"
                )
                return Difference(summary=summary, causes=(f"setting\0{name}",))
            summary = (
                f"the numbers agree, but at temperature 0 the sampler chose id {choice} "
                f"({pair[1]:.3f}) over {best} ({pair[0]:.3f}) at generated position {row}"
            )
            return Difference(summary=summary, causes=("sampler",), kind="engine")
    return None
