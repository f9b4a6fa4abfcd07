"""The data of sheets as JSON to embed in a page: harmless inside a script, and no larger than a page can bear."""

from __future__ import annotations

import json
from collections.abc import Sequence

from harness.report.sheet import Sheet
from harness.values import Json

RAW_LIMIT = 1_250_000
"""Characters of embedded data."""
_PLACES = 8
_SIDES = ("expected", "observed", "streams")
# In JSON these stand in strings only, so that the escapes mean the same, and HTML finds nothing to read. What is not
# ASCII is escaped too: nothing hides from who reads the source.
_HARMLESS = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&"})


def embedded(sheets: Sequence[Sheet], limit: int = RAW_LIMIT) -> tuple[str, str]:
    """Return the data of sheets, and in words what had to be left out of it; empty where nothing was.

    What is too large loses first the differences beyond the eighth of each value, then what both sides produced, the
    largest cases first, and at last the cases.

    Args:
        sheets: The sheets.
        limit: How many characters may be written.
    """
    plain: list[Json] = [json.loads(sheet.model_dump_json()) for sheet in sheets]
    data = _written(plain)
    if len(data) <= limit:
        return data, ""
    for sheet in plain:
        _cut_places(sheet)
    data = _written(plain)
    said = f"differences beyond the {_PLACES} first of a value"
    if len(data) <= limit:
        return data, said
    excess, dropped = len(data) - limit, 0
    cases = [case for sheet in plain for case in sheet["cases"]]
    sizes = [(sum(len(_written(case[side])) + len(side) + 4 for side in _SIDES), at) for at, case in enumerate(cases)]
    for size, at in sorted(sizes, reverse=True):
        if excess <= 0:
            break
        for side in _SIDES:
            del cases[at][side]
        excess, dropped = excess - size, dropped + 1
    if excess <= 0:
        return _written(plain), f"{said}, and what both sides produced in {dropped} of {len(cases)} cases"
    for sheet in plain:
        del sheet["cases"]
    return _written(plain), f"{said}, and the cases"


def _written(value: object) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).translate(_HARMLESS)


def _cut_places(sheet: Json) -> None:
    differences = [finding["difference"] for finding in sheet["findings"]]
    for case in sheet["cases"]:
        for result in case["results"]:
            differences.append(result["isolated"]["difference"])
            if result["unexplained"] is not None:
                differences.append(result["unexplained"][1])
    for difference in differences:
        if difference is not None:
            del difference["hunks"][_PLACES:]
            # A cause of every place: of no use without them.
            del difference["causes"][_PLACES:]
