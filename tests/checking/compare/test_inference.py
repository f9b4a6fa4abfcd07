"""The inference stage: the numbers, then the sampler, then the end; and what cannot be judged."""

import math

import numpy as np
import pytest

from harness.checking.compare import inference
from harness.checking.compare.inference import Floor, compare, divergences
from harness.checking.compare.outcome import Comparison, Difference, Hunk, Outcome, diverged, equivalent, unobserved
from harness.values import Distributions, Failure, Refusal, Unobserved
from tests.made import FLOOR, LOGITS, distributions, generation, row

GREEDY = {"temperature": 0, "max_tokens": 8}
LOOSE = Floor(limit=100.0, mean=100.0, source="no limit to speak of")
GOLDEN = generation(distributions=distributions(*LOGITS).top())


def by_hand(p, q):
    """Kullback-Leibler divergence, by its definition and apart from the code under test."""
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def from_probabilities(*rows):
    return Distributions(np.log(np.array(rows, dtype=np.float64)).astype(np.float32))


def judge(observed, asked=GREEDY, floor=FLOOR, golden=GOLDEN):
    return compare(golden, observed, asked, floor)


# The divergence


P = ((0.5, 0.25, 0.125, 0.0625, 0.0625), (0.9, 0.025, 0.025, 0.025, 0.025))
Q = ((0.25, 0.5, 0.125, 0.0625, 0.0625), (0.2, 0.2, 0.2, 0.2, 0.2))


def test_the_divergence_is_that_of_the_definition():
    found = divergences(from_probabilities(*P).top(), from_probabilities(*Q))
    assert found == pytest.approx([by_hand(P[0], Q[0]), by_hand(P[1], Q[1])], abs=1e-6)
    assert found[0] == pytest.approx(0.25 * math.log(2), abs=1e-6)


def test_the_divergence_has_a_direction():
    there = divergences(from_probabilities(P[1]).top(), from_probabilities(Q[1]))
    back = divergences(from_probabilities(Q[1]).top(), from_probabilities(P[1]))
    assert there == pytest.approx([by_hand(P[1], Q[1])], abs=1e-6)
    assert back == pytest.approx([by_hand(Q[1], P[1])], abs=1e-6)
    assert abs(there[0] - back[0]) > 0.1


def test_what_the_golden_does_not_keep_is_one_bucket():
    random = np.random.default_rng(7)
    p, q = random.dirichlet(np.full(600, 0.05), 3), random.dirichlet(np.full(600, 0.5), 3)
    p, q = (p + 1e-6) / (1 + 600e-6), (q + 1e-6) / (1 + 600e-6)
    found = divergences(from_probabilities(*p).top(), from_probabilities(*q))
    for value, one, other in zip(found, p, q, strict=True):
        kept = np.argsort(-one, kind="stable")[:256]
        bucketed = by_hand([*one[kept], 1 - one[kept].sum()], [*other[kept], 1 - other[kept].sum()])
        assert value == pytest.approx(bucketed, rel=1e-4)
        assert value <= by_hand(one, other)


def test_what_differs_among_the_tokens_not_kept_is_not_seen():
    p = np.repeat([1.5, 0.5], 256) / 512
    swapped = np.tile([1.2, 0.8], 128)
    kept = np.concatenate([p[:256] * swapped, p[256:]])
    left_out = np.concatenate([p[:256], p[256:] * swapped])
    golden = from_probabilities(p).top()
    assert divergences(golden, from_probabilities(kept)) == pytest.approx([by_hand(p, kept)], rel=1e-4)
    assert divergences(golden, from_probabilities(left_out)) == pytest.approx([0.0], abs=1e-6)


def test_what_only_the_golden_keeps_counts_as_mass_of_the_bucket():
    golden = from_probabilities((0.5, 0.3, 0.1, 0.06, 0.04)).top()
    shown = from_probabilities((0.5, 0.1, 0.3, 0.06, 0.04)).top(2)
    assert sorted(shown.ids[0, :2]) == [0, 2]
    # Tokens 1, 3 and 4 are shown by one side only: 0.4 of the golden's mass, 0.2 of the observed.
    kept, other = (0.5, 0.1, 0.4), (0.5, 0.3, 0.2)
    assert divergences(golden, shown) == pytest.approx([by_hand(kept, other)], abs=1e-6)


