"""What a file of one's own defects imports: `from harness.faults import defect`.

The same names as in `harness.defects`, in the place that files of defects know.
"""

from __future__ import annotations

from harness.defects import Defect, Generated, Place, Tokenizing, defect

__all__ = ["Defect", "Generated", "Place", "Tokenizing", "defect"]
