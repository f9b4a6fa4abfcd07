"""Traces: what a stack of fake parts is fed, isolated and in the chain, and how a trace is kept."""

import json

import numpy as np
import pytest

from harness.checking.trace import FIELDS, Run, Trace, Tracer, load_trace, save_trace
from harness.errors import UserError
from harness.stage import Stage, StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import (
    TOP_K,
    Distributions,
    Failure,
    Generation,
    Observation,
    Prompt,
    Refusal,
    Reply,
    Request,
    Tokens,
    Unobserved,
)
from tests.made import (
    CRASH,
    Back,
    Front,
    Part,
    Route,
    Whole,
    answers,
    distributions,
    generation,
    golden,
    observed,
    row,
    running,
    streamed,
    trace,
)

GREETING = golden()
REFUSAL = Refusal(error="ValueError", message="no")
HIDDEN = Unobserved(reason="the server does not show it")
ISOLATED = (Run.ISOLATED, Run.ISOLATED_STREAM)
CHAINED = (Run.CHAINED, Run.CHAINED_STREAM)

OWN = {
    Stage.CLIENT: Request(messages=({"role": "user", "content": "own"},), settings={"temperature": 1}),
    Stage.TEMPLATE: Prompt(text="own", stop=("END",)),
    Stage.TOKENIZATION: Tokens(ids=(2, 2)),
    Stage.INFERENCE: generation(ids=(3, 0), chosen=(3, 0), distributions=distributions(row(3), row(0))),
    Stage.POSTPROCESS: Reply(content="own"),
}
"""Outputs that are not the golden's, so that it shows who was fed with what."""


def part(**changes):
    """Return a part that answers everything rightly but what is given by field."""
    stages = {field: stage for stage, field in FIELDS.items()}
    return Whole({**answers(GREETING), **{stages[field]: answer for field, answer in changes.items()}})


# Isolated


def test_isolated_stages_are_fed_with_the_golden_whatever_the_stack_made():
    whole = Whole(OWN)
    found = Tracer(running(whole)).trace(GREETING, ISOLATED)
    reply = (GREETING.generation, GREETING.tokens, GREETING.request)
    assert whole.received == [
        (Stage.CLIENT, (GREETING.case,)),
        (Stage.TEMPLATE, (GREETING.request, GREETING.case.options)),
        (Stage.TOKENIZATION, (GREETING.prompt,)),
        (Stage.INFERENCE, (GREETING.tokens, GREETING.request, GREETING.generation.ids)),
        (Stage.POSTPROCESS, (*reply, False)),
        (Stage.POSTPROCESS, (*reply, True)),
    ]
    assert found.runs == {
        Run.ISOLATED: Observation(**{FIELDS[stage]: value for stage, value in OWN.items()}),
        Run.ISOLATED_STREAM: Observation(reply=OWN[Stage.POSTPROCESS]),
    }
    assert found.replays == {}


def test_a_trace_names_stack_model_and_case():
    found = Tracer(running(part())).trace(GREETING)
    assert (found.stack, found.model, found.case) == ("made", "tiny", "greeting")
    assert list(found.runs) == list(Run)
    assert found.runs == trace(GREETING).runs
    assert set(found.seconds) == set(Stage)


def test_two_parts_share_the_stages():
    front, back = Front(answers(GREETING)), Back(answers(GREETING))
    found = Tracer(running(front, back)).trace(GREETING)
    assert found.runs == trace(GREETING).runs
    assert {stage for stage, _ in front.received} == {Stage.CLIENT, Stage.TEMPLATE, Stage.TOKENIZATION}
    assert {stage for stage, _ in back.received} == {Stage.INFERENCE, Stage.POSTPROCESS}