def test_a_divergence_is_never_below_zero():
    # An engine whose log-probabilities sum to a little more than one, as a float32 softmax may.
    healthy = distributions(*LOGITS)
    heavy = Distributions(healthy.logprobs + np.float32(1e-3))
    assert divergences(healthy.top(), heavy).tolist() == [0.0] * 4


def test_equal_distributions_have_no_divergence():
    for p in (P, Q):
        assert divergences(from_probabilities(*p).top(), from_probabilities(*p)) == pytest.approx([0, 0], abs=1e-6)


def test_a_token_that_the_engine_rules_out_costs_much_and_stays_a_number():
    p = (0.5, 0.5, 0.0, 0.0, 0.0)
    with np.errstate(divide="ignore"):
        sure = from_probabilities((1.0, 0.0, 0.0, 0.0, 0.0))
    (found,) = divergences(from_probabilities((0.5, 0.4999, 1e-4, 1e-12, 1e-12)).top(), sure)
    assert found == pytest.approx(p[0] * math.log(0.5) + p[1] * math.log(0.5 / 1e-12), rel=1e-2)


# The numbers


def test_equal_numbers_are_equivalent_within_the_floor():
    found = judge(generation())
    assert found.outcome is Outcome.EQUIVALENT
    assert found.rule == f"within the noise floor (KL {found.measured['kl']:.3g} <= 0.01)"
    assert found.measured == {"kl": pytest.approx(0, abs=1e-6), "limit": 0.01}


def test_a_constant_added_to_the_logits_is_no_difference():
    shifted = [[value + 17.5 for value in one] for one in LOGITS]
    found = judge(generation(distributions=distributions(*shifted)))
    assert found.outcome is Outcome.EQUIVALENT
    assert found.measured["kl"] < 1e-5


def test_logits_scaled_are_the_engine():
    scaled = [[34 * value for value in one] for one in LOGITS]
    found = judge(generation(distributions=distributions(*scaled)))
    assert found.outcome is Outcome.DIVERGED
    assert found.difference.kind == "engine"
    assert found.difference.causes == ("numbers",)
    p, q = np.exp(distributions(*LOGITS).logprobs[0]), np.exp(distributions(*scaled).logprobs[0])
    assert found.measured["kl"] == pytest.approx(by_hand(p, np.maximum(q, 1e-12)), rel=0.02)


def test_logits_scaled_up_that_keep_every_choice_are_still_the_engine():
    scaled = generation(distributions=distributions(*[[2 * value for value in one] for one in LOGITS]))
    assert scaled.distributions.argmax() == GOLDEN.distributions.argmax()
    assert judge(scaled, floor=Floor(limit=1e-4, mean=1e-4, source="tight")).difference.kind == "engine"


def test_the_first_position_that_differs_is_named():
    rows = [LOGITS[0], LOGITS[1], row(0, 1), row(4, 2)]
    found = judge(generation(distributions=distributions(*rows)))
    p = [np.exp(distributions(one).logprobs[0].astype(np.float64)) for one in LOGITS]
    q = [np.exp(distributions(one).logprobs[0].astype(np.float64)) for one in rows]
    worst = max(by_hand(one, other) for one, other in zip(p, q, strict=True))
    assert found.measured == {"kl": pytest.approx(worst, abs=1e-5), "limit": 0.01}
    assert found == Comparison(
        outcome=Outcome.DIVERGED,
        difference=Difference(
            summary=f"same ids in, other numbers out: KL {worst:.3g} nats, limit 0.01 "
            "(3 times the noise of made engines); first at generated position 2",
            hunks=(
                Hunk(
                    at="generated position 2",
                    golden="3:-0.019 4:-4.019 0:-8.019",
                    observed="0:-0.018 1:-4.018 2:-9.018",
                ),
            ),
            causes=("numbers",),
            kind="engine",
            size=found.measured["kl"],
        ),
        measured=found.measured,
    )


