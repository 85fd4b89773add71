"""The launch that draws normals."""

from __future__ import annotations

from functools import lru_cache

from torch import Tensor

from ..device import normals
from ..numbers import ceil_div
from .programs import Pointer, Program, launch

NORMAL_BLOCK = 256  # places of an element-wise program


@lru_cache(maxsize=256)
def normal_program(first_row: int, num_rows: int, num_columns: int) -> Program:
    """Pointers: seed (2,) int32 words (low, high), places (num_rows, num_columns) int32."""
    total = num_rows * num_columns
    draw = launch(
        normals.normal_places_kernel, (ceil_div(total, NORMAL_BLOCK),), {},
        p_seed=Pointer("seed"), p_places=Pointer("places"), first_row=first_row, num_columns=num_columns, total=total,
        BLOCK=NORMAL_BLOCK,
    )  # fmt: skip
    return Program([draw])


def launch_normal_places(places: Tensor, seed: Tensor, first_row: int) -> None:
    """Writes k of ``normals.normal_places`` for rows ``first_row`` .. into ``places`` (rows, columns) int32."""
    normal_program(first_row, *places.shape).run({"seed": seed, "places": places})
