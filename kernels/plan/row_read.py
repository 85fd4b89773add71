"""How rows of a table are read: a call's static numbers."""

from __future__ import annotations

from dataclasses import dataclass

from .tiles import Work, whole_rows

ELEMENTS = 2048  # of a program


@dataclass(frozen=True)
class RowRead:
    """``num_rows`` rows of a table of ``num_items``, in float32."""

    num_rows: int
    num_items: int
    dim: int
    weight_dtype: str

    @property
    def block_d(self) -> int:
        return whole_rows(self.dim, ELEMENTS)[1]

    @property
    def rows_each(self) -> int:
        """Rows of a program."""
        return whole_rows(self.dim, ELEMENTS)[0]

    @property
    def work(self) -> Work:
        return Work(self.rows_each, 4, 1)