@pytest.mark.parametrize(("factor", "outcome"), [(0.999, Outcome.DIVERGED), (1.001, Outcome.EQUIVALENT)])
def test_the_limit_divides(factor, outcome):
    golden = generation(ids=(0,), chosen=(0,), distributions=from_probabilities(P[0]).top())
    observed = generation(ids=(0,), chosen=(1,), distributions=from_probabilities(Q[0]))
    floor = Floor(limit=factor * 0.25 * math.log(2), mean=factor * 0.25 * math.log(2), source="tried")
    assert judge(observed, floor=floor, golden=golden).outcome is outcome


# The mean over a case


def off_by(*nudges):
    """Return the golden's rows, each with its likeliest logit off by so much, and how far each is from the golden's."""
    rows = [list(one) for one in LOGITS]
    for one, best, nudge in zip(rows, (1, 2, 3, 0), nudges, strict=True):
        one[best] += nudge
    pairs = zip(distributions(*LOGITS).logprobs, distributions(*rows).logprobs, strict=True)
    return rows, [by_hand(np.exp(p.astype(float)), np.exp(q.astype(float))) for p, q in pairs]


@pytest.fixture
def four_are_enough(monkeypatch):
    monkeypatch.setattr(inference, "FEWEST", 4)


def test_the_mean_of_a_few_positions_is_not_judged(monkeypatch):
    rows, kl = off_by(0.2, 0.3, 0.4, 0.25)
    floor = Floor(limit=1.1 * max(kl), mean=1e-9, source="tried")
    found = generation(distributions=distributions(*rows))
    assert inference.FEWEST == 8
    assert judge(found, floor=floor).outcome is Outcome.EQUIVALENT
    monkeypatch.setattr(inference, "FEWEST", 5)
    assert judge(found, floor=floor).outcome is Outcome.EQUIVALENT
    monkeypatch.setattr(inference, "FEWEST", 4)
    assert judge(found, floor=floor).outcome is Outcome.DIVERGED


@pytest.mark.usefixtures("four_are_enough")
@pytest.mark.parametrize(("factor", "outcome"), [(0.999, Outcome.DIVERGED), (1.001, Outcome.EQUIVALENT)])
def test_the_mean_limit_divides_where_no_position_exceeds_its_own(factor, outcome):
    rows, kl = off_by(0.2, 0.3, 0.4, 0.25)
    floor = Floor(limit=1.1 * max(kl), mean=factor * sum(kl) / 4, source="tried")
    assert judge(generation(distributions=distributions(*rows)), floor=floor).outcome is outcome


@pytest.mark.usefixtures("four_are_enough")
def test_a_mean_above_its_limit_is_the_engine_and_the_worst_position_is_shown():
    rows, kl = off_by(0.2, 0.3, 0.4, 0.25)
    mean = sum(kl) / 4
    found = judge(generation(distributions=distributions(*rows)), floor=Floor(limit=1.0, mean=mean / 2, source="tried"))
    assert found == Comparison(
        outcome=Outcome.DIVERGED,
        difference=Difference(
            summary=f"same ids in, other numbers out: mean KL {mean:.3g} nats, limit {mean / 2:.3g} (tried); "
            "most at generated position 2",
            hunks=(
                Hunk(
                    at="generated position 2",
                    golden="3:-0.019 4:-4.019 0:-8.019",
                    observed="3:-0.013 4:-4.413 0:-8.413",
                ),
            ),
            causes=("numbers",),
            kind="engine",
            size=found.measured["kl"],
        ),
        measured=found.measured,
    )
    assert found.measured == {"kl": pytest.approx(max(kl), abs=1e-6), "limit": 1.0}


