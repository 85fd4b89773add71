"""The launch that moves the rows of a table which a step touches; see ``plan/row_update.py``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from ..device import row_update
from ..numbers import ceil_div
from ..plan.row_update import RULES, RowUpdate
from .programs import Pointer, Program, launch


@lru_cache(maxsize=256)
def row_update_program(plan: RowUpdate) -> Program:
    """Pointers: weight (V, D), or (T, D) of rows apart, first? (V, D), second (V,) or (V, D) fp32, ids (T,) int32,
    count (1,) int32, grad (T, D), rate (1,) fp32, step (1,) int32, seed? (2,) int32."""
    rule = plan.rule
    words = torch.int16 if plan.weight_dtype == "bfloat16" else None
    update = launch(
        row_update.update_rows_kernel, (ceil_div(plan.num_rows, plan.rows_each),), {}, work=plan.work,
        p_weight=Pointer("weight", dtype=words), p_first=Pointer("first") if rule.has_first else None,
        p_second=Pointer("second"), p_ids=Pointer("ids"), p_count=Pointer("count"), p_grad=Pointer("grad"),
        p_rate=Pointer("rate"), p_step=Pointer("step"), p_seed=Pointer("seed") if plan.rounds else None,
        num_rows=plan.num_rows, num_items=plan.num_items, dim=plan.dim,
        beta1=rule.beta1, beta2=rule.beta2, rest_1=1 - rule.beta1, rest_2=1 - rule.beta2, log_beta1=_log(rule.beta1),
        log_beta2=_log(rule.beta2), eps=rule.eps, weight_decay=rule.weight_decay, RULE=RULES.index(rule.rule),
        ROUNDS=plan.rounds, APART=plan.apart, ROWS=plan.rows_each, BLOCK_D=plan.block_d,
    )  # fmt: skip
    return Program([update])


def _log(beta: float) -> float:
    return math.log(beta) if beta else -1e4  # whose exponential is 0


def launch_row_update(outs: Mapping[str, Tensor], ins: Mapping[str, Tensor], plan: RowUpdate) -> None:
    """outs: weight, first?, second, which are moved in place. ins: ids, count, grad, rate, step, seed?."""
    row_update_program(plan).run({**ins, **outs})


def compile_kernels(plan: RowUpdate, dtypes: tuple[tuple[str, str], ...], gpu: int) -> None:
    """Begin to compile for arrays of these dtypes by name for a GPU, and launch nothing."""
    with torch.cuda.device(gpu):
        row_update_program(plan).compile_ahead({name: getattr(torch, dtype) for name, dtype in dtypes})
