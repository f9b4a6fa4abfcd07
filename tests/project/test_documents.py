"""Files that people write: what is wrong with one is said in one line that names the place."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from harness.errors import UserError
from harness.project.documents import read_json, read_toml


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    stage: Literal["first", "second"]
    weight: int = 1


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: str
    parts: list[Part] = Field(default_factory=list)
    table: dict[str, Part] = Field(default_factory=dict)
    least: int = 0

    @model_validator(mode="after")
    def _title_is_lower(self):
        if self.title != self.title.lower():
            raise ValueError("the title must be in lower case")
        return self


class Documents(RootModel[dict[str, Document]]):
    pass


def refused(tmp_path, read, content, model=Document):
    """Return the error's one line, the folder left out."""
    path = tmp_path / "d"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        read(path, model)
    line = str(caught.value)
    assert "\n" not in line
    return line.replace(str(tmp_path), "").removeprefix("/")


def test_a_sound_file_is_read(tmp_path):
    path = tmp_path / "d"
    path.write_text('title = "a"\n[[parts]]\nstage = "first"\n[table.x]\nstage = "second"\nweight = 3\n')
    assert read_toml(path, Document) == Document(
        title="a", parts=[Part(stage="first")], table={"x": Part(stage="second", weight=3)}
    )
    path.write_text('{"title": "a", "least": 2}')
    assert read_json(path, Document) == Document(title="a", least=2)


@pytest.mark.parametrize("read", [read_toml, read_json])
class TestNoReadableFile:
    def test_missing(self, tmp_path, read):
        path = tmp_path / "absent" / "d"
        with pytest.raises(UserError) as caught:
            read(path, Document)
        assert str(caught.value) == f"no file {path}"

    def test_a_folder(self, tmp_path, read):
        with pytest.raises(UserError) as caught:
            read(tmp_path, Document)
        assert str(caught.value) == f"{tmp_path} cannot be read: [Errno 21] Is a directory: '{tmp_path}'"

    def test_not_utf_8(self, tmp_path, read):
        assert refused(tmp_path, read, b'"caf\xe9"') == (
            "d cannot be read: 'utf-8' codec can't decode byte 0xe9 in position 4: invalid continuation byte"
        )


# Syntax


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", "d:1: not valid JSON: Expecting value (column 1)"),
        ('{\n"title": 1,\n}', "d:3: not valid JSON: Expecting property name enclosed in double quotes (column 1)"),
        ('{\r\n"title"\r\n', "d:3: not valid JSON: Expecting ':' delimiter (column 1)"),
        ('{"title": "a\nb"}', "d:1: not valid JSON: Invalid control character at (column 13)"),
        ("{}\n\n{}", "d:3: not valid JSON: Extra data (column 1)"),
        (b"\xef\xbb\xbf{}", "d:1: not valid JSON: Unexpected UTF-8 BOM (decode using utf-8-sig) (column 1)"),
    ],
)
def test_what_is_no_json(tmp_path, content, line):
    assert refused(tmp_path, read_json, content) == line


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("a = 1\nb = \n", "d: not valid TOML: Invalid value (at line 2, column 5)"),
        ("a = 1\na = 2\n", "d: not valid TOML: Cannot overwrite a value (at line 2, column 6)"),
        ("a = [1,\n2", "d: not valid TOML: Unclosed array (at end of document)"),
        ("\n\n[x\n", "d: not valid TOML: Expected ']' at the end of a table declaration (at line 3, column 3)"),
    ],
)
def test_what_is_no_toml(tmp_path, content, line):
    assert refused(tmp_path, read_toml, content) == line


@pytest.mark.parametrize(("read", "begin"), [(read_toml, "a = "), (read_json, '{"a": ')])
def test_nested_too_deeply(tmp_path, read, begin):
    assert refused(tmp_path, read, begin + "[" * 100_000) == "d: nested too deeply to read"


@pytest.mark.parametrize(("read", "content"), [(read_toml, "least = {}"), (read_json, '{{"least": {}}}')])
def test_a_number_of_too_many_digits(tmp_path, read, content):
    assert refused(tmp_path, read, content.format("1" * 5000)).startswith("d: ")


# Content


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('least = 1\ntitle = 2\n"x" = 3', "d:2: title: Input should be a valid string (and 1 more)"),
        (
            'title = "a"\n\n  least = "no"',
            "d:3: least: Input should be a valid integer, unable to parse string as an integer",
        ),
        ('title = "a"\nlost = 1', "d:2: lost: Extra inputs are not permitted"),
        ("least = 1", "d:1: title: Field required"),
        ('least = 1\ntitle = "A"', "d:1: the file: the title must be in lower case"),
        (
            'title = "stage"\n\n[[parts]]\nweight = 1\nstage = "third"\n',
            "d:5: parts.0.stage: Input should be 'first' or 'second'",
        ),
        (
            'title = "a"\n[table]\n"other one" = { stage = "third" }',
            "d:3: table.other one.stage: Input should be 'first' or 'second'",
        ),
        (
            'title = "a"\n[table]\n[table.x]\nweight = 1\nstage = "third"',
            "d:5: table.x.stage: Input should be 'first' or 'second'",
        ),
        (
            'title = "a"\ntable = { x = { stage = "third" } }',
            "d:2: table.x.stage: Input should be 'first' or 'second'",
        ),
    ],
)
def test_what_does_not_fit_in_toml(tmp_path, content, line):
    assert refused(tmp_path, read_toml, content) == line


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('{\n "least": 1,\n "title": 2\n}', "d:3: title: Input should be a valid string"),
        ('{"least": 1, "title": 2}', "d:1: title: Input should be a valid string"),
        ('{\r\n"title": "a",\r\n"lost": 1}', "d:3: lost: Extra inputs are not permitted"),
        ("[]", "d:1: the file: Input should be a valid dictionary or instance of Document"),
        (
            '{"title": "a",\n"table": {\n"x": {\n"weight": 1,\n"stage": 5}}}',
            "d:5: table.x.stage: Input should be 'first' or 'second'",
        ),
        (
            '{"title": "a", "parts":\n[{\n"stage": "third"}]}',
            "d:3: parts.0.stage: Input should be 'first' or 'second'",
        ),
    ],
)
def test_what_does_not_fit_in_json(tmp_path, content, line):
    assert refused(tmp_path, read_json, content) == line


def test_a_file_of_named_entries_names_the_entry(tmp_path):
    content = '[one]\ntitle = "a"\n\n[two]\ntitle = 5\n'
    assert refused(tmp_path, read_toml, content, Documents) == "d:5: two.title: Input should be a valid string"


def test_a_table_with_a_dotted_name_is_found(tmp_path):
    content = 'title = "a"\n[table.x]\nweight = 1\nstage = "third"\n'
    assert refused(tmp_path, read_toml, content) == "d:4: table.x.stage: Input should be 'first' or 'second'"


def test_the_second_entry_of_a_list_is_found(tmp_path):
    content = 'title = "a"\n[[parts]]\nstage = "first"\n[[parts]]\nstage = "third"\n'
    assert refused(tmp_path, read_toml, content) == "d:5: parts.1.stage: Input should be 'first' or 'second'"


def test_a_value_is_no_key(tmp_path):
    content = '[table.x]\nweight = 1\n[table.y]\nstage = "title"\n'
    line = refused(tmp_path, read_toml, content)
    assert line == "d:1: title: Field required (and 2 more)"


def test_a_line_is_what_an_editor_takes_for_one(tmp_path):
    content = '{"title": "a\u2028b\x85c\u2029d",\n"least": "no"}'
    assert refused(tmp_path, read_json, content).startswith("d:2: least: ")