def test_one_position_that_exceeds_its_limit_is_shown_as_that_though_the_mean_does_too():
    rows, kl = off_by(0.0, 0.0, 0.4, 0.5)
    floor = Floor(limit=kl[2] / 2, mean=1e-9, source="tried")
    summary = judge(generation(distributions=distributions(*rows)), floor=floor).difference.summary
    assert summary == (
        f"same ids in, other numbers out: KL {max(kl):.3g} nats, limit {kl[2] / 2:.3g} (tried); "
        "first at generated position 2"
    )


@pytest.mark.usefixtures("four_are_enough")
@pytest.mark.parametrize("asked", [GREEDY, {"temperature": 0.7}])
def test_the_mean_of_a_part_of_the_positions_is_not_judged(asked):
    rows, kl = off_by(0.2, 0.3, 0.4, 0.25)
    floor = Floor(limit=1.1 * max(kl), mean=1e-9, source="tried")
    whole = generation(distributions=distributions(*rows))
    assert judge(whole, asked=asked, floor=floor).difference.causes == ("numbers",)
    # Its own third id is another, so the fourth position is another question.
    part = generation(ids=(1, 2, 4, 0), chosen=(1, 2, 3, 0), distributions=distributions(*rows))
    assert judge(part, asked=asked, floor=floor).outcome is Outcome.EQUIVALENT
    last = generation(ids=(1, 2, 3, 4), chosen=(1, 2, 3, 0), distributions=distributions(*rows))
    assert judge(last, asked=asked, floor=floor).difference.causes == ("numbers",), "all were compared"


def test_the_mean_is_judged_over_all_positions_or_not_at_all():
    # Nine positions; the ninth is right, and the sampler leaves the golden's ids at the eighth.
    nudged, kl = off_by(0.2, 0.3, 0.4, 0.25)
    right, rows = [*LOGITS, *LOGITS, LOGITS[0]], [*nudged, *nudged, LOGITS[0]]
    ids = (1, 2, 3, 0, 1, 2, 3, 0, 1)
    golden = generation(ids=ids, chosen=ids, finish="length", distributions=distributions(*right).top())
    elsewhere = generation(
        ids=(*ids[:7], 4, 4), chosen=(*ids[:7], 4, 4), finish="length", distributions=distributions(*rows)
    )
    floor = Floor(limit=1.1 * max(kl), mean=sum(kl) / 5, source="tried")
    sampled = {"temperature": 0.7}
    assert inference.FEWEST == 8
    assert judge(elsewhere, sampled, floor, golden).outcome is Outcome.EQUIVALENT
    whole = elsewhere.model_copy(update={"ids": ids, "chosen": ids})
    assert judge(whole, sampled, floor, golden).difference.causes == ("numbers",)


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_logit_that_is_no_number_is_the_engine_whatever_the_floor(position, value):
    rows = [list(one) for one in LOGITS]
    rows[position][3] = value
    for floor in (FLOOR, LOOSE, None):
        assert judge(generation(distributions=distributions(*rows)), floor=floor) == diverged(
            Difference(
                summary=f"not a number in the log-probabilities of generated position {position}",
                causes=("nan",),
                kind="engine",
            )
        )


@pytest.mark.parametrize("shown", [8.0, 1e308, np.inf])
def test_more_than_all_probability_is_no_distribution(shown):
    """As of a server that shows its logits for log-probabilities: a golden's token seems likelier than any."""
    rows = [dict(enumerate(one.tolist())) for one in distributions(*LOGITS).logprobs]
    assert judge(generation(distributions=Distributions.of_top(rows))).difference is None
    rows[1][4] = shown
    found = judge(generation(distributions=Distributions.of_top(rows)), floor=LOOSE)
    assert found.difference.summary == "no distribution in the log-probabilities of generated position 1"
    assert (found.difference.causes, found.difference.kind) == (("nan",), "engine")


def test_a_position_with_every_token_ruled_out_is_no_distribution():
    rows = [*LOGITS[:3], [-np.inf] * 5]
    assert judge(generation(distributions=distributions(*rows))).difference.causes == ("nan",)


