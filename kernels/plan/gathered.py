"""The plan of kernels on rows that have candidates of their own, whose item rows are gathered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ..draws.uniform import IndependentDraws

if TYPE_CHECKING:
    from .problem import Problem

ROW_BYTES = 512  # what the lanes of a warp load together, 16 bytes each


@dataclass(frozen=True, eq=False)
class Gathered:
    """Each row walks its own candidates; items look up the rows that drew them."""

    p: Problem

    @cached_property
    def draw(self) -> IndependentDraws:
        """The draw of the rows; for explicit ids one stratum that is drawn whole."""
        own = self.p.draws
        return own if isinstance(own, IndependentDraws) else IndependentDraws(self.p.negatives, self.p.negatives)

    def lanes(self, element_bytes: int, rows: int) -> int:
        """How many of ``rows`` gathered rows different lanes of a warp load at once."""
        return max(1, min(ROW_BYTES // (self.p.row_work.block_d * element_bytes), rows))
