"""Launchers: ``launch_forward(outs, ins, problem)`` and ``launch_backward`` on torch tensors, with nothing allocated
and nothing returned.

Tensors come as name -> tensor. Outputs may arrive as garbage: every element is written. Sorting is the caller's,
between the launches, by its framework's own stable sort, so that both frameworks pass the same order; or that of
kernels, which is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from ..plan.buffers import backward_buffers, forward_buffers, pool_buffers
from ..plan.problem import Problem
from .gathered import gather_forward, gather_gradients
from .lists import describe_lists, score_pool
from .programs import Program
from .rows import row_gradients, sorted_positives
from .sorting import sort_rows
from .tables import table_launches
from .tiled import tile_forward, tile_gradients

Tensors = Mapping[str, Tensor]


@lru_cache(maxsize=256)
def pool_program(p: Problem) -> Program:
    """What comes before a forward whose lists are chosen. Pointers: those of the forward, ``buffers.pool_buffers``."""
    return Program([*table_launches(p), score_pool(p)])


@lru_cache(maxsize=256)
def forward_program(p: Problem) -> Program:
    """Pointers: input, weight, bias?, target, scale (1,), log_weight?, ids?, positions?, slot_ends?, users?,
    history_offsets?, history_items?, row_ids? and history_weight? where candidates and targets are places,
    seed (2,) int32 words (low, high), tables, ``buffers.forward_buffers``. With
    chosen lists, these and all tables but what describes the lists' draws are there already."""
    tables = [] if p.chooses else table_launches(p)
    described = [describe_lists(p)] if p.listed else []
    return Program([*tables, *described, *(tile_forward(p) if p.tiled else gather_forward(p))])


@lru_cache(maxsize=256)
def backward_program(p: Problem, grad_loss_stride: int, has_grad_lse: bool, sorts: bool = False) -> Program:
    """Pointers: those of the forward but seed; grad_loss (N,) with a stride of 0 or 1, and grad_lse (N,) fp32 if there
    is one; sorted_keys (N,) and sorted_rows (N,), the tables' positive_key sorted stably with its places, which are
    rows, then those of groups' lists; for ids shared or of each row sorted_ids and sorted_draws, the flattened ids
    (malformed ones and empty slots as 2^31 - 1) sorted stably with their places, none of these where nothing of the
    items is wanted; ``buffers.backward_buffers``. Where it ``sorts`` rows itself, ``buffers.sort_buffers`` in place of
    sorted_keys and sorted_rows.
    """
    rows = row_gradients(p, grad_loss_stride, has_grad_lse)
    if not p.wanted.items:
        return Program([rows])
    sort = sort_rows(p) if sorts else []
    return Program([rows, *sort, *sorted_positives(p), *(tile_gradients(p) if p.tiled else gather_gradients(p))])


def launch_forward(outs: Tensors, ins: Tensors, problem: Problem) -> None:
    """ins: see ``forward_program``. outs: ``buffers.forward_buffers`` and the table buffer, which with chosen lists
    holds all but what describes these."""
    forward_program(problem).run({**ins, **outs})


def launch_pool(outs: Tensors, ins: Tensors, problem: Problem) -> None:
    """ins: those of the forward. outs: counted, the table buffer without its lists, ``buffers.pool_buffers``."""
    pool_program(problem).run({**ins, **outs})


def launch_backward(outs: Tensors, ins: Tensors, problem: Problem) -> None:
    """ins: see ``backward_program``, without grad_lse where it is zero. outs: ``buffers.backward_buffers``."""
    stride = ins["grad_loss"].stride(0)
    backward_program(problem, stride, "grad_lse" in ins).run({**ins, **outs})


@lru_cache(maxsize=1024)
def compile_kernels(problem: Problem, target_dtype: str, ids_dtype: str | None, backward: bool, gpu: int) -> None:
    """Begin to compile the kernels of a problem's forward or backward for a GPU, and launch nothing."""
    buffers = (*forward_buffers(problem), *pool_buffers(problem), *backward_buffers(problem))
    dtypes = {buffer.name: buffer.dtype for buffer in buffers}
    dtypes |= {
        "input": problem.input_dtype, "weight": problem.weight_dtype, "bias": problem.bias_dtype or "float32",
        "target": target_dtype,
        "ids": ids_dtype or "int32", "scale": "float32", "log_weight": "float32", "grad_loss": "float32",
        "grad_lse": "float32",
        "users": target_dtype, "history_offsets": "int32", "history_items": "int32", "row_ids": "int32",
        "history_weight": "float32",
        **dict.fromkeys(("tables", "seed", "slot_ends", "sorted_keys", "sorted_rows", "sorted_ids", "sorted_draws",
        "positions"),
        "int32"),
    }  # fmt: skip
    programs = [backward_program(problem, 1, True)] if backward else [forward_program(problem)]
    if problem.chooses and not backward:
        programs.append(pool_program(problem))
    with torch.cuda.device(gpu):
        for program in programs:
            program.compile_ahead({name: getattr(torch, dtype) for name, dtype in dtypes.items()})