def test_one_stage_may_be_run_alone():
    whole = part()
    tracer = Tracer(running(whole))
    assert tracer.stage(Stage.TEMPLATE, GREETING) == GREETING.prompt
    assert tracer.stage(Stage.POSTPROCESS, GREETING, Run.ISOLATED_STREAM) == streamed(GREETING.reply)
    assert [stage for stage, _ in whole.received] == [Stage.TEMPLATE, Stage.POSTPROCESS]


ENDINGS = [
    (StageRefusedError(REFUSAL), REFUSAL),
    (StageFailedError(CRASH), CRASH),
    (StageUnobservedError(HIDDEN.reason), HIDDEN),
]


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize(("error", "ending"), ENDINGS)
def test_a_stage_that_ends_otherwise_ends_alone_when_isolated(stage, error, ending):
    found = Tracer(running(part(**{FIELDS[stage]: error}))).trace(GREETING, ISOLATED)
    assert found.runs[Run.ISOLATED] == observed(GREETING, **{FIELDS[stage]: ending})
    expected = ending if stage is Stage.POSTPROCESS else streamed(GREETING.reply)
    assert found.runs[Run.ISOLATED_STREAM] == Observation(reply=expected)


def test_what_is_no_ending_is_an_error_of_ours_and_ends_that_stage_alone():
    found = Tracer(running(part(prompt=ZeroDivisionError("planted")))).trace(GREETING, ISOLATED).runs[Run.ISOLATED]
    assert (found.prompt.kind, found.prompt.error, found.prompt.message) == ("error", "ZeroDivisionError", "planted")
    assert found == observed(GREETING, prompt=found.prompt)


def test_after_a_refusal_of_the_reference_nothing_is_fed():
    refused = golden(prompt=REFUSAL)
    whole = part()
    found = Tracer(running(whole)).trace(refused, ISOLATED)
    assert [stage for stage, _ in whole.received] == [Stage.CLIENT, Stage.TEMPLATE]
    assert found.runs == {
        Run.ISOLATED: Observation(request=GREETING.request, prompt=GREETING.prompt),
        Run.ISOLATED_STREAM: Observation(),
    }


def test_where_the_context_is_too_small_one_id_is_asked_for():
    refused = golden(generation=REFUSAL)
    whole = part(generation=StageRefusedError(REFUSAL))
    found = Tracer(running(whole)).trace(refused, ISOLATED)
    assert whole.given(Stage.INFERENCE) == [(GREETING.tokens, GREETING.request, (0,))]
    assert whole.given(Stage.POSTPROCESS) == []
    assert found.runs[Run.ISOLATED].generation == REFUSAL
    assert found.runs[Run.ISOLATED].reply is None


# Chained


def test_the_chain_feeds_each_stage_what_came_before():
    whole = Whole(OWN)
    found = Tracer(running(whole)).chained(GREETING.case, stream=True)
    assert whole.received == [
        (Stage.CLIENT, (GREETING.case,)),
        (Stage.TEMPLATE, (OWN[Stage.CLIENT], GREETING.case.options)),
        (Stage.TOKENIZATION, (OWN[Stage.TEMPLATE],)),
        (Stage.INFERENCE, (OWN[Stage.TOKENIZATION], OWN[Stage.CLIENT], None)),
        (Stage.POSTPROCESS, (OWN[Stage.INFERENCE], OWN[Stage.TOKENIZATION], OWN[Stage.CLIENT], True)),
    ]
    assert found == Observation(**{FIELDS[stage]: value for stage, value in OWN.items()})


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize(("error", "ending"), ENDINGS)
def test_the_chain_stops_at_the_first_ending(stage, error, ending):
    whole = part(**{FIELDS[stage]: error})
    found = Tracer(running(whole)).chained(GREETING.case, stream=False)
    reached = list(Stage)[: list(Stage).index(stage) + 1]
    right = observed(GREETING)
    assert [at for at, _ in whole.received] == reached
    assert found == Observation(
        **{FIELDS[at]: getattr(right, FIELDS[at]) for at in reached[:-1]}, **{FIELDS[stage]: ending}
    )


