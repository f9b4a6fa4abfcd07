"""The properties of parsers find what is planted, and nothing in a parser that is right."""

import json
import re

import jinja2
import pytest
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from harness.errors import UserError
from harness.fuzz.parser.cutting import grouped, units, words
from harness.fuzz.parser.difference import difference
from harness.fuzz.parser.properties import PROPERTIES
from harness.fuzz.parser.run import fuzz_parser
from harness.fuzz.parser.trial import written
from harness.parts import Completion, Format, PartError, Rendering
from harness.reference.parse import parse
from harness.reference.parser import ReferenceParser
from harness.values import Reply

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.reasoning_content %}<think>\n{{ message.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}{% if message.content or not loop.first %}{{ '\n' }}{% endif %}"
    '<tool_call>\n{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments }}}\n</tool_call>'
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKERS = ("<tool_call>", "</tool_call>", "<think>", "</think>")
FORMAT = Format("hermes", TEMPLATE, control=("<|im_start|>",), shown=MARKERS, ends=("<|im_end|>",))
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("find", "add")
]


def renderer(source):
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(source)

    def render(asked: Rendering) -> str:
        try:
            return template.render(
                messages=list(asked.messages), tools=asked.tools, add_generation_prompt=asked.opens, **asked.variables
            )
        except jinja2.TemplateError as error:
            raise PartError("error", str(error)) from error

    return render


def call(name, arguments):
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


def conversation(**message):
    return {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, **message}],
        "tools": TOOLS,
    }


texts = st.text(st.sampled_from('ab <{\n"é'), max_size=6)
arguments = st.dictionaries(st.sampled_from(["x", "y"]), st.one_of(texts, st.integers(), st.just("</tool_call>")))
calls = st.builds(call, st.sampled_from(["find", "add"]), arguments.map(json.dumps))
conversations = st.builds(
    lambda content, reasoning, made: conversation(content=content, reasoning_content=reasoning, tool_calls=made),
    texts,
    st.one_of(st.none(), st.text(st.sampled_from("ab "), min_size=1).map(lambda text: f"r{text}")),
    st.lists(calls, max_size=2),
)


def chunkings(length):
    return st.lists(st.integers(1, length), max_size=4)


class Right:
    """A parser of whole texts whose stream says everything in its last event."""

    name = "right"
    streams = True

    def version(self):
        return "1"

    def parse(self, asked, *, stream):
        reply = self.whole(asked)
        return self.streamed(asked, reply) if stream else reply

    def whole(self, asked):
        found = parse(asked.text, calls=True, reasoning=True, prompt="")
        return Reply(content=found.content, reasoning=found.reasoning, tool_calls=found.calls or None)

    def streamed(self, asked, reply):
        pieces = [{"index": index, **one} for index, one in enumerate(reply.tool_calls or ())]
        delta = {"content": reply.content, "reasoning_content": reply.reasoning, "tool_calls": pieces}
        return reply.model_copy(update={"deltas": (delta,)})


class Retracts(Right):
    """Says the mark of a call as content, and forgets it."""

    def streamed(self, asked, reply):
        found = super().streamed(asked, reply)
        begun = ({"content": "<tool_call>"},) if asked.pieces[:1] == ["<tool_call>"] else ()
        return found.model_copy(update={"deltas": begun + found.deltas})


class NamesTwice(Right):
    def streamed(self, asked, reply):
        found = super().streamed(asked, reply)
        again = tuple(
            {"tool_calls": [{"index": index, "function": {"name": one["function"]["name"], "arguments": ""}}]}
            for index, one in enumerate(reply.tool_calls or ())
        )
        return found.model_copy(update={"deltas": found.deltas + again})


class DropsACall(Right):
    """Sees one end of a call in a piece, where there are two."""

    def streamed(self, asked, reply):
        both = any(piece.count("</tool_call>") > 1 for piece in asked.pieces)
        fewer = reply.model_copy(update={"tool_calls": reply.tool_calls[:1]}) if both and reply.tool_calls else reply
        return super().streamed(asked, fewer)


