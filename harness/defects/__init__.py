r"""Labelled defects that can be planted in real parts, to measure the harness itself.

A defect is a function of a few lines, told by its `place` what it is given:

    from harness.faults import defect

    @defect("my-lost-newline", place="prompt", sentence="Line breaks become spaces.")
    def lost_newline(text):
        return text.replace("\n", " ")

and planted by `harness attribute STACK --defects my_defects.py`. Ours are in `harness.defects.catalogue`. Nothing in
compare, verdict or golden knows of this package.
"""

from __future__ import annotations

from harness.defects.defect import Defect, Place, defect
from harness.defects.places import Generated, Tokenizing

__all__ = ["Defect", "Generated", "Place", "Tokenizing", "defect"]
