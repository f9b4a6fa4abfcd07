"""Goldens on disk: exact to the byte, never half written, and refused when they are not what was recorded."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from harness.errors import UserError
from harness.project.cases import case_names, cases_for, load_case
from harness.project.golden import (
    CaseRecord,
    Golden,
    GoldenError,
    Provenance,
    case_digest,
    decode_distributions,
    encode,
    encode_distributions,
    files_digest,
    load_golden,
    load_provenance,
    template_digest,
)
from harness.project.golden_writing import provenance_bytes, writing
from harness.project.project import Project
from harness.stage import Stage
from harness.values import (
    Case,
    Distributions,
    Generation,
    ModelRef,
    Prompt,
    Refusal,
    Reply,
    Request,
    Tokens,
    Usage,
)

ROOT = Path(__file__).parents[2]
TEXT = 'a\r\nb\rc\td \u2028\u2029\x85\ufeff "\\" \U0001f469\u200d\U0001f4bb e\u0301 \u202e \0 no newline'
MODEL = ModelRef(name="m", path=Path("m.gguf"), sha256="5" * 64)
WHOLE = {"request.json", "prompt.txt", "tokens.json", "generation.json", "logits.npz", "reply.json"}


def make_case(name="c", text=TEXT, **changes):
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 3, **changes.pop("body", {})}
    return Case(name=name, description="d", covers=("x",), body=body, **changes)


def make_distributions(seed=0, rows=2, vocabulary=300):
    logits = np.random.default_rng(seed).normal(size=(rows, vocabulary)).astype(np.float32)
    return Distributions.from_logits(logits).top()


def make_golden(name="c", text=TEXT, seed=0):
    case = make_case(name, text)
    return Golden(
        case=case,
        model="m",
        request=Request(
            messages=tuple(case.body["messages"]),
            tools=({"type": "function", "function": {"name": text}},),
            tool_choice={"type": "function"},
            settings={"max_tokens": 3, "stop": [text], "ids": "", "temperature": 0.1},
        ),
        prompt=Prompt(
            text=text,
            suffix='"ids": ""' + text[-3:],
            literals=((0, 3), (4, 5)),
            dates=((1, 3, "%H:%M"),),
            policies={"p": text},
        ),
        tokens=Tokens(
            ids=(1, 2, 3),
            pieces=("a\r\n", '"policies": ""', "\ufffd"),
            policies={"control-text-parsed": (1, 7), "pieces": ()},
        ),
        generation=Generation(
            ids=(5, 6),
            chosen=(5, 8),
            finish="length",
            distributions=make_distributions(seed),
            digests=("0" * 64,),
            settings={"chosen": "", "ids": ""},
            beyond=(9,),
        ),
        reply=Reply(
            content=text,
            reasoning="",
            tool_calls=({"id": "x", "function": {"arguments": text}},),
            finish_reason="length",
            usage=Usage(prompt_tokens=3, completion_tokens=2),
            withheld=2,
            policies={"end-text-stops": Reply(content=None)},
        ),
    )


def refused_at_template():
    golden = make_golden()
    refusal = Refusal(error="TemplateError", message="roles must alternate\u2028", policies={"p": TEXT})
    return Golden(case=golden.case, model="m", request=golden.request, prompt=refusal)


def refused_at_inference():
    golden = make_golden()
    refusal = Refusal(error="ContextLength", message="too long", context=True)
    return golden.model_copy(update={"generation": refusal, "reply": None})


def plain(golden):
    """Return everything of a golden in a form that can be compared, bit by bit."""
    whole = golden.model_dump()
    found = golden.generation.distributions if isinstance(golden.generation, Generation) else None
    return whole, found and [
        (array.dtype, array.shape, array.tobytes()) for array in (found.logprobs, found.ids, found.rest)
    ]


@pytest.fixture
def project(tmp_path):
    (tmp_path / "golden" / "cases").mkdir(parents=True)
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "models.toml").touch()
    return Project(tmp_path)


def record(project, *goldens):
    """Write goldens and their provenance."""
    provenance = Provenance(format=1, model_sha256=MODEL.sha256, references={"client": "by hand"})
    with writing(project, "m") as writer:
        write_provenance(project, provenance)
        for golden in goldens:
            provenance = writer.write(golden, provenance)
    return provenance


def write_provenance(project, provenance):
    path = project.golden / "m" / "provenance.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(provenance_bytes(provenance))


def load(project, golden, model=MODEL):
    return load_golden(project, model, golden.case, load_provenance(project, model))


def content(folder):
    """Return every file below a folder, hidden ones included, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(call, *arguments):
    with pytest.raises(GoldenError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def not_computed():
    return make_golden().model_copy(update={"generation": None, "reply": None})


# There and back


@pytest.mark.parametrize(
    ("make", "files"),
    [
        (make_golden, WHOLE),
        (refused_at_template, {"request.json", "refusal.json"}),
        (refused_at_inference, {"request.json", "prompt.txt", "tokens.json", "refusal.json"}),
        (not_computed, {"request.json", "prompt.txt", "tokens.json"}),
    ],
)
def test_what_is_loaded_is_what_was_written(project, make, files):
    golden = make()
    record(project, golden)
    assert {path.name for path in (project.golden / "m" / "c").iterdir()} == files
    assert plain(load(project, golden)) == plain(golden)


@pytest.mark.parametrize("text", ["", "\n", "\r\n", "no newline", TEXT, TEXT + "\n\n"])
def test_the_prompt_is_its_exact_bytes(project, text):
    golden = make_golden(text=text)
    record(project, golden)
    assert (project.golden / "m" / "c" / "prompt.txt").read_bytes() == text.encode("utf-8")
    assert load(project, golden).prompt.text == text


def test_absent_values_stay_absent(project):
    golden = make_golden().model_copy(
        update={
            "request": Request(messages=({"role": "user", "content": None},)),
            "prompt": Prompt(text="a"),
            "tokens": Tokens(ids=()),
            "reply": Reply(content=None),
        }
    )
    record(project, golden)
    back = load(project, golden)
    assert plain(back) == plain(golden)
    assert (back.tokens.pieces, back.prompt.suffix, back.request.tools, back.reply.usage) == (None,) * 4


def test_a_golden_has_a_value_of_each_stage():
    golden = make_golden()
    wanted = (golden.request, golden.prompt, golden.tokens, golden.generation, golden.reply)
    assert all(golden.value(stage) is value for stage, value in zip(Stage, wanted, strict=True))
    refused = refused_at_template()
    assert refused.value(Stage.TEMPLATE) is refused.prompt
    assert [refused.value(stage) for stage in (Stage.TOKENIZATION, Stage.INFERENCE, Stage.POSTPROCESS)] == [None] * 3


def test_the_same_golden_has_the_same_bytes(project):
    first = encode(make_golden())
    assert encode(make_golden()) == first
    assert set(first) == WHOLE
    with zipfile.ZipFile(io.BytesIO(first["logits.npz"])) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    for _ in range(2):
        assert record(project, make_golden()).cases["c"].golden == files_digest(first)
    assert encode(load(project, make_golden())) == first, "what is loaded is written the same again"


def test_the_files_are_made_to_be_read_and_compared():
    files = encode(make_golden(text="caf\u00e9"))
    lines = files["tokens.json"].decode("utf-8").split("\n")
    assert lines == [
        "{",
        '  "prompt_suffix": "\\"ids\\": \\"\\"af\u00e9",',
        '  "literals": [[0, 3], [4, 5]],',
        '  "dates": [[1, 3, "%H:%M"]],',
        '  "prompt_policies": {',
        '    "p": "caf\u00e9"',
        "  },",
        '  "ids": [1, 2, 3],',
        '  "pieces": ["a\\r\\n", "\\"policies\\": \\"\\"", "\ufffd"],',
        '  "policies": {"control-text-parsed": [1, 7], "pieces": []}',
        "}",
        "",
    ]
    assert json.loads(files["generation.json"])["settings"] == {"chosen": "", "ids": ""}
    assert '  "ids": [5, 6],\n  "chosen": [5, 8],\n' in files["generation.json"].decode("utf-8")


def test_distributions_come_back_bit_by_bit():
    rows = np.array([[0.0, -np.inf, 3.0], [np.nan, 1.0, 2.0], [-0.0, 1e-40, 1e4]], np.float32)
    top = Distributions.from_logits(rows).top()
    back = decode_distributions(encode_distributions(top))
    for name in ("logprobs", "ids", "rest"):
        one, other = getattr(top, name), getattr(back, name)
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    assert encode_distributions(Distributions.from_logits(rows)) == encode_distributions(top)


def test_no_pickled_object_is_read():
    buffer = io.BytesIO()
    np.savez(buffer, logprobs=np.array([{}], dtype=object), ids=np.zeros(1), rest=np.zeros(1))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        decode_distributions(buffer.getvalue())


# Not what was recorded


CHANGED = (
    "the golden m/c is not what was recorded: its files were changed, or their line endings were; "
    "restore them, or look at what would change: harness record m"
)


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_one_changed_byte_in_any_file_is_refused(project, name):
    golden = make_golden()
    record(project, golden)
    path = project.golden / "m" / "c" / name
    sound = path.read_bytes()
    for place in (0, len(sound) // 2, len(sound) - 1):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        assert refusal(load, project, golden) == CHANGED
    for other in (sound[:-1], sound + b"\n", b""):
        path.write_bytes(other)
        assert refusal(load, project, golden) == CHANGED
    path.write_bytes(sound)
    load(project, golden)


def test_converted_line_endings_are_refused(project):
    golden = make_golden(text="a\nb\n")
    record(project, golden)
    path = project.golden / "m" / "c" / "prompt.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert refusal(load, project, golden) == CHANGED


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_a_removed_file_is_refused(project, name):
    golden = make_golden()
    record(project, golden)
    (project.golden / "m" / "c" / name).unlink()
    assert refusal(load, project, golden) == CHANGED


def test_an_added_refusal_or_a_removed_folder_is_refused(project):
    golden = make_golden()
    record(project, golden)
    (project.golden / "m" / "c" / "refusal.json").write_text('{"stage": "template", "error": "E", "message": "m"}')
    assert refusal(load, project, golden) == CHANGED
    shutil.rmtree(project.golden / "m" / "c")
    assert refusal(load, project, golden) == CHANGED


def test_the_files_of_another_golden_are_refused(project):
    record(project, make_golden(), make_golden("other", "other"))
    for name in WHOLE:
        shutil.copy(project.golden / "m" / "other" / name, project.golden / "m" / "c" / name)
    assert refusal(load, project, make_golden()) == CHANGED


def test_content_that_moves_from_one_file_to_the_next_is_another_digest():
    assert files_digest({"a": b"xy", "b": b"z"}) != files_digest({"a": b"x", "b": b"yz"})
    assert files_digest({"a": b"x", "b": b"y"}) == files_digest({"b": b"y", "a": b"x"})


@pytest.mark.parametrize(
    "changed",
    [
        make_case(text="another question"),
        make_case(body={"max_tokens": 4}),
        make_case(body={"seed": None}),
        make_case(options={"clock": "2026-01-02T03:04:06"}),
        make_case(options={"script": ""}),
        make_case(options={"template_kwargs": {"x": False}}),
        make_case(options={"continue_final_message": True}),
    ],
)
def test_a_case_that_asks_something_else_is_refused(project, changed):
    golden = make_golden()
    record(project, golden)
    assert refusal(load, project, golden.model_copy(update={"case": changed})) == (
        "case 'c' was changed after its golden was recorded; look at what would change: harness record m"
    )


def test_a_case_that_is_described_in_other_words_is_the_same(project):
    golden = make_golden()
    record(project, golden)
    reworded = golden.case.model_copy(update={"description": "new", "covers": (), "models": ("m",)})
    assert load(project, golden.model_copy(update={"case": reworded})).case.description == "new"


def test_no_golden_gives_the_command(project):
    golden = make_golden()
    assert refusal(load, project, golden) == "no goldens for model 'm'; make them: harness record m"
    record(project)
    assert refusal(load, project, golden) == (
        "case 'c' has no golden for model 'm'; look at what would change: harness record m"
    )


def test_goldens_of_another_file_are_not_compared(project):
    golden = make_golden()
    record(project, golden)
    other = MODEL.model_copy(update={"sha256": "7" * 64})
    assert refusal(load, project, golden, other) == (
        "the goldens of 'm' were made with another model file (SHA-256 555555555555..., now 777777777777...): "
        "they are not compared; record them again: harness record m"
    )


def test_goldens_of_another_template_are_not_compared(project):
    golden = make_golden()
    record(project, golden)
    other = MODEL.model_copy(update={"chat_template": "{{ 1 }}\r\n"})
    digest = template_digest(other)
    assert digest != template_digest(other.model_copy(update={"chat_template": "{{ 1 }}\n"}))
    assert refusal(load, project, golden, other) == (
        f"the goldens of 'm' were made with another template (SHA-256 none..., now {digest[:12]}...): "
        "they are not compared; record them again: harness record m"
    )


def test_provenance_of_another_format_is_refused(project):
    record(project)
    path = project.golden / "m" / "provenance.toml"
    path.write_text(path.read_text().replace("format = 1", "format = 2"))
    with pytest.raises(UserError) as caught:
        load_provenance(project, MODEL)
    assert str(caught.value) == f"{path}:2: format: Input should be 1"


def test_provenance_comes_back_and_has_one_sorted_line_a_case(project):
    made = record(project, make_golden("b", "b"), make_golden("a-1_x", "a"))
    assert load_provenance(project, MODEL) == made
    lines = (project.golden / "m" / "provenance.toml").read_text().splitlines()
    assert [line.split(" = ")[0] for line in lines[-2:]] == ["a-1_x", "b"]


@pytest.mark.parametrize(
    ("name", "reference"), [("qwen2.5-tools", "by hand"), ("two words", "by hand"), ("caf\u00e9", "x"), ("c", "a\x7fb")]
)
def test_provenance_of_unusual_names_comes_back(project, name, reference):
    provenance = Provenance(
        format=1,
        model_sha256=MODEL.sha256,
        references={"client": reference},
        cases={name: CaseRecord(asked="1", golden="2")},
    )
    write_provenance(project, provenance)
    assert load_provenance(project, MODEL) == provenance


# Cases


def put_case(project, name, **keys):
    case = {"description": "d", "covers": [], "body": {"messages": [{"role": "user", "content": name}]}, **keys}
    (project.golden / "cases" / f"{name}.json").write_text(json.dumps(case), encoding="utf-8")


def test_cases_are_found_by_their_file_names(project):
    put_case(project, "b")
    put_case(project, "a", models=["m"])
    assert case_names(project) == ("a", "b")
    assert load_case(project, "a").name == "a"
    assert [case.name for case in cases_for(project, "m")] == ["a", "b"]
    assert [case.name for case in cases_for(project, "other")] == ["b"]
    assert [case.name for case in cases_for(project, "m", ["b"])] == ["b"]
    assert cases_for(project, "other", ["a"]) == ()
    entry = f'path = "m.gguf"\nsha256 = "{"5" * 64}"\n'
    models = project.stacks / "models.toml"
    models.write_text(f"[m]\n{entry}named_only = true\n[other]\n{entry}")
    assert [case.name for case in cases_for(project, "m")] == ["a"], "a model of named cases only"
    assert cases_for(project, "m", ["b"]) == ()
    assert [case.name for case in cases_for(project, "other")] == ["b"]


def test_a_case_that_does_not_exist_has_the_nearest_name(project):
    put_case(project, "whitespace")
    for call in (lambda: load_case(project, "whitspace"), lambda: cases_for(project, "m", ["whitspace"])):
        with pytest.raises(UserError) as caught:
            call()
        assert str(caught.value) == "no case named 'whitspace'; did you mean 'whitespace'? known: whitespace"


def test_a_wrong_case_names_file_and_line(project):
    put_case(project, "c", body={"messages": []})
    with pytest.raises(UserError) as caught:
        cases_for(project, "m")
    path = project.golden / "cases" / "c.json"
    assert str(caught.value) == f"{path}:1: body: 'messages' must be a list of at least one message object"


def test_a_case_is_refused_or_digested_however_deep_it_is(project):
    deep = []
    for _ in range(300):
        deep = [deep]
    put_case(project, "c", body={"messages": [{"role": "user", "content": "a"}], "tools": deep})
    try:
        case = load_case(project, "c")
    except UserError:
        return
    assert len(case_digest(case)) == 64


# Git


def git(*arguments, cwd):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", *arguments]
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed: nothing of it is tested")


@needs_git
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout: .gitattributes is not tested")
@pytest.mark.parametrize("name", ["prompt.txt", "tokens.json", "reply.json"])
def test_git_converts_no_line_endings_of_goldens(name):
    path = f"golden/x/c/{name}"
    assert git("check-attr", "text", "--", path, cwd=ROOT) == f"{path}: text: unset\n"


@needs_git
@pytest.mark.skipif(not (ROOT / ".gitattributes").exists(), reason="no .gitattributes here: it is not tested")
def test_goldens_pass_through_a_repository_that_converts_line_endings(project):
    golden = make_golden(text="a\r\nb\nc\r\n")
    record(project, golden)
    shutil.copy(ROOT / ".gitattributes", project.root)
    (project.root / "other.txt").write_bytes(b"a\n")
    git("init", "-q", cwd=project.root)
    git("config", "core.autocrlf", "true", cwd=project.root)
    before = content(project.golden)
    git("add", ".", cwd=project.root)
    git("commit", "-q", "-m", "m", cwd=project.root)
    for name in ("golden", "other.txt"):
        path = project.root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    git("checkout", "-q", "--", ".", cwd=project.root)
    assert (project.root / "other.txt").read_bytes() == b"a\r\n", "this repository does convert"
    assert content(project.golden) == before
    assert plain(load(project, golden)) == plain(golden)
