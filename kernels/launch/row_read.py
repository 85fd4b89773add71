"""The launch that reads rows of a table; see ``plan/row_read.py``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from ..device import row_read
from ..numbers import ceil_div
from ..plan.row_read import RowRead
from .programs import Pointer, Program, launch


@lru_cache(maxsize=256)
def row_read_program(plan: RowRead) -> Program:
    """Pointers: weight (V, D), ids (T,) int32, rows (T, D) fp32."""
    words = torch.int16 if plan.weight_dtype == "bfloat16" else None
    read = launch(
        row_read.read_rows_kernel, (ceil_div(plan.num_rows, plan.rows_each),), {}, work=plan.work,
        p_weight=Pointer("weight", dtype=words), p_ids=Pointer("ids"), p_rows=Pointer("rows"), num_rows=plan.num_rows,
        num_items=plan.num_items, dim=plan.dim, ROWS=plan.rows_each, BLOCK_D=plan.block_d,
    )  # fmt: skip
    return Program([read])


def launch_row_read(outs: Mapping[str, Tensor], ins: Mapping[str, Tensor], plan: RowRead) -> None:
    """outs: rows. ins: weight, ids."""
    row_read_program(plan).run({**ins, **outs})