def test_dry_stops_before_inference():
    route = Route(OWN, AssertionError("a dry run takes no route"))
    found = Tracer(running(route)).dry(GREETING.case)
    assert [stage for stage, _ in route.received] == [Stage.CLIENT, Stage.TEMPLATE, Stage.TOKENIZATION]
    assert found == Observation(request=OWN[Stage.CLIENT], prompt=OWN[Stage.TEMPLATE], tokens=OWN[Stage.TOKENIZATION])
    assert route.chats == []


# The whole route


def test_the_route_of_the_one_part_is_the_chain():
    seen = observed(GREETING, reply=OWN[Stage.POSTPROCESS])
    route = Route(answers(GREETING), lambda case, stream: seen.model_copy(update={"reply": Reply(content=str(stream))}))
    found = Tracer(running(route)).trace(GREETING, CHAINED)
    assert route.chats == [(GREETING.case, False), (GREETING.case, True)]
    assert route.received == []
    assert [found.runs[run].reply.content for run in CHAINED] == ["False", "True"]


def test_a_route_of_one_part_among_two_is_not_taken():
    route, back = Route(answers(GREETING), AssertionError("it is not the whole stack")), Back(answers(GREETING))
    Tracer(running(route, back)).trace(GREETING, CHAINED)
    assert route.chats == []
    assert len(back.given(Stage.INFERENCE)) == 2


def test_a_route_that_dies_broke_as_a_whole():
    found = Tracer(running(Route(OWN, StageFailedError(CRASH)))).chained(GREETING.case, stream=False)
    assert found == Observation(broke=CRASH)


def test_a_route_that_cannot_be_asked_leaves_every_stage_unobserved():
    found = Tracer(running(Route(OWN, StageUnobservedError(HIDDEN.reason)))).chained(GREETING.case, stream=False)
    assert found == Observation(**dict.fromkeys(FIELDS.values(), HIDDEN))


# Replays


OTHER_IDS = generation(ids=(4, 0), chosen=(4, 0), distributions=distributions(row(4), row(0)))


def test_ids_that_are_not_the_goldens_are_replayed_isolated():
    whole = part(generation=lambda tokens, request, forced: generation() if forced else OTHER_IDS)
    found = Tracer(running(whole)).trace(GREETING)
    replayed = (OTHER_IDS, GREETING.tokens, GREETING.request)
    assert whole.given(Stage.POSTPROCESS)[-2:] == [(*replayed, False), (*replayed, True)]
    assert found.replays == {Run.CHAINED: observed(GREETING).reply, Run.CHAINED_STREAM: streamed(GREETING.reply)}


def test_the_goldens_ids_are_not_replayed():
    whole = part()
    assert Tracer(running(whole)).trace(GREETING).replays == {}
    assert len(whole.given(Stage.POSTPROCESS)) == 4


@pytest.mark.parametrize("field", ["request", "prompt", "tokens", "generation"])
def test_a_chain_that_did_not_generate_is_not_replayed(field):
    whole = part(**{field: StageFailedError(CRASH)})
    assert Tracer(running(whole)).trace(GREETING, CHAINED).replays == {}
    assert whole.given(Stage.POSTPROCESS) == []


def test_ids_where_the_reference_refuses_are_replayed():
    whole = part()
    found = Tracer(running(whole)).trace(golden(generation=REFUSAL), CHAINED)
    assert list(found.replays) == list(CHAINED)


def test_a_replay_may_end_otherwise():
    def dies(given, tokens, request, stream):
        return StageFailedError(CRASH) if given == OTHER_IDS else streamed(GREETING.reply)

    route = Route({**answers(GREETING), Stage.POSTPROCESS: dies}, observed(GREETING, generation=OTHER_IDS))
    found = Tracer(running(route)).trace(GREETING)
    assert found.replays == {Run.CHAINED: CRASH, Run.CHAINED_STREAM: CRASH}


