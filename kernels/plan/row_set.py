"""How the distinct rows that ids name are found by kernels; the static numbers, shared by torch and JAX."""

from __future__ import annotations

from dataclasses import dataclass

from ..numbers import ceil_div
from .buffers import TABLE_BLOCK, Buffer
from .group_draw import GroupDraw

NO_ROW = 2**31 - 1  # what names no row is sorted as


@dataclass(frozen=True)
class RowSetPlan:
    """Rows of ``num_keys`` ids, at most ``num_places`` of them."""

    num_keys: int
    num_places: int

    @property
    def key_programs(self) -> int:
        return ceil_div(self.num_keys, TABLE_BLOCK)

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """ids (T,), places of the given ids, count (1,), and scratch."""
        sizes = {"ids": self.num_places, "places": self.num_keys, "count": 1, "counts": self.key_programs}
        return tuple(Buffer(name, (size,), "int32") for name, size in sizes.items())


@dataclass(frozen=True)
class DrawnRows:
    """The rows of the items of a ``draw`` and of its targets, among ``num_places`` rows."""

    draw: GroupDraw
    num_places: int

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """drawn (D + T,), target_places and positions (N,), and scratch."""
        sizes = {
            "drawn": self.draw.num_drawn + self.num_places,
            "target_places": self.draw.num_rows,
            "positions": self.draw.num_rows,
            "drawn_at": self.num_places,
        }
        return tuple(Buffer(name, (size,), "int32") for name, size in sizes.items())