class LosesReasoningInAStream(Right):
    def streamed(self, asked, reply):
        return super().streamed(asked, reply.model_copy(update={"reasoning": None}))


class WritesArgumentsAgain(Right):
    def whole(self, asked):
        found = super().whole(asked)
        again = [
            call(one["function"]["name"], json.dumps(json.loads(one["function"]["arguments"]), separators=(",", ":")))
            for one in found.tool_calls or ()
        ]
        return found.model_copy(update={"tool_calls": tuple(again) or None})


class Casts(Right):
    """Makes every number a text."""

    def whole(self, asked):
        found = super().whole(asked)
        cast = [
            call(
                one["function"]["name"],
                json.dumps({name: str(value) for name, value in json.loads(one["function"]["arguments"]).items()}),
            )
            for one in found.tool_calls or ()
        ]
        return found.model_copy(update={"tool_calls": tuple(cast) or None})


class LeaksAMarker(Right):
    def whole(self, asked):
        found = super().whole(asked)
        return found.model_copy(update={"content": f"{found.content}</tool_call>"}) if found.tool_calls else found


class LosesTextBeforeACall(Right):
    def whole(self, asked):
        found = super().whole(asked)
        return found.model_copy(update={"content": ""}) if found.tool_calls else found


class EndsAtTheFirstMark(Right):
    """Takes the mark of a call's end in a string for the end."""

    def whole(self, asked):
        return super().whole(Completion([re.sub(r"(?s)(</tool_call>).*", r"\1", asked.text)]))


class Raises(Right):
    def whole(self, asked):
        if "é" in asked.text:
            raise PartError("error", "no such character at 17", "ValueError")
        return super().whole(asked)


def fuzzed(parser, **more):
    settings = {"conversations": conversations, "chunkings": chunkings, "examples": 80, "number": 1} | more
    return fuzz_parser(parser, FORMAT, renderer(TEMPLATE), **settings)


def test_a_right_parser_breaks_nothing_and_everything_is_judged():
    findings, statistics = fuzzed(Right())
    assert findings == []
    assert set(statistics.judged) == set(PROPERTIES)
    assert statistics.inputs > 60
    assert min(statistics.judged.values()) > 20
    assert not statistics.ended


def test_the_reference_breaks_nothing():
    findings, statistics = fuzzed(ReferenceParser(FORMAT))
    assert findings == []
    # It has no stream.
    assert [name for name, count in statistics.judged.items() if count == 0] == ["chunks", "stream", "growth"]


@pytest.mark.parametrize(
    ("parser", "name", "cause"),
    [
        (Retracts, "growth", "content is taken back"),
        (NamesTwice, "growth", "a call is named twice"),
        (DropsACall, "chunks", "fewer calls"),
        (LosesReasoningInAStream, "stream", "reasoning is lost"),
        (WritesArgumentsAgain, "arguments", "other characters for the same values"),
        (Casts, "arguments", "other values"),
        (LeaksAMarker, "markers", "a marker in the content"),
        (LosesTextBeforeACall, "round-trip", "content is lost"),
        (EndsAtTheFirstMark, "round-trip", "content where none is due, no call"),
        (Raises, "round-trip", "raises: ValueError no such character at N"),
    ],
)
def test_what_is_planted_is_found_by_its_property(parser, name, cause):
    findings, _ = fuzzed(parser(), only=[name])
    assert (name, cause) in {(one.broken.name, one.broken.cause) for one in findings}
    assert all(one.subjects == ("hermes",) and one.sentence == PROPERTIES[name].sentence for one in findings)