# Save and load


def saved_and_loaded(found, folder):
    save_trace(found, folder)
    return load_trace(folder, found.case)


def without_arrays(found):
    return found.model_dump(mode="json")


def test_a_trace_comes_back_as_it_was(tmp_path):
    found = trace(
        GREETING,
        {Run.CHAINED: observed(GREETING, generation=OTHER_IDS)},
        replays={Run.CHAINED: Reply(content="H\u00e9 \U0001f98a\r\n", tool_calls=({"id": None},), deltas=({},))},
        seconds={Stage.CLIENT: 0.25},
    )
    loaded = saved_and_loaded(found, tmp_path / "deep" / "folder")
    assert without_arrays(loaded) == without_arrays(found)
    assert loaded.replays == found.replays
    for run in (Run.ISOLATED, *CHAINED):
        kept, came = found.runs[run].generation.distributions, loaded.runs[run].generation.distributions
        assert (came.ids == kept.top().ids).all()
        assert (came.logprobs == kept.top().logprobs).all()
        assert (came.rest == kept.top().rest).all()
    assert loaded.runs[Run.ISOLATED_STREAM].generation is None


@pytest.mark.parametrize(
    "ending",
    [REFUSAL, CRASH, HIDDEN, Failure(reason="hang", seconds=1.5), Failure(reason="start", message="x"), None],
)
def test_endings_come_back_as_they_were(ending, tmp_path):
    runs = {
        Run.ISOLATED: Observation(**dict.fromkeys(FIELDS.values(), ending)),
        Run.CHAINED: Observation(broke=ending if isinstance(ending, Failure) else None),
    }
    found = trace(GREETING, runs).model_copy(update={"runs": runs})
    assert saved_and_loaded(found, tmp_path) == found


def test_of_a_large_vocabulary_the_likeliest_are_kept(tmp_path):
    logits = np.random.default_rng(1).normal(0, 2, (3, 1000)).astype(np.float32)
    whole = generation(ids=(1, 2, 3), chosen=(1, 2, 3), distributions=Distributions.from_logits(logits))
    runs = {Run.ISOLATED: Observation(generation=whole)}
    loaded = saved_and_loaded(Trace(stack="made", model="tiny", case="large", runs=runs), tmp_path)
    kept = loaded.runs[Run.ISOLATED].generation.distributions
    assert TOP_K == 256
    assert kept.logprobs.shape == kept.ids.shape == (3, 256)
    for at in range(3):
        order = np.argsort(-logits[at])[:256]
        assert kept.ids[at].tolist() == order.tolist()
        probabilities = np.exp(whole.distributions.logprobs[at].astype(np.float64))
        assert np.exp(kept.rest[at]) == pytest.approx(1 - probabilities[order].sum(), rel=1e-5)
    assert kept.argmax() == tuple(logits.argmax(axis=1).tolist())


def test_a_distribution_that_is_no_number_stays_none(tmp_path):
    broken = generation(distributions=distributions([np.nan, 0, 0, 0, 0], row(1), row(2), row(3)))
    runs = {Run.CHAINED: Observation(generation=broken)}
    loaded = saved_and_loaded(Trace(stack="made", model="tiny", case="nan", runs=runs), tmp_path)
    kept = loaded.runs[Run.CHAINED].generation.distributions
    assert np.isnan(kept.logprobs).any(axis=1).tolist() == [True, False, False, False]


def test_equal_generations_are_equal():
    one, other = (generation(distributions=distributions(row(1), row(2))) for _ in range(2))
    assert one == other


def test_a_generation_without_distributions_comes_back_without(tmp_path):
    runs = {Run.CHAINED: Observation(generation=generation(distributions=None))}
    found = Trace(stack="made", model="tiny", case="blind", runs=runs)
    assert saved_and_loaded(found, tmp_path) == found
    assert [path.name for path in tmp_path.iterdir()] == ["blind.json"]


