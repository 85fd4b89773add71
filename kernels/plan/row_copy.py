"""How rows of a table in the host's memory are fetched and written, and taken anew where they moved: a call's static
numbers.

Few programs with many loads under way fill the bus: more of them would hold the registers that other work of the GPU
waits for.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..numbers import ceil_div
from .tiles import WholeRows, Work

PROGRAMS = 8


@dataclass(frozen=True)
class RowCopy(WholeRows):
    """``num_moved`` rows to a table of ``num_items``, and ``num_rows`` from it, in the table's dtype."""

    num_moved: int
    num_rows: int
    num_items: int
    dim: int
    dtype: str

    elements = 16384

    @property
    def programs(self) -> int:
        return min(ceil_div(max(self.num_moved, self.num_rows), self.rows_each), PROGRAMS)

    @property
    def work(self) -> Work:
        return Work(self.rows_each, 8, 1)


@dataclass(frozen=True)
class RowRefresh(WholeRows):
    """``num_rows`` rows, of which those among ``num_moved`` others are taken from these."""

    num_rows: int
    num_moved: int
    dim: int
    dtype: str

    elements = 2048

    @property
    def work(self) -> Work:
        return Work(self.rows_each, 4, 1)
