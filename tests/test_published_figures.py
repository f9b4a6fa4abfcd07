"""What our documents say of the harness measured: written from results and labels, and up to date."""

import re
import shutil
from types import SimpleNamespace

import jinja2
import pytest

from benchmarks import published_figures
from benchmarks.published_figures import RESULTS, blocks, main
from harness.attribution.published import publish
from harness.attribution.summary import summarise
from harness.defects import Generated, Place, Tokenizing
from harness.defects.catalogue import defects_in
from harness.report.attribution.readme import CATALOGUE, FIGURES, TABLES, figures, replaced, tables
from tests.attribution.made import DEFECTS, SETUP, TRIALS
from tests.conftest import ROOT

AGAIN = "python -m benchmarks.published_figures"


def test_the_documents_say_what_the_published_results_say():
    if not (ROOT / RESULTS).exists():
        pytest.skip(f"no results are published: `harness attribute STACK --out FOLDER --publish {RESULTS}` writes them")
    wanted = [(path, name, block) for path, name, block in blocks(ROOT) if name != CATALOGUE]
    assert len(wanted) == 2
    for path, name, block in wanted:
        text = path.read_text(encoding="utf-8")
        assert replaced(text, name, block) == text, f"{path} is not what {RESULTS} says; run: {AGAIN}"


def test_the_document_lists_the_catalogue():
    path, _, block = next(one for one in blocks(ROOT) if one[1] == CATALOGUE)
    text = path.read_text(encoding="utf-8")
    assert replaced(text, CATALOGUE, block) == text, f"{path} does not list the catalogue as it is; run: {AGAIN}"


@pytest.fixture
def documents(tmp_path):
    """A folder of documents of one's own, with results."""
    (tmp_path / "docs" / "studies").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "defects.md", tmp_path / "docs")
    for path, name in (("README.md", FIGURES), ("docs/studies/attribution.md", TABLES)):
        (tmp_path / path).write_text(f"before\n\n<!-- {name}: begin -->\n<!-- {name}: end -->\n\nafter\n")
    publish(tmp_path / RESULTS, summarise(SETUP, TRIALS, DEFECTS))
    return tmp_path


def test_every_block_is_written_and_nothing_around_it(documents, monkeypatch, capsys):
    monkeypatch.setattr(published_figures, "ROOT", documents)
    summary = summarise(SETUP, TRIALS, DEFECTS)
    main()
    assert capsys.readouterr().out.splitlines()[1:] == [
        "README.md: attribution: written",
        "docs/studies/attribution.md: attribution tables: written",
    ]
    readme = (documents / "README.md").read_text()
    block = figures({"stack": summary})
    assert readme == f"before\n\n<!-- attribution: begin -->\n\n{block}\n\n<!-- attribution: end -->\n\nafter\n"
    assert tables({"stack": summary}) in (documents / "docs" / "studies" / "attribution.md").read_text()
    main()
    assert [line.rpartition(": ")[2] for line in capsys.readouterr().out.splitlines()] == ["as it was"] * 3
    # Other results are other figures.
    publish(documents / RESULTS, summarise(SETUP, TRIALS[:1], DEFECTS))
    written = {name: block for _, name, block in blocks(documents)}
    assert replaced(readme, FIGURES, written[FIGURES]) != readme


class Copy:
    """What notes the edits of a model file."""

    def __init__(self):
        self.edits = []

    def set(self, key, value):
        self.edits.append((key, value))


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """The defects that the document shows, by place."""
    text = (ROOT / "docs" / "defects.md").read_text(encoding="utf-8")
    source = "\n\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    path = tmp_path_factory.mktemp("examples") / "my_defects.py"
    path.write_text(f"from harness.faults import defect\n\n\n{source}", encoding="utf-8")
    return {one.place: one for one in defects_in(path).values()}


def test_the_document_shows_one_defect_of_every_place(examples):
    assert set(examples) == set(Place)


def test_each_example_does_what_its_sentence_says(examples):
    def plant(place, *given):
        return examples[place].planting()(*given)

    assert plant(Place.BODY, {"temperature": 0.5, "seed": 1}) == {"seed": 1}
    system, user = {"role": "system", "content": "s"}, {"role": "user", "content": "u"}
    assert plant(Place.REQUEST, {"messages": [system, user], "tools": None}) == {"messages": [user], "tools": None}
    assert plant(Place.SOURCE, "{{ message['content'] }}") == "{{ message['content'] | trim }}"
    environment = jinja2.Environment(trim_blocks=True)
    plant(Place.ENVIRONMENT, environment)
    assert environment.from_string("{% if true %}\na{% endif %}").render() == "\na"
    assert plant(Place.PROMPT, "a\nb") == "a b"
    assert plant(Place.IDS, Tokenizing(text="ab", ids=(1, 2), encode=lambda text, parsed: ())) == (1,)
    seen = Generated(pieces=(), body={})
    whole = {"choices": [{"message": {"content": "a"}, "finish_reason": "length"}]}
    assert plant(Place.ANSWER, whole, seen)["choices"][0]["finish_reason"] == "stop"
    chunks = [{"choices": [{"delta": {}, "finish_reason": end}]} for end in (None, "length")]
    assert [one["choices"][0]["finish_reason"] for one in plant(Place.ANSWER, chunks, seen)] == [None, "stop"]
    assert plant(Place.RECEIVED, {"content": "a", "reasoning": "b"}) == {"content": "a", "reasoning": None}
    engine = SimpleNamespace(formatter=SimpleNamespace(add_generation_prompt=True))
    plant(Place.PART, engine)
    assert engine.formatter.add_generation_prompt is False
    assert plant(Place.OPTIONS, {"n_ctx": 2048, "n_batch": 8}) == {"n_ctx": 64, "n_batch": 8}
    copy = Copy()
    plant(Place.MODEL, copy)
    assert copy.edits == [("llama.rope.freq_base", 10_000.0)]