def test_an_example_is_small_and_shows_both_sides():
    made = st.builds(
        lambda content, made: conversation(content=content, tool_calls=made),
        st.text(st.sampled_from("ab ")),
        st.lists(calls, max_size=2),
    )
    findings, _ = fuzzed(LosesTextBeforeACall(), only=["round-trip"], conversations=made)
    (found,) = findings
    message = found.example["conversation"]["messages"][-1]
    assert message["content"] == "a"
    assert [one["function"] for one in message["tool_calls"]] == [{"name": "find", "arguments": "{}"}]
    assert [(one.by, one.text) for one in found.broken.shown] == [
        ("the message", '{"content": "a", "calls": [["find", "{}"]]}'),
        ("parsed", '{"calls": [["find", "{}"]]}'),
    ]


def test_a_known_example_is_tried_first():
    example = {"conversation": conversation(content="b", tool_calls=[call("add", "{}")]), "sizes": []}
    findings, statistics = fuzzed(LosesTextBeforeACall(), only=["round-trip"], known=[example], examples=1)
    assert findings[0].example == example
    assert statistics.inputs >= 1


def test_an_unknown_property_is_named():
    with pytest.raises(UserError, match="growth"):
        fuzzed(Right(), only=["growht"])


@pytest.mark.parametrize(
    "message",
    [
        # No parser could tell these from what they look like.
        {"content": "<tool_call>\n{}", "tool_calls": None},
        {"content": "a", "reasoning_content": "</think>"},
        {"content": '{"name": "find"}'},
        # Nobody declared this one.
        {"tool_calls": [call("other", "{}")]},
    ],
)
def test_what_no_parser_could_know_is_not_judged(message):
    example = {"conversation": conversation(**message), "sizes": []}
    nothing = st.just({"messages": [{"role": "user", "content": "a"}]})
    findings, statistics = fuzzed(Raises(), only=["round-trip", "markers"], known=[example], conversations=nothing)
    assert findings == []
    assert statistics.judged == {"round-trip": 0, "markers": 0}


def test_why_nothing_was_judged_is_counted():
    class Refuses(Right):
        def whole(self, asked):
            raise PartError("refused", "another token at 12")

    findings, statistics = fuzzed(Refuses(), only=["round-trip"], examples=10)
    assert findings == []
    assert statistics.judged == {"round-trip": 0}
    assert statistics.unasked == {"another token at N": statistics.inputs}


def test_a_message_becomes_a_completion():
    made = written(conversation(content="b", tool_calls=[call("find", '{"x": 1}')]), FORMAT, renderer(TEMPLATE), {})
    assert made is not None
    assert made.text == 'b\n<tool_call>\n{"name": "find", "arguments": {"x": 1}}\n</tool_call>'
    assert (made.end, made.opening) == ("<|im_end|>", "<|im_start|>assistant\n")


def test_what_a_template_leaves_out_is_not_due():
    silent = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content or '' }}<|im_end|>\n"
    silent += "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    message = {"content": "parameters", "reasoning_content": "ra", "tool_calls": [call("find", "{}")]}
    made = written(conversation(**message), FORMAT, renderer(silent), {})
    assert (made.text, made.message) == ("parameters", {"role": "assistant", "content": "parameters", "tool_calls": []})


def test_cutting_keeps_markers_whole_and_loses_nothing():
    text = 'I do <tool_call>\n{"x": 12}</tool_call>é'
    parts = ["I", " do", " ", "<tool_call>", "\n", '{"', "x", '":', " 12", "}", "</tool_call>", "é"]
    assert words(text, MARKERS) == parts
    assert grouped(units(text, MARKERS), [7, 1]) == ["I do <tool_call>\n", "{", '"x": 12}</tool_call>é']


def test_what_differs_is_said_without_the_text():
    one = Reply(content="a", tool_calls=(call("find", '{"x": 1}'),))
    assert difference(one, one.model_copy(update={"content": " a\n"})) == ""
    assert difference(one, one.model_copy(update={"tool_calls": (call("find", '{"x": 1.0}'),)})) == ""
    assert difference(one, one.model_copy(update={"tool_calls": (call("find", '{"x": true}'),)})) == "other arguments"
    assert difference(one, Reply(content="a b")) == "content has more, no call"
    assert difference(one, PartError("error", "at 12", "E")) == "raises: E at N"