def test_a_token_ruled_out_that_the_golden_thinks_likely_is_the_engine():
    rows = [list(one) for one in LOGITS]
    rows[1][2] = -np.inf
    found = judge(generation(distributions=distributions(*rows)))
    assert found.difference.causes == ("numbers",)
    assert found.measured["kl"] > 20


def test_a_token_that_both_rule_out_is_no_difference():
    rows = [[*one[:-1], -np.inf] for one in LOGITS[:2]]
    golden = generation(ids=(1, 2), chosen=(1, 2), finish="length", distributions=distributions(*rows).top())
    observed = golden.model_copy(update={"distributions": distributions(*rows)})
    with np.errstate(invalid="ignore"):
        assert judge(observed, golden=golden).outcome is Outcome.EQUIVALENT


def test_a_saved_trace_is_judged_like_a_fresh_one():
    random = np.random.default_rng(3)
    logits = random.normal(0, 3, (2, 5000)).astype(np.float32)
    noisy = logits + random.normal(0, 1e-2, logits.shape).astype(np.float32)
    ids = tuple(int(i) for i in logits.argmax(axis=1))
    golden = generation(ids=ids, chosen=ids, finish="length", distributions=Distributions.from_logits(logits).top())
    fresh = golden.model_copy(update={"distributions": Distributions.from_logits(noisy)})
    saved = golden.model_copy(update={"distributions": Distributions.from_logits(noisy).top()})
    assert judge(fresh, golden=golden).outcome is Outcome.EQUIVALENT
    assert judge(saved, golden=golden).outcome is Outcome.EQUIVALENT


def test_other_numbers_after_the_first_id_that_differs_are_other_questions():
    rest = [row(4, 1), row(0, 2)]
    near_tie = generation(
        ids=(1, 3, 4, 0), chosen=(1, 3, 4, 0), distributions=distributions(LOGITS[0], LOGITS[1], *rest)
    )
    sampled = {"temperature": 0.7}
    assert judge(near_tie, asked=sampled).outcome is Outcome.EQUIVALENT
    broken = near_tie.model_copy(update={"distributions": distributions(LOGITS[0], row(0, 2), *rest)})
    assert judge(broken, asked=sampled).difference.causes == ("numbers",)


# The sampler


TIED = (row(1, 4), row(2, 3, gap=0.001), row(3, 4), row(0, 1))
TIED_OTHER_WAY = (row(1, 4), row(3, 2, gap=0.001), row(3, 4), row(0, 1))


def test_a_near_tie_that_forced_ids_turn_is_equivalent():
    golden = generation(distributions=distributions(*TIED).top())
    observed = generation(chosen=(1, 3, 3, 0), distributions=distributions(*TIED_OTHER_WAY), finish="forced")
    found = judge(observed, golden=golden)
    assert found.outcome is Outcome.EQUIVALENT
    assert found.rule.endswith(" <= 0.01), near-tie at 1 position")


def test_a_near_tie_that_leads_elsewhere_is_equivalent_up_to_there():
    golden = generation(distributions=distributions(*TIED).top())
    observed = generation(
        ids=(1, 3, 0),
        chosen=(1, 3, 0),
        distributions=distributions(TIED_OTHER_WAY[0], TIED_OTHER_WAY[1], row(0)),
    )
    found = judge(observed, golden=golden)
    assert found.outcome is Outcome.EQUIVALENT
    assert found.rule.endswith(", near-tie at 1 position")


def test_several_near_ties_are_counted():
    tied = [row(1, 4, gap=0.001), row(2, 3, gap=0.001)]
    turned = [row(4, 1, gap=0.001), row(3, 2, gap=0.001)]
    golden = generation(ids=(1, 2), chosen=(1, 2), finish="length", distributions=distributions(*tied).top())
    observed = generation(ids=(1, 2), chosen=(4, 3), finish="forced", distributions=distributions(*turned))
    assert judge(observed, golden=golden).rule.endswith(", near-tie at 2 positions")


