"""The parser of `transformers serve` as a part."""

import pytest

from harness.parts import Completion, Format, PartError, make

pytest.importorskip("transformers.utils.chat_parsing", reason="the parser needs transformers 5.20 or later")

PATH = "harness.components.transformers_serve.parser:TransformersParser"
HERMES = Format("hermes", "<|im_start|><tool_call>")
TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}]
PIECES = ("<think>", "\nso", "\n", "</think>", "\n\nI", " do", "\n", "<tool_call>", '\n{"name": "find", ')
CALL = ('"arguments": {"x":1,"y":"é"}}\n', "</tool_call>")


@pytest.fixture(scope="module")
def parser():
    with make(PATH, format=HERMES) as made:
        yield made


def asked(*pieces):
    return Completion(pieces, "<|im_end|>", TOOLS, opening="<|im_start|>assistant\n")


def functions(reply):
    return [one["function"] for one in reply.tool_calls or ()]


def test_a_text_is_taken_apart_whole_and_as_a_stream(parser):
    for stream in (False, True):
        reply = parser.parse(asked(*PIECES, *CALL), stream=stream)
        assert (reply.content.strip(), reply.reasoning.strip()) == ("I do", "so")
        # It writes the arguments again.
        assert functions(reply) == [{"name": "find", "arguments": '{"x": 1, "y": "\\u00e9"}'}]
    assert [list(delta) for delta in reply.deltas][-1] == ["tool_calls"]
    assert len(reply.deltas) > 3


def test_the_mark_of_an_end_in_a_string_makes_it_raise(parser):
    text = '<tool_call>\n{"name": "find", "arguments": {"x": "</tool_call>"}}\n</tool_call>'
    for stream in (False, True):
        with pytest.raises(PartError, match="could not parse region as JSON") as caught:
            parser.parse(asked(text), stream=stream)
        assert (caught.value.kind, caught.value.name) == ("error", "ValueError")


@pytest.mark.parametrize("source", ["<tool_call><arg_key>", "<|im_start|><tool_call><function=", "[TOOL_CALLS]"])
def test_other_formats_are_not_asked(source):
    with make(PATH, format=Format("other", source)) as made, pytest.raises(PartError) as caught:
        made.parse(asked("a"), stream=False)
    assert caught.value.kind == "unsupported"
