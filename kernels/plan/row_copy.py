"""How rows of a table in the host's memory are fetched and written, and taken anew where they moved: a call's static
numbers.

Few programs with many loads under way fill the bus: more of them would hold the registers that other work of the GPU
waits for.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..numbers import ceil_div
from .tiles import Work, whole_rows

PROGRAMS = 16
ELEMENTS = 16384  # of a program at a time, over the bus
ELEMENTS_HERE = 2048  # in the device's memory


@dataclass(frozen=True)
class RowCopy:
    """``num_rows`` rows of a table of ``num_items`` to or from memory of their own, in the table's dtype."""

    num_rows: int
    num_items: int
    dim: int
    dtype: str

    @property
    def rows_each(self) -> int:
        """Rows of a program at a time."""
        return whole_rows(self.dim, ELEMENTS)[0]

    @property
    def block_d(self) -> int:
        return whole_rows(self.dim, ELEMENTS)[1]

    @property
    def programs(self) -> int:
        return min(ceil_div(self.num_rows, self.rows_each), PROGRAMS)

    @property
    def work(self) -> Work:
        return Work(self.rows_each, 8, 1)


@dataclass(frozen=True)
class RowRefresh:
    """``num_rows`` rows, of which those among ``num_moved`` others are taken from these."""

    num_rows: int
    num_moved: int
    dim: int
    dtype: str

    @property
    def rows_each(self) -> int:
        """Rows of a program."""
        return whole_rows(self.dim, ELEMENTS_HERE)[0]

    @property
    def block_d(self) -> int:
        return whole_rows(self.dim, ELEMENTS_HERE)[1]

    @property
    def work(self) -> Work:
        return Work(self.rows_each, 4, 1)