def test_distributions_of_an_older_trace_do_not_come_back_with_a_newer_one(tmp_path):
    save_trace(trace(GREETING), tmp_path)
    blind = {Run.CHAINED: observed(GREETING, generation=generation(distributions=None))}
    newer = trace(GREETING, blind)
    assert saved_and_loaded(newer, tmp_path).runs[Run.CHAINED].generation.distributions is None


def test_a_reply_that_no_wire_could_carry_can_be_saved(tmp_path):
    runs = {Run.CHAINED: Observation(reply=Reply(content=json.loads('"\\ud83e"')))}
    save_trace(Trace(stack="made", model="tiny", case="surrogate", runs=runs), tmp_path)


def test_the_files_are_named_by_case_and_run(tmp_path):
    save_trace(trace(GREETING), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "greeting.chained-stream.npz",
        "greeting.chained.npz",
        "greeting.isolated.npz",
        "greeting.json",
    ]


def test_no_trace_is_the_callers_error(tmp_path):
    with pytest.raises(UserError, match="no trace of case 'greeting' can be read from"):
        load_trace(tmp_path, "greeting")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-10],
        lambda text: text.replace('"stack"', '"stuck"'),
        lambda text: text.replace('"isolated-stream"', '"sideways"'),
        lambda text: "[]",
    ],
)
def test_a_damaged_trace_is_the_callers_error(damage, tmp_path):
    save_trace(trace(GREETING), tmp_path)
    path = tmp_path / "greeting.json"
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(UserError, match="no trace of case 'greeting' can be read from"):
        load_trace(tmp_path, "greeting")


def test_a_trace_that_is_no_text_is_the_callers_error(tmp_path):
    (tmp_path / "greeting.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError):
        load_trace(tmp_path, "greeting")


def test_arrays_that_are_no_archive_are_the_callers_error(tmp_path):
    save_trace(trace(GREETING), tmp_path)
    (tmp_path / "greeting.chained.npz").write_bytes(b"garbage")
    with pytest.raises(UserError, match="greeting"):
        load_trace(tmp_path, "greeting")


def test_arrays_without_a_name_that_is_needed_are_the_callers_error(tmp_path):
    save_trace(trace(GREETING), tmp_path)
    np.savez_compressed(tmp_path / "greeting.chained.npz", logprobs=np.zeros((1, 1)))
    with pytest.raises(UserError, match="greeting"):
        load_trace(tmp_path, "greeting")


@pytest.mark.parametrize("cut", [0, 0.5], ids=["empty", "half"])
def test_arrays_that_were_cut_are_the_callers_error(cut, tmp_path):
    save_trace(trace(GREETING), tmp_path)
    path = tmp_path / "greeting.chained.npz"
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    with pytest.raises(UserError):
        load_trace(tmp_path, "greeting")


def test_a_folder_that_cannot_be_written_is_the_callers_error(tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be written"):
        save_trace(trace(GREETING), tmp_path / "file")


# Names


def test_every_run_says_what_it_is():
    assert [(run.value, run.streamed, run.chained) for run in Run] == [
        ("isolated", False, False),
        ("isolated-stream", True, False),
        ("chained", False, True),
        ("chained-stream", True, True),
    ]


def test_every_stage_has_its_field_in_an_observation():
    assert [FIELDS[stage] for stage in Stage] == ["request", "prompt", "tokens", "generation", "reply"]
    assert set(Observation.model_fields) == {*FIELDS.values(), "broke", "answered"}


def test_an_output_of_a_run_that_was_not_made_is_none():
    found = trace(GREETING).model_copy(update={"runs": {}})
    assert found.output(Run.CHAINED, Stage.INFERENCE) is None
    assert isinstance(trace(GREETING).output(Run.CHAINED, Stage.INFERENCE), Generation)
    assert issubclass(Route, Part)
