"""The properties find what is planted, and nothing in what is healthy; the search survives a part that does not."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("tokenizers", reason="pip install -e '.[reference]'")
pytest.importorskip("hypothesis", reason="pip install -e '.[fuzz]'")
pytest.importorskip("gguf", reason="model files: pip install -e '.[doctor]'")

from harness.errors import UserError
from harness.fuzz.tokenizer import PROPERTIES, Group, Part, fuzz_tokenizers
from harness.fuzz.tokenizer.journal import Journal
from harness.fuzz.tokenizer.scans import broken_controls, broken_pieces, broken_roles, drift, entries
from harness.parts import PartError
from tests.fuzz import hurt_tokenizers as hurt

HARD = (
    *(
        "",
        " ",
        "hello world",
        "12 1234",
        "e\u0301 \u00e9",
        "\u212b",
        "a<end>b",
        "<s>a",
        " <end> ",
        "<s>",
        "\u3042\u3044",
    ),
    *("\x00!", "a .", "aaaa", "\U0001f680", "\ufffd", "\u00c3", "\r\n \n"),
)
TEXTS = "tests.fuzz.tokenizer_texts:texts"


def part(kind: str, name: str | None = None) -> Part:
    return Part(path=f"tests.fuzz.hurt_tokenizers:{kind}", name=name)


def test_every_property_has_its_name_and_sentence():
    assert [*PROPERTIES] == ["agreement", "round-trip", "control-only-where-asked", "bos", "streaming", "boundary"]
    assert all(one.name == name and not one.sentence.endswith(".") for name, one in PROPERTIES.items())


@pytest.mark.parametrize("name", PROPERTIES)
@pytest.mark.parametrize("text", HARD)
def test_healthy_tokenizers_break_nothing(name, text):
    for pair in ([hurt.Healthy("a"), hurt.Healthy("b")], [hurt.Normalizes("a"), hurt.Normalizes("b")]):
        assert PROPERTIES[name].broken(pair, text) == []


@pytest.mark.parametrize(
    ("defect", "name", "text", "cause"),
    [
        (hurt.NormalizesInSecret, "round-trip", "e\u0301", "it normalizes (NFC) and does not declare it"),
        (hurt.DeclaresOnly, "round-trip", "e\u0301", "other bytes come back"),
        (hurt.DropsBytes, "round-trip", "a\x00", "fewer bytes come back"),
        (hurt.ParsesContent, "control-only-where-asked", "a<end>", "plain text became a control token"),
        (hurt.TwoBos, "bos", "", "a prompt begins with two BOS"),
        (hurt.NoBos, "bos", "a", "a prompt begins without the BOS that is declared"),
        (hurt.EncodeAddsBos, "bos", "", "encode adds a BOS"),
        (hurt.CleansUp, "streaming", "a .", "the pieces of the ids are not the whole"),
        (hurt.StripsBlanks, "boundary", " ", "the ids beside a control token depend on each other"),
    ],
)
def test_what_is_planted_in_one_is_found(defect, name, text, cause):
    (found,) = PROPERTIES[name].broken([hurt.Healthy("good"), defect("bad")], text)
    assert (found.name, found.path, found.cause) == (name, "bad", cause)
    assert [one.by for one in found.shown] == ["bad"]


@pytest.mark.parametrize(
    ("good", "bad", "text", "cause"),
    [
        (hurt.Numbers, hurt.OtherNumbers, "12", "bad alone cuts between ASCII digit and ASCII digit"),
        (hurt.Healthy, hurt.Normalizes, "e\u0301", "bad alone normalizes (NFC)"),
        (hurt.Normalizes, hurt.Healthy, "e\u0301", "good alone normalizes (NFC)"),
        (hurt.Healthy, hurt.LostMerges, "\u00e9", "bad alone cuts inside a character"),
        (hurt.Healthy, hurt.ParsesContent, "<end>", "bad has more control tokens"),
        (hurt.Healthy, hurt.EncodeAddsBos, "a", "bad has more control tokens"),
        (hurt.Healthy, hurt.DropsBytes, "\x00", "bad gives other bytes than the text's"),
        (hurt.Healthy, hurt.StripsBlanks, "a <end>", "bad gives other bytes than the text's"),
    ],
)
def test_what_two_disagree_on_is_told_by_its_cause(good, bad, text, cause):
    (found,) = PROPERTIES["agreement"].broken([good("good"), bad("bad")], text)
    assert (found.name, found.path, found.cause) == ("agreement", "good / bad", cause)
    assert [one.by.split(",")[0] for one in found.shown] == ["good", "bad"]


def test_outputs_show_ids_and_pieces():
    (found,) = PROPERTIES["agreement"].broken([hurt.Healthy("good"), hurt.LostMerges("bad")], "a\u00e9")
    assert [json.loads(one.text) for one in found.shown] == [
        [[97, "a"], [267, "\u00e9"]],
        [[97, "a"], [0xC3, "\\xc3"], [0xA9, "\\xa9"]],
    ]


def test_a_tokenizer_that_raises():
    (found,) = PROPERTIES["agreement"].broken([hurt.Healthy("good"), hurt.Refuses("bad")], "\u3042")
    assert (found.path, found.cause) == ("bad", "error ValueError: cannot take N characters")
    assert found.shown[1].error == "error: cannot take 1 characters"


def test_a_tokenizer_that_raises_what_no_part_should():
    (found,) = PROPERTIES["agreement"].broken([hurt.Healthy("good"), hurt.Fails("bad")], "12")
    assert (found.path, found.cause) == ("bad", "error LookupError: N is none of mine")


@pytest.mark.parametrize("name", ["round-trip", "streaming"])
def test_a_tokenizer_that_does_not_decode_its_own_ids(name):
    pair = [hurt.Healthy("good"), hurt.TooLong("bad")]
    (found,) = PROPERTIES[name].broken(pair, "a")
    assert (found.path, found.cause) == ("bad", "refused : no such token")
    assert json.loads(found.shown[0].text) == [[97, "a"], [270, None]]
    (found,) = PROPERTIES["agreement"].broken(pair, "a")
    assert found.cause == "an id has no bytes"


def test_what_cannot_be_asked_is_not_judged(monkeypatch):
    real = hurt.Healthy.encode

    def encode(self, text, *, special):
        if special and self.name == "bad":
            raise PartError("unsupported", "no")
        return real(self, text, special=special)

    monkeypatch.setattr(hurt.Healthy, "encode", encode)
    pair = [hurt.Healthy("bad"), hurt.Healthy("good")]
    for name in ("agreement", "control-only-where-asked", "boundary"):
        assert PROPERTIES[name].broken(pair, "a<end>") == []
    assert PROPERTIES["bos"].broken([hurt.Healthy("good"), hurt.TwoBos("bad")], "") == []


class TestScans:
    def test_classes_of_entries(self):
        # Bytes above ASCII are no text.
        counts, broken = entries([hurt.Healthy("good"), hurt.LostMerges("bad"), hurt.Healthy("good too")])
        assert counts[0] == counts[2] == {"itself": 140, "no text": 128, "control": 2}
        assert counts[1] == {"itself": 139, "unreachable": 1, "no text": 128, "control": 2}
        ((found, text, count),) = broken
        assert found.key == ("agreement", "good / bad", "bad alone cuts inside a character")
        assert (text, count) == ("\u00e9", 1)

    def test_the_shortest_entry_is_shown(self):
        _, ((found, text, count),) = entries([hurt.Healthy("good"), hurt.StripsLetters("bad")])
        assert (text, count, found.message) == (
            "he",
            3,
            "other ids for 'he' (plain text): bad gives other bytes than the text's",
        )

    def test_no_time_for_entries(self):
        assert entries([hurt.LostMerges()], seconds=-1) == ([{"not asked": 268, "control": 2}], [])

    def test_entries_that_are_not_normal(self):
        counts, _ = entries([hurt.OneAngstrom()])
        assert counts[0]["not normal"] == 1

    def test_drift(self):
        # Of the 256 streams of eight, those of `aa` with an `a` at the end, or none, come back.
        assert drift(hurt.TwoLetters(), 1) == drift(hurt.TwoLetters(), 1)
        assert 0.97 < drift(hurt.TwoLetters(), 1) <= 1

    def test_roles(self):
        assert broken_roles([hurt.Healthy("a"), hurt.Healthy("b")]) == []
        ((found, ids, count),) = broken_roles([hurt.Healthy("good"), hurt.OneControl("bad")])
        assert found.key == ("roles", "good / bad", "good alone has control tokens")
        assert (ids, count) == ([269], 1)

    def test_pieces_and_control_tokens(self):
        pair = [hurt.Healthy("good"), hurt.OtherPiece("bad")]
        ((pieces, ids, count),) = broken_pieces(pair)
        assert (pieces.path, ids, count) == ("good / bad", [269], 1)
        ((control, ids, count),) = broken_controls(pair)
        assert (control.path, ids, count) == ("bad", [269], 1)
        assert broken_pieces([pair[0], pair[0]]) == broken_controls([pair[0]]) == []


class TestSearch:
    def test_one_finding_for_each_cause_with_a_small_example(self):
        group = Group(name="tiny", parts=(part("Healthy", "good"), part("Normalizes", "bad")))
        findings, (statistics,) = fuzz_tokenizers([group], TEXTS, examples=300, number=1)
        (found,) = findings
        assert found.broken.key == ("agreement", "good / bad", "bad alone normalizes (NFC)")
        assert found.sentence == PROPERTIES["agreement"].sentence
        assert (found.subject, found.subjects) == ("tiny", ("tiny",))
        assert len(found.example) <= 2
        assert found.inputs > 1
        assert statistics.inputs >= 200
        assert statistics.versions == {"good": "1", "bad": "1"}
        assert statistics.classes["good"]["control"] == 2
        assert [*statistics.drift] == ["good", "bad"]

    def test_what_could_not_be_judged_is_not_counted_as_held(self):
        group = Group(name="tiny", parts=(part("WithoutControl", "plain"), part("PlainOnly", "only")))
        _, (statistics,) = fuzz_tokenizers([group], TEXTS, examples=60, number=1, scans=False)
        assert statistics.held["round-trip"] == statistics.held["agreement"] == statistics.inputs >= 40
        assert "boundary" not in statistics.held
        alone = Group(name="tiny", parts=(part("Healthy", "good"),))
        _, (statistics,) = fuzz_tokenizers([alone], TEXTS, examples=60, number=1, scans=False)
        assert "agreement" not in statistics.held
        assert statistics.held["boundary"] == statistics.inputs

    def test_the_same_seed_finds_the_same(self):
        group = Group(name="tiny", parts=(part("Healthy", "good"), part("DropsBytes", "bad")))
        first, second = (fuzz_tokenizers([group], TEXTS, examples=600, number=3, scans=False) for _ in range(2))
        assert first == second
        assert {one.broken.name for one in first[0]} == {"agreement", "round-trip"}
        assert {one.example for one in first[0]} == {"\x00"}

    def test_only_what_is_asked_on_texts_that_are_given(self):
        group = Group(name="tiny", parts=(part("Healthy", "good"), part("TwoBos", "bad")))
        asked = {"examples": 0, "number": 1, "replayed": ["hello", "a"], "scans": False}
        findings, (statistics,) = fuzz_tokenizers([group], TEXTS, only=["bos"], **asked)
        assert [(one.broken.name, one.example, one.inputs) for one in findings] == [("bos", "a", 2)]
        assert statistics.inputs == 2
        assert fuzz_tokenizers([group], TEXTS, only=["agreement"], **asked)[0] == []

    def test_files_are_made_of_the_first_ones_vocabulary(self):
        pytest.importorskip("llama_cpp", reason="pip install -e '.[llama-cpp]'")
        over = [
            Part(path="harness.components.tokenizers._llama_cpp:LlamaCppTokenizer", over="gguf"),
            Part(path="harness.components.tokenizers._hf:open_tokenizer", over="json"),
        ]
        group = Group(name="tiny", parts=(part("Healthy"), *over))
        findings, (statistics,) = fuzz_tokenizers([group], TEXTS, examples=200, number=1, replayed=HARD)
        assert findings == []
        assert [*statistics.versions] == ["healthy", "llama-tokenize", "hf-tokenizers"]
        assert statistics.classes["llama-tokenize"] == statistics.classes["healthy"]

    def test_a_tokenizer_that_ends_its_process_is_a_finding_and_the_search_goes_on(self):
        group = Group(name="tiny", parts=(part("Healthy", "good"), part("Aborts", "bad")))
        replayed = ["7", "e\u0301"]
        findings, (statistics,) = fuzz_tokenizers([group], TEXTS, examples=0, number=1, replayed=replayed, scans=False)
        (found,) = findings
        assert found.broken.key == ("alive", "bad", "SIGABRT at a text")
        assert found.example == "7"
        assert statistics.inputs == 2

    def test_a_tokenizer_that_ends_its_process_while_it_is_made(self):
        group = Group(name="tiny", parts=(part("Healthy"), part("AbortsAtOnce")))
        findings, (statistics,) = fuzz_tokenizers([group], TEXTS, examples=5, number=1)
        (found,) = findings
        assert found.broken.key == ("alive", "tests.fuzz.hurt_tokenizers:AbortsAtOnce", "SIGABRT at a vocabulary")
        assert statistics.inputs == 0

    def test_findings_of_several_groups_are_joined_by_cause(self):
        groups = [Group(name=name, parts=(part("Healthy", "good"), part("TwoBos", "bad"))) for name in "xy"]
        asked = {"examples": 0, "number": 1, "replayed": ["a"], "scans": False}
        (found,), statistics = fuzz_tokenizers(groups, TEXTS, **asked)
        assert (found.subjects, found.inputs, len(statistics)) == (("x", "y"), 2, 2)

    @pytest.mark.parametrize(
        ("parts", "complaint"),
        [
            ((Part(path="tests.fuzz.hurt_tokenizers"),), "x: .* is no package.module:Class"),
            ((part("Healthy"), part("TwoBos")), "x: two tokenizers are named 'healthy'"),
            ((Part(path="tests.fuzz.none:None"),), "x: No module named 'tests.fuzz.none'"),
            ((Part(path="harness.components.tokenizers._hf:open_tokenizer", over="json"),), "x: .* no vocabulary"),
        ],
    )
    def test_a_part_that_cannot_be_made_is_one_clear_error(self, parts, complaint):
        with pytest.raises(UserError, match=complaint):
            fuzz_tokenizers([Group(name="x", parts=parts)], TEXTS, examples=1, number=1)

    def test_a_property_that_does_not_exist(self):
        with pytest.raises(UserError, match="no property named 'agrement'; did you mean 'agreement'"):
            fuzz_tokenizers([], TEXTS, only=["agrement"], examples=1, number=1)


def test_the_journal_outlives_its_writer(tmp_path):
    writer = Journal(tmp_path / "journal")
    reader = Journal(tmp_path / "journal")
    writer.note(3, "a\ud800\u3042")
    assert (reader.count, reader.text) == (3, "a\ud800\u3042")
    writer.note(4, "x" * (2 << 20))
    assert (reader.count, len(reader.text)) == (4, (1 << 20) - 16)
    writer.close()
    reader.close()