def test_at_temperature_0_the_choice_must_be_the_likeliest():
    found = judge(generation(chosen=(1, 4, 3, 0), finish="forced"))
    assert found.outcome is Outcome.DIVERGED
    assert found.difference == Difference(
        summary="the numbers agree, but at temperature 0 the sampler chose id 4 (-10.019) over 2 (-0.019) "
        "at generated position 1",
        causes=("sampler",),
        kind="engine",
    )


def test_a_near_tie_is_judged_by_the_engines_own_numbers():
    golden = generation(distributions=distributions(*TIED).top())
    observed = generation(chosen=(1, 3, 3, 0), distributions=distributions(*TIED), finish="forced")
    assert judge(observed, golden=golden).difference.causes == ("sampler",)


def test_of_equal_maxima_any_may_be_chosen():
    even = (row(1, 4, gap=0), *LOGITS[1:])
    golden = generation(distributions=distributions(*even).top())
    for choice in (1, 4):
        observed = generation(chosen=(choice, 2, 3, 0), distributions=distributions(*even), finish="forced")
        assert judge(observed, golden=golden).outcome is Outcome.EQUIVALENT


@pytest.mark.parametrize("asked", [{"temperature": 0.7}, {}])
def test_only_greedy_choices_can_be_judged(asked):
    found = judge(generation(chosen=(4, 4, 4, 4), finish="forced"), asked=asked)
    assert found.outcome is Outcome.EQUIVALENT
    assert "near-tie" not in found.rule


def test_a_choice_after_the_first_id_that_differs_is_not_judged():
    observed = generation(ids=(1, 2, 4, 0), chosen=(1, 2, 3, 0), distributions=distributions(*LOGITS[:3], row(4)))
    assert judge(observed).outcome is Outcome.EQUIVALENT


# Settings


def test_a_setting_not_in_force_is_an_integration_defect_even_where_numbers_differ():
    wrong = distributions(*[row(4)] * 4)
    observed = generation(distributions=wrong, settings={"temperature": 0.2, "top_k": 40, "max_tokens": 16})
    assert judge(observed) == diverged(
        Difference(
            summary="the sampler runs with temperature 0.2, asked was 0",
            hunks=(
                Hunk(at="temperature", golden="0", observed="0.2"),
                Hunk(at="max_tokens", golden="8", observed="16"),
            ),
            causes=("setting\0temperature", "setting\0max_tokens"),
            kind="integration",
        )
    )


def test_settings_that_are_not_seen_or_not_asked_for_are_not_judged():
    assert judge(generation(settings={"top_k": 40})).outcome is Outcome.EQUIVALENT
    assert judge(generation(settings={"temperature": 0.0})).outcome is Outcome.EQUIVALENT


@pytest.mark.parametrize("setting", [{"repeat_penalty": 1.3}, {"frequency_penalty": 0.5}, {"logit_bias": {"2": -9.0}}])
def test_a_choice_turned_by_a_setting_that_nobody_asked_for_is_not_the_engine(setting):
    observed = generation(chosen=(1, 4, 3, 0), finish="forced", settings={"temperature": 0, **setting})
    found = judge(observed)
    assert found.difference is None or found.difference.kind == "integration"


# The end


def test_the_end_must_be_the_golden_s():
    assert judge(generation(finish="length")) == diverged(
        Difference(
            summary="generation ended by length, not by end_token",
            causes=("finish\0end_token\0length",),
            kind="integration",
        )
    )


@pytest.mark.parametrize("finish", ["end_token", "forced"])
def test_the_right_end_and_the_end_of_what_was_forced(finish):
    assert judge(generation(finish=finish)).outcome is Outcome.EQUIVALENT


def test_an_answer_cut_short_is_not_equivalent():
    short = generation(ids=(1, 2), chosen=(1, 2), finish="length", distributions=distributions(*LOGITS[:2]))
    assert judge(short).outcome is Outcome.DIVERGED


def test_an_answer_that_stops_early_at_a_string_is_the_postprocess_stages_matter():
    short = generation(ids=(1, 2), chosen=(1, 2), finish="stop", distributions=distributions(*LOGITS[:2]))
    assert judge(short).outcome is Outcome.EQUIVALENT


