"""Launchers: ``launch(outs, ins, problem)`` on torch tensors, with nothing allocated and nothing returned.

Tensors come as name -> tensor. Outputs may arrive as garbage: every element is written. Sorting is the caller's, between the
launches, by its framework's own stable sort, so that both frameworks pass the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from . import gather_kernels, row_kernels, table_kernels, tile_kernels
from .buffers import TABLE_BLOCK, Buffer, backward_buffers, forward_buffers, half_rounds, table_buffer, table_sizes
from .problem import POSITIVE_CHUNK, Problem, ceil_div

Tensors = Mapping[str, Tensor]

TILE_SOURCES = {
    "grouped": tile_kernels.GROUPED.value,
    "all": tile_kernels.ALL.value,
    "member": tile_kernels.MEMBER.value,
    "shared_ids": tile_kernels.SHARED.value,
}
GATHER_SOURCES = {
    "independent": gather_kernels.ROUNDS.value,
    "row_ids": gather_kernels.ROW_IDS.value,
    "shared_ids": gather_kernels.SORTED_PARTS.value,
}
PRECISION = "tf32x3"  # of fp32 products: fp32 accuracy from tensor cores; ignored for half inputs
ROW_BLOCK = 16  # rows of an element-wise program
NO_KEY = table_kernels.NO_KEY.value

_compile_only = ContextVar("_compile_only", default=False)


def _run(kernel: Any, grid: tuple[int, ...], *arguments: object, **options: object) -> None:
    """Launch, or only compile what the launch would run."""
    if _compile_only.get():
        kernel.warmup(*arguments, grid=grid, **options)
    else:
        kernel[grid](*arguments, **options)


def split_tables(problem: Problem, tables: Tensor) -> dict[str, Tensor]:
    """The named parts of the table buffer."""
    sizes = table_sizes(problem)
    return dict(zip(sizes, tables.split(list(sizes.values())), strict=True))


def _factors(n: int) -> tuple[int, int]:
    shift = n.bit_length() >> 1
    return shift, (n + (1 << shift) - 1) >> shift


def launch_tables(outs: Tensors, ins: Tensors, problem: Problem) -> None:
    """ins: target (N,), seed (2,) int32 words (low, high). outs: tables."""
    p = problem
    t = split_tables(p, outs["tables"])
    target, seed = ins["target"], ins["seed"]
    sizes = {name: part.numel() for name, part in t.items()}
    programs = {name: ceil_div(size, TABLE_BLOCK) for name, size in sizes.items()}
    row_programs = programs["rows"]
    num_blocks = p.grouped.num_blocks if p.has_blocks else 1
    item_halves, block_halves = half_rounds(p.num_items), half_rounds(num_blocks)
    key_programs = programs["item_keys"] + programs["block_keys"] + programs["row_keys"]
    _run(
        table_kernels.count_rows_kernel, (row_programs + key_programs,),
        target, seed, t["row_counts"], t["item_keys"], t["block_keys"], t["row_keys"],
        p.num_rows, p.ignore_index, row_programs, programs["item_keys"], programs["block_keys"],
        sizes["item_keys"], sizes["block_keys"], item_halves, block_halves, sizes["row_keys"],
        BLOCK=TABLE_BLOCK,
    )  # fmt: skip
    item_shift, item_b = _factors(p.num_items)
    block_shift, block_b = _factors(num_blocks)
    grid = row_programs + programs["items"] + programs["group_blocks"] + programs["block_groups"]
    _run(
        table_kernels.build_tables_kernel, (grid,),
        target, t["row_counts"], t["item_keys"], t["block_keys"], t["row_keys"],
        t["rows"], t["count"], t["positive_key"], t["items"], t["group_blocks"], t["block_groups"],
        p.num_rows, p.num_items, p.ignore_index, row_programs, programs["items"], programs["group_blocks"],
        num_blocks, p.slots if p.has_groups else 1, p.grouped.groups_per_round if p.has_blocks else 1,
        p.grouped.group_size if p.has_groups else 1, max(p.block_rounds, 1), sizes["group_blocks"], sizes["block_groups"],
        item_shift, item_b, block_shift, block_b,
        GROUPED=p.has_groups, SHUFFLE=p.has_groups and p.grouped.shuffle_rows,
        ITEM_HALVES=item_halves, BLOCK_HALVES=block_halves, BLOCK=TABLE_BLOCK,
    )  # fmt: skip


def launch_forward(outs: Tensors, ins: Tensors, problem: Problem) -> None:
    """ins: input, weight, bias?, target, scale (1,), ids?, tables. outs: ``buffers.forward_buffers``."""
    p = problem
    t = split_tables(p, ins["tables"])
    rows = tuple(outs[name] for name in ("loss", "lse", "peak", "shift", "average_dot", "average"))
    inputs = (ins["input"], ins["weight"], ins.get("bias"), ins["target"], ins["scale"])
    has_bias, has_softcap = p.bias_dtype is not None, p.softcap is not None
    item_shift, item_b = _factors(p.num_items)
    if not p.uses_tiles:
        g = p.gather
        _run(
            gather_kernels.gather_forward_kernel, (p.num_rows, g.num_d),
            *inputs, ins.get("ids"), t["rows"], t["count"], t["item_keys"], *rows,
            p.num_rows, p.num_items, p.dim, p.negatives, p.independent.rows_per_round if p.draws else 1, p.softcap or 0.0,
            item_shift, item_b,
            SOURCE=GATHER_SOURCES[p.mode], HAS_BIAS=has_bias, HAS_SOFTCAP=has_softcap,
            REMOVE_HITS=p.remove_accidental_hits, SCALE_GRAD=p.scale_grad, ITEM_HALVES=half_rounds(p.num_items),
            BLOCK_B=g.forward.rows, BLOCK_D=g.block_d, NUM_D=g.num_d, num_warps=g.forward.warps,
        )  # fmt: skip
        return
    c = p.tile
    row_tiles = ceil_div(p.num_rows, c.forward.rows)
    parts = (outs["part_rows"], outs["part_average"])
    _run(
        tile_kernels.tile_forward_kernel, (row_tiles, c.num_d, p.forward_splits),
        *inputs, t["items"] if p.has_groups else ins.get("ids"), t["rows"], t["count"], t["group_blocks"], t["item_keys"],
        *rows, *parts,
        p.num_rows, p.num_items, p.dim, p.num_items if p.has_blocks else p.negatives if p.has_groups else p.num_candidates,
        p.slots, ceil_div(p.slots, p.forward_splits), p.block, p.grouped.group_size if p.has_groups else 1, p.last_block,
        p.softcap or 0.0, item_shift, item_b, p.negatives,
        SOURCE=TILE_SOURCES[p.mode], HAS_BLOCKS=p.has_blocks, HAS_BIAS=has_bias, HAS_SOFTCAP=has_softcap,
        REMOVE_HITS=p.remove_accidental_hits, SCALE_GRAD=p.scale_grad, SPLIT=p.forward_splits > 1, ITEM_HALVES=half_rounds(p.num_items),
        BLOCK_M=c.forward.rows, BLOCK_B=c.block_b, BLOCK_D=c.block_d, NUM_D=c.num_d, PRECISION=PRECISION,
        num_warps=c.forward.warps, num_stages=c.forward.stages,
    )  # fmt: skip
    if p.forward_splits > 1:
        _run(
            row_kernels.combine_forward_kernel, (ceil_div(p.num_rows, ROW_BLOCK), c.num_d),
            *inputs, t["rows"], t["count"], *parts, *rows,
            p.num_rows, p.num_items, p.dim, p.forward_splits, p.softcap or 0.0,
            HAS_BIAS=has_bias, HAS_SOFTCAP=has_softcap, SCALE_GRAD=p.scale_grad,
            BLOCK_M=ROW_BLOCK, BLOCK_D=c.block_d, NUM_D=c.num_d,
        )  # fmt: skip


def _launch_starts(sorted_keys: Tensor, num_keys: int, starts: Tensor, num_starts: int, unit: int) -> None:
    _run(
        table_kernels.segment_starts_kernel, (ceil_div(num_starts, TABLE_BLOCK),),
        sorted_keys, starts, num_keys, unit, num_starts, STEPS=num_keys.bit_length() + 1, BLOCK=TABLE_BLOCK,
    )  # fmt: skip


def launch_backward(outs: Tensors, ins: Tensors, problem: Problem) -> None:
    """Gradients for upstream row gradients grad_loss and grad_lse.

    ins: those of the forward with its loss, peak, shift, average_dot and average; grad_loss (N,) and grad_lse (N,) fp32; sorted_keys (N,) and
    sorted_rows (N,), the tables' positive_key sorted stably with the rows behind them; for explicit ids sorted_ids and sorted_draws,
    the flattened ids (malformed ones and empty slots as 2^31 - 1) sorted stably with their places. outs: ``buffers.backward_buffers``.
    """
    p, d = problem, problem.dim
    t = split_tables(p, ins["tables"])
    has_bias, has_softcap = p.bias_dtype is not None, p.softcap is not None
    item_shift, item_b = _factors(p.num_items)
    g = p.gather
    inputs = (ins["input"], ins["weight"], ins.get("bias"), ins["target"], ins["scale"])
    _run(
        row_kernels.input_grad_kernel, (ceil_div(p.num_rows, ROW_BLOCK),),
        *inputs, ins["loss"], ins["average_dot"], ins["average"],
        ins["grad_loss"], ins["grad_lse"], outs["input_grad"], outs["row_grad"], outs["positive_grad"], outs["scale_grad"],
        p.num_rows, p.num_items, d, p.ignore_index, p.softcap or 0.0,
        HAS_BIAS=has_bias, HAS_SOFTCAP=has_softcap, SCALE_GRAD=p.scale_grad,
        BLOCK_M=ROW_BLOCK, BLOCK_D=g.block_d, NUM_D=g.num_d,
    )  # fmt: skip
    _launch_starts(ins["sorted_keys"], p.num_rows, outs["starts"], p.segments + 1, p.segment_unit)
    if p.num_rows >= POSITIVE_CHUNK:
        _run(
            row_kernels.popular_sums_kernel, (p.num_rows // POSITIVE_CHUNK, g.num_d),
            ins["input"], outs["positive_grad"], ins["sorted_keys"], ins["sorted_rows"], outs["sums"],
            p.num_rows, d, NO_KEY, BLOCK_P=POSITIVE_CHUNK, BLOCK_D=g.block_d,
        )  # fmt: skip
    positives = (
        ins["peak"], ins["shift"], outs["row_grad"], outs["positive_grad"],
        ins["sorted_keys"], ins["sorted_rows"], outs["starts"], outs["sums"],
    )  # fmt: skip
    flags = {"HAS_BIAS": has_bias, "HAS_SOFTCAP": has_softcap, "REMOVE_HITS": p.remove_accidental_hits}
    halves = half_rounds(p.num_items)
    if p.uses_tiles:
        c = p.tile
        splits = max(p.grad_splits, 1)
        drawn = p.grouped.num_blocks if p.has_blocks else p.slots
        _run(
            tile_kernels.tile_item_grad_kernel, (p.candidate_blocks, c.num_d, splits),
            *inputs, t["items"] if p.has_groups else ins.get("ids"), t["rows"], t["count"], t["block_groups"], t["item_keys"],
            *positives, outs["item_grad"], outs["bias_grad"], outs["part_grad"], outs["part_bias"],
            p.num_rows, p.num_items, d, p.num_candidates, p.block, drawn, drawn - 1, p.last_block,
            p.visit_rows, p.visits, ceil_div(p.visits, splits), p.softcap or 0.0, item_shift, item_b, p.negatives,
            SOURCE=TILE_SOURCES[p.mode], HAS_BLOCKS=p.has_blocks, SPLIT=p.grad_splits > 0, ITEM_HALVES=halves, **flags,
            BLOCK_M=c.grad.rows, BLOCK_B=c.block_b, BLOCK_D=c.block_d, NUM_D=c.num_d, BLOCK_P=POSITIVE_CHUNK, PRECISION=PRECISION,
            num_warps=c.grad.warps, num_stages=c.grad.stages,
        )  # fmt: skip
        if not p.grad_splits:
            return
    if p.sorts_draws:
        num_draws = p.negatives * (p.num_rows if p.mode == "row_ids" else 1)
        _launch_starts(ins["sorted_ids"], num_draws, outs["draw_starts"], p.num_items + 1, 1)
    independent = p.mode == "independent"
    _run(
        gather_kernels.gather_item_grad_kernel, (p.num_items, g.num_d),
        *inputs, t["rows"], t["count"], t["item_keys"], t["items"], *positives,
        ins.get("sorted_draws"), outs["draw_starts"], outs["part_grad"], outs["part_bias"], outs["item_grad"], outs["bias_grad"],
        p.num_rows, p.num_items, d, p.negatives, p.independent.rows_per_round if independent else 1, p.item_rounds,
        p.grad_splits, p.num_candidates, p.ignore_index, p.softcap or 0.0, item_shift, item_b,
        SOURCE=GATHER_SOURCES.get(p.mode, gather_kernels.PARTS.value), PERMUTED=p.has_groups, ITEM_HALVES=halves, **flags,
        BLOCK_B=g.grad.rows, BLOCK_D=g.block_d, NUM_D=g.num_d, BLOCK_P=POSITIVE_CHUNK, num_warps=g.grad.warps,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def compile_kernels(problem: Problem, target_dtype: str, ids_dtype: str | None, backward: bool) -> None:
    """Compile the kernels of a problem's forward or backward on the current GPU and launch none, for callers that must not compile later.

    Triton specialises on dtypes, sizes and the alignment of addresses, never on values: stand-ins of one element do, but for the
    tables, whose parts must lie where they will.
    """

    def stand_in(buffer: Buffer) -> Tensor:
        whole = buffer.name == "tables" or not buffer.size
        return torch.empty(buffer.size if whole else 1, dtype=getattr(torch, buffer.dtype), device="cuda")

    def vector(dtype: str) -> Tensor:
        return torch.empty(1, dtype=getattr(torch, dtype), device="cuda")

    buffers = (*forward_buffers(problem), table_buffer(problem), *backward_buffers(problem))
    outs = {buffer.name: stand_in(buffer) for buffer in buffers}
    ins = {
        **outs, "input": vector(problem.input_dtype), "weight": vector(problem.weight_dtype), "target": vector(target_dtype),
        **{name: vector("int32") for name in ("seed", "sorted_keys", "sorted_rows", "sorted_ids", "sorted_draws")},
        **{name: vector("float32") for name in ("scale", "grad_loss", "grad_lse")},
    }  # fmt: skip
    if problem.bias_dtype is not None:
        ins["bias"] = vector(problem.bias_dtype)
    if ids_dtype is not None:
        ins["ids"] = vector(ids_dtype)
    else:
        del ins["sorted_ids"], ins["sorted_draws"]
    token = _compile_only.set(True)
    try:
        for launch in (launch_backward,) if backward else (launch_tables, launch_forward):
            launch(outs, ins, problem)
    finally:
        _compile_only.reset(token)
