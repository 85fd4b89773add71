"""How rows of a table are read: a call's static numbers."""

from __future__ import annotations

from dataclasses import dataclass

from .tiles import WholeRows, Work


@dataclass(frozen=True)
class RowRead(WholeRows):
    """``num_rows`` rows of a table of ``num_items``, in float32."""

    num_rows: int
    num_items: int
    dim: int
    weight_dtype: str

    elements = 2048

    @property
    def work(self) -> Work:
        return Work(self.rows_each, 4, 1)