def test_an_answer_that_goes_on_after_its_end_token_is_not_equivalent():
    endless = generation(
        ids=(1, 2, 3, 0, 1, 2),
        chosen=(1, 2, 3, 0, 1, 2),
        finish="length",
        distributions=distributions(*LOGITS, row(1), row(2)),
    )
    assert judge(endless).outcome is Outcome.DIVERGED


def test_an_answer_that_completes_a_character_beyond_the_limit_is_the_postprocess_stages_matter():
    golden = generation(
        ids=(1, 2), chosen=(1, 2), finish="length", beyond=(3,), distributions=distributions(*LOGITS[:2]).top()
    )
    longer = generation(ids=(1, 2, 3), chosen=(1, 2, 3), finish="length", distributions=distributions(*LOGITS[:3]))
    assert judge(longer, golden=golden).outcome is Outcome.EQUIVALENT


@pytest.mark.parametrize(("beyond", "outcome"), [(3, Outcome.EQUIVALENT), (4, Outcome.DIVERGED)])
def test_a_character_lacks_at_most_three_ids(beyond, outcome):
    """Its UTF-8 form has at most four bytes, and the limit leaves it with one at least."""
    asked = {"temperature": 0, "max_tokens": 1}
    rows = [LOGITS[0], *[row(3)] * 4]
    golden = generation(
        ids=(1,), chosen=(1,), finish="length", beyond=(3,) * beyond, distributions=distributions(*rows[:1]).top()
    )
    ids = (1, *(3,) * beyond)
    longer = generation(ids=ids, chosen=ids, finish="length", distributions=distributions(*rows[: len(ids)]))
    found = judge(longer, asked, golden=golden)
    assert found.outcome is outcome
    if found.difference is not None:
        assert found.difference.causes == ("longer than max_tokens",)


# What cannot be judged


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Refusal(error="HTTP 400", message="max_tokens must be positive"), "integration"),
        (Refusal(error="HTTP 422", message="no such field"), "integration"),
        (Refusal(error="TypeError", message="unexpected keyword"), "integration"),
        (Refusal(error="ValueError", message="exceeds the context", context=True), "integration"),
        (Refusal(error="HTTP 500", message="decode failed"), "engine"),
        (Refusal(error="RuntimeError", message="decode failed"), "engine"),
    ],
)
def test_ids_refused_for_how_they_were_asked_are_not_the_engine(refusal, kind):
    found = judge(refusal)
    assert (found.outcome, found.difference.kind) == (Outcome.FAILED, kind)


def test_without_distributions_nothing_is_judged_but_settings():
    blind = generation(distributions=None)
    assert judge(blind) == unobserved("the engine does not show its distributions")
    assert judge(generation(), golden=generation(distributions=None)).outcome is Outcome.UNOBSERVED
    wrong = generation(distributions=None, settings={"temperature": 1})
    assert judge(wrong).outcome is Outcome.DIVERGED


def test_without_a_floor_numbers_cannot_be_judged():
    found = judge(generation(distributions=distributions(*TIED)), floor=None)
    assert found.outcome is Outcome.UNOBSERVED
    assert found.rule.startswith("no noise floor was measured for this model (KL ")


def test_without_a_position_there_is_nothing_to_judge():
    none = generation(ids=(), chosen=(), distributions=Distributions(np.empty((0, 5), dtype=np.float32)))
    assert judge(none) == unobserved("no position to compare")


def test_endings():
    too_long = Refusal(error="ContextLength", message="9 tokens, 8 fit", context=True)
    said = Refusal(error="ValueError", message="exceeds the context", context=True)
    assert judge(None) == unobserved("not reached")
    assert judge(Unobserved(reason="hidden")) == unobserved("hidden")
    assert judge(Failure(reason="crash", signal="SIGILL")).difference.kind == "environment"
    assert judge(said, golden=too_long) == equivalent("both refuse (it says ValueError: exceeds the context)")
    assert judge(generation(), golden=too_long).difference.causes == ("accepts\0ContextLength",)
    assert judge(said).outcome is Outcome.FAILED
