"""The data in a page: harmless, whole where it fits, and otherwise said not to be."""

import json

from harness.checking.compare.outcome import Hunk
from harness.checking.verdict import Finding
from harness.report.embed import embedded
from harness.stage import Stage
from tests.made import difference
from tests.report.sheets import HOSTILE, clean, faulty, hostile


def test_nothing_that_html_could_read_is_left_and_the_data_is_the_sheet():
    data, left_out = embedded([hostile()])
    assert left_out == ""
    assert not set(data) & set("<>&")
    assert data.isascii()
    assert json.loads(data) == [hostile().model_dump(mode="json")]
    assert HOSTILE in json.loads(data)[0]["notes"]


def test_what_is_not_a_number_is_null():
    sheet = clean()
    settings = sheet.cases[0].observed.request.model_copy(update={"settings": {"x": float("nan"), "y": float("inf")}})
    seen = sheet.cases[0].observed.model_copy(update={"request": settings})
    odd = sheet.model_copy(update={"cases": (sheet.cases[0].model_copy(update={"observed": seen}),)})
    found = json.loads(embedded([odd])[0], parse_constant=lambda constant: constant)
    assert found[0]["cases"][0]["observed"]["request"]["settings"] == {"x": None, "y": None}


def test_differences_are_cut_first_then_the_largest_cases_then_all():
    places = [Hunk(at=str(at), golden="a" * 400, observed="b") for at in range(20)]
    finding = Finding(
        stage=Stage.CLIENT,
        kind="engine",
        summary="s",
        cases=("ids",),
        example="ids",
        difference=difference("d", *places),
    )
    sheet = faulty().model_copy(update={"findings": (finding,)})
    whole, left_out = embedded([sheet])
    assert left_out == ""

    data, left_out = embedded([sheet], len(whole) - 1)
    assert left_out == "differences beyond the 8 first of a value"
    assert len(json.loads(data)[0]["findings"][0]["difference"]["hunks"]) == 8
    assert all("expected" in case for case in json.loads(data)[0]["cases"])

    less, left_out = embedded([sheet], len(data) - 1)
    assert left_out == "differences beyond the 8 first of a value, and what both sides produced in 1 of 6 cases"
    assert len(less) <= len(data) - 1
    sides = ("expected", "observed", "streams")
    cases = json.loads(data)[0]["cases"]
    sizes = {case["name"]: sum(len(json.dumps(case[side])) for side in sides) for case in cases}
    dropped = [case["name"] for case in json.loads(less)[0]["cases"] if "expected" not in case]
    assert dropped == [max(sizes, key=sizes.get)]

    least, left_out = embedded([sheet], 10)
    assert left_out.endswith(", and the cases")
    assert "cases" not in json.loads(least)[0]
    assert json.loads(least)[0]["line"] == sheet.line
