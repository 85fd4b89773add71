"""The launches that copy rows of a table; see ``plan/row_copy.py``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from ..device import row_copy
from ..numbers import ceil_div
from ..plan.row_copy import RowCopy, RowRefresh
from .programs import Pointer, Program, launch

_WORDS = {"bfloat16": torch.int16}


@lru_cache(maxsize=256)
def row_copy_program(plan: RowCopy) -> Program:
    """Pointers: weight (V, D); where rows move to it, moved (M,) int32, count (1,) int32 and news (M, D) of its dtype;
    where rows are read, ids (T,) int32 and rows (T, D) of its dtype."""
    words = _WORDS.get(plan.dtype)
    writes, reads = plan.num_moved > 0, plan.num_rows > 0
    copy = launch(
        row_copy.copy_rows_kernel, (plan.programs,), {}, work=plan.work,
        p_weight=Pointer("weight", dtype=words), p_moved=Pointer("moved") if writes else None,
        p_count=Pointer("count") if writes else None, p_news=Pointer("news", dtype=words) if writes else None,
        p_ids=Pointer("ids") if reads else None, p_rows=Pointer("rows", dtype=words) if reads else None,
        num_moved=plan.num_moved, num_rows=plan.num_rows, num_items=plan.num_items, dim=plan.dim, WRITES=writes,
        READS=reads, ROWS=plan.rows_each, BLOCK_D=plan.block_d,
    )  # fmt: skip
    return Program([copy])


@lru_cache(maxsize=256)
def row_refresh_program(plan: RowRefresh) -> Program:
    """Pointers: ids (T,) int32, rows (T, D), moved (M,) int32, count (1,) int32, news (M, D) of the same dtype."""
    words = _WORDS.get(plan.dtype)
    refresh = launch(
        row_copy.refresh_rows_kernel, (ceil_div(plan.num_rows, plan.rows_each),), {}, work=plan.work,
        p_ids=Pointer("ids"), p_moved=Pointer("moved"), p_count=Pointer("count"), p_news=Pointer("news", dtype=words),
        p_rows=Pointer("rows", dtype=words), num_rows=plan.num_rows, num_moved=plan.num_moved, dim=plan.dim,
        ROWS=plan.rows_each, BLOCK_D=plan.block_d,
    )  # fmt: skip
    return Program([refresh])


def launch_row_copy(outs: Mapping[str, Tensor], ins: Mapping[str, Tensor], plan: RowCopy) -> None:
    """outs: weight, of which rows are written, and rows. ins: moved, count, news and ids. Those that the plan has."""
    row_copy_program(plan).run({**ins, **outs})


def launch_row_refresh(outs: Mapping[str, Tensor], ins: Mapping[str, Tensor], plan: RowRefresh) -> None:
    """outs: rows, of which those that moved are written. ins: ids, moved, count, news."""
    row_refresh_program(plan).run({**ins, **outs})
