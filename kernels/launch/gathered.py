"""The launches on rows with candidates of their own."""

from __future__ import annotations

import torch

from ..device import gather, gather_grad
from ..numbers import ceil_div
from ..plan.problem import Problem
from .bindings import bindings, gather_bindings
from .programs import Launch, launch
from .tables import segment_starts

TARGET_PART = 4  # sorted rows at a time where they are multiplied without products
GRAD_ROWS = 8  # rows that an item of the gathered gradient looks up at a time
WARP = 32  # lanes


def _lanes(p: Problem, dtype: str, rows: int) -> int:
    assert p.gathered is not None
    return p.gathered.lanes(getattr(torch, dtype).itemsize, rows)


def gather_forward(p: Problem) -> list[Launch]:
    work = p.row_work.forward
    forward = launch(
        gather.gather_forward_kernel, (p.num_rows, p.row_work.num_d), gather_bindings(p),
        BLOCK_B=work.rows, LOOKUP=WARP, LANES=_lanes(p, p.weight_dtype, work.rows), work=work,
    )  # fmt: skip
    return [forward]


def gather_gradients(p: Problem) -> list[Launch]:
    launches, work = [], p.row_work.grad
    if p.sorts_draws:
        draws, starts = p.negatives * p.num_rows, bindings(p)["p_draw_starts"]
        launches.append(segment_starts("sorted_ids", draws, starts, p.num_items + 1, 1))
    items = work.rows // GRAD_ROWS
    gradients = launch(
        gather_grad.gather_item_grad_kernel, (ceil_div(p.num_items, items), p.row_work.num_d), gather_bindings(p),
        ITEMS=items, EACH=GRAD_ROWS, LANES=_lanes(p, p.input_dtype, GRAD_ROWS), PART=TARGET_PART, work=work,
    )  # fmt: skip
    return [*launches, gradients]
