"""Launchers: ``launch_forward(outs, ins, problem)`` and ``launch_backward`` on torch tensors, with nothing allocated
and nothing returned.

Tensors come as name -> tensor. Outputs may arrive as garbage: every element is written. Sorting is the caller's,
between the launches, by its framework's own stable sort, so that both frameworks pass the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from ..device import gather as gather_kernels
from ..device import gather_grad as gather_grad_kernels
from ..device import item_grad as item_grad_kernels
from ..device import row_results as row_results_kernels
from ..device import rows as row_kernels
from ..device import tables as table_kernels
from ..device import tiles as tile_kernels
from ..draws.permutation import factors
from ..draws.uniform import IndependentDraws
from ..plan.buffers import (
    TABLE_BLOCK,
    Buffer,
    backward_buffers,
    forward_buffers,
    half_rounds,
    place,
    pool_buffers,
    scratch_sizes,
)
from ..plan.problem import MOST_SPLITS, POSITIVE_CHUNK, Problem, ceil_div
from ..plan.tiles import ONE_WARP, PRECISION
from .lists import describe_lists_launch, list_grad_launches, pool_scores_launch
from .programs import Launch, Pointer, Program, launch
from .tables import table_launches, table_parts

Tensors = Mapping[str, Tensor]
Pointers = tuple[Pointer | None, ...]

TILE_SOURCES = {
    "grouped": tile_kernels.GROUPED.value,
    "all": tile_kernels.ALL.value,
    "member": tile_kernels.MEMBER.value,
    "shared_ids": tile_kernels.SHARED.value,
    "group_ids": tile_kernels.LISTED.value,
}
CORRECTIONS = {
    "none": row_results_kernels.UNCORRECTED.value,
    "uniform": row_results_kernels.UNIFORM.value,
    "weighted": row_results_kernels.WEIGHTED.value,
    "pool": row_results_kernels.UNCORRECTED.value,
}
GATHER_SOURCES = {
    "independent": gather_kernels.ROUNDS.value,
    "row_ids": gather_kernels.ROW_IDS.value,
}
PART_SOURCES = (gather_grad_kernels.PARTS.value, gather_grad_kernels.SORTED_PARTS.value)
ROW_BLOCK = 16  # rows of an element-wise program
ZERO_BLOCK = 32  # items whose gradient a program sets to zero
POSITIVE_PART = 16  # sorted rows of a product, where their sum was not taken beforehand
WIDEST_WITH_PRODUCT = 256  # wider chunks fill the registers: one sorted row at a time
TARGET_PART = 4  # sorted rows at a time where they are multiplied without products
GRAD_ROWS = 8  # rows that an item of the gathered gradient looks up at a time
WARP = 32  # lanes
ROW_BYTES = 512  # what the lanes of a warp load together, 16 bytes each


def _scratch_parts(problem: Problem) -> dict[str, Pointer | None]:
    """Where each part of the scratch buffer lies."""
    sizes = scratch_sizes(problem)
    integers = ("slot_target", "starts", "draw_starts", "part_of_draw", "is_summed")
    return {
        name: Pointer("scratch", offset, None if name in integers else torch.float32) if sizes[name] else None
        for name, offset in place(sizes)[0].items()
    }


def _pointers(buffers: tuple[Buffer, ...]) -> dict[str, Pointer | None]:
    """Pointers to the buffers that exist; kernels get None for the others."""
    return {buffer.name: Pointer(buffer.name) if buffer.size else None for buffer in buffers}


def _inputs(p: Problem) -> tuple[Pointer | None, ...]:
    """hidden, weight, bias, target, scale."""
    bias = None if p.bias_dtype is None else Pointer("bias")
    return Pointer("input"), Pointer("weight"), bias, Pointer("target"), Pointer("scale")


def _row_draws(p: Problem) -> IndependentDraws:
    """The draw of rows with candidates of their own; for explicit ids one stratum that is drawn whole."""
    return p.independent if p.draws else IndependentDraws(p.negatives, p.negatives)


def _lanes(p: Problem, dtype: str, rows: int) -> int:
    """How many of ``rows`` gathered rows different lanes of a warp load at once."""
    return max(1, min(ROW_BYTES // (p.gather.block_d * getattr(torch, dtype).itemsize), rows))


def _history(p: Problem) -> tuple[Pointer | None, ...]:
    """Users' items, and the range of each row's."""
    t = table_parts(p)
    return (Pointer("history_items"), t["history_first"], t["history_end"]) if p.history else (None, None, None)


def _log_weight(p: Problem) -> Pointer | None:
    return Pointer("log_weight") if p.correction == "weighted" else None


def _ids(p: Problem) -> Pointer | None:
    if p.lists:
        return table_parts(p)["lists"]
    return Pointer("ids") if p.sorts_draws or p.mode == "group_ids" else None


def _list_weights(p: Problem) -> Pointer | None:
    return (
        table_parts(p)["list_weights"]._replace(dtype=torch.float32)
        if p.list_draws and p.correction == "weighted"
        else None
    )


@lru_cache(maxsize=256)
def pool_program(p: Problem) -> Program:
    """What comes before a forward whose lists are chosen. Pointers: those of the forward, ``buffers.pool_buffers``."""
    return Program([*table_launches(p), pool_scores_launch(p, (*_inputs(p), *_history(p)), table_parts(p))])


@lru_cache(maxsize=256)
def forward_program(p: Problem) -> Program:
    """Pointers: input, weight, bias?, target, scale (1,), log_weight?, ids?, slot_ends?, users?, history_offsets?,
    history_items?, seed (2,) int32 words (low, high), tables, ``buffers.forward_buffers``. With chosen lists, these and
    all tables but what describes the lists' draws are there already."""
    t, out = table_parts(p), _pointers(forward_buffers(p))
    rows = tuple(out[name] for name in ("loss", "lse", "peak", "shift", "average_dot", "average"))
    inputs = _inputs(p)
    has_bias, has_softcap = p.bias_dtype is not None, p.softcap is not None
    item_shift, item_b = factors(p.num_items)
    launches = [] if p.chooses else table_launches(p)
    if p.mode == "group_ids":
        launches.append(describe_lists_launch(p, t, _ids(p), _log_weight(p), _list_weights(p)))
    if not p.uses_tiles:
        g, w = p.gather, _row_draws(p)
        forward = launch(
            gather_kernels.gather_forward_kernel, (p.num_rows, g.num_d),
            *inputs, _log_weight(p), *_history(p), t["items"] if p.permutes_items else _ids(p), t["rows"], t["count"],
            t["round_keys"], *rows,
            p.num_rows, p.num_items, p.dim, w.block, w.strata, w.width, w.rows_per_round, p.softcap or 0.0,
            p.positive_weight or 0.0,
            p.draw_weight,
            *factors(w.width),
            SOURCE=GATHER_SOURCES[p.mode], PERMUTED=p.permutes_items, HAS_BIAS=has_bias, HAS_SOFTCAP=has_softcap,
            HAS_LOG_WEIGHT=p.correction == "weighted", CORRECTION=CORRECTIONS[p.correction],
            REMOVE_HITS=p.remove_accidental_hits, HAS_HISTORY=p.history is not None, BINARY=p.is_binary,
            SCALE_GRAD=p.scale_grad,
            HALVES=half_rounds(w.width),
            BLOCK_B=g.forward.rows, LOOKUP=WARP, LANES=_lanes(p, p.weight_dtype, g.forward.rows),
            BLOCK_D=g.block_d, NUM_D=g.num_d, work=g.forward,
        )  # fmt: skip
        return Program([*launches, forward])
    c = p.tile
    parts = (out["part_rows"], out["part_average"])
    forward = launch(
        tile_kernels.tile_forward_kernel, (max(p.forward_tiles, p.forward_parts), c.num_d),
        *inputs, _log_weight(p), _list_weights(p), *_history(p), t["items"] if p.mode == "grouped" else _ids(p),
        _ids(p), t["rows"],
        t["count"], t["positive_key"], t["group_blocks"], t["round_keys"], *rows, *parts,
        p.num_rows, p.num_items, p.dim,
        p.num_items if p.has_blocks else p.negatives if p.mode == "grouped" else p.num_candidates,
        p.slots, p.block, p.group_size, p.last_block, p.parallel, p.softcap or 0.0, item_shift, item_b, p.negatives,
        p.positive_weight or 0.0, p.draw_weight,
        SOURCE=TILE_SOURCES[p.mode], HAS_BLOCKS=p.has_blocks, FULL=p.full_slots, HAS_BIAS=has_bias,
        HAS_SOFTCAP=has_softcap,
        HAS_LOG_WEIGHT=p.correction == "weighted", CORRECTION=CORRECTIONS[p.correction],
        REMOVE_HITS=p.remove_accidental_hits, HAS_HISTORY=p.history is not None, BINARY=p.is_binary,
        SCALE_GRAD=p.scale_grad,
        SPLIT=p.forward_parts > 0, MOST_SPLITS=MOST_SPLITS,
        ITEM_HALVES=half_rounds(p.num_items),
        BLOCK_M=c.forward.rows, BLOCK_B=c.block_b, BLOCK_D=c.block_d, NUM_D=c.num_d, PRECISION=PRECISION,
        work=c.forward,
    )  # fmt: skip
    launches.append(forward)
    if p.forward_parts:
        combine = launch(
            row_kernels.combine_forward_kernel, (ceil_div(p.num_rows, ROW_BLOCK), c.num_d),
            *inputs, _log_weight(p), *_history(p), t["rows"], t["count"], *parts, *rows,
            p.num_rows, p.num_items, p.dim, p.slots, p.parallel, p.softcap or 0.0, p.positive_weight or 0.0,
            p.draw_weight,
            HAS_BIAS=has_bias, HAS_SOFTCAP=has_softcap, CORRECTION=CORRECTIONS[p.correction],
            HAS_HISTORY=p.history is not None,
            BINARY=p.is_binary,
            SCALE_GRAD=p.scale_grad, TILE_M=c.forward.rows, MOST_SPLITS=MOST_SPLITS, BLOCK_M=ROW_BLOCK,
            BLOCK_D=c.block_d, NUM_D=c.num_d,
        )  # fmt: skip
        launches.append(combine)
    return Program(launches)


def _starts(sorted_keys: str, num_keys: int, starts: Pointer | None, num_starts: int, unit: int) -> Launch:
    return launch(
        table_kernels.segment_starts_kernel, (ceil_div(num_starts, TABLE_BLOCK),),
        Pointer(sorted_keys), starts, num_keys, unit, num_starts, BLOCK=TABLE_BLOCK,
    )  # fmt: skip


@lru_cache(maxsize=256)
def backward_program(p: Problem, grad_loss_stride: int, has_grad_lse: bool) -> Program:
    """Pointers: those of the forward but seed; grad_loss (N,) with a stride of 0 or 1, and grad_lse (N,) fp32 if there
    is one; sorted_keys (N,) and sorted_rows (N,), the tables' positive_key sorted stably with its places, which are
    rows, then those of groups' lists; for ids shared or of each row sorted_ids and sorted_draws, the flattened ids
    (malformed ones and empty slots as 2^31 - 1) sorted stably with their places; ``buffers.backward_buffers``.
    """
    t, out, d = table_parts(p), _pointers(backward_buffers(p)) | _scratch_parts(p), p.dim
    sizes = scratch_sizes(p)
    saved = _pointers(forward_buffers(p))
    has_bias, has_softcap = p.bias_dtype is not None, p.softcap is not None
    g = p.gather
    inputs = _inputs(p)
    hidden, weight, bias, _, scale = inputs
    slots = (out["slot_peak"], out["slot_weight"], out["slot_target"])
    sorted_keys, sorted_rows = Pointer("sorted_keys"), Pointer("sorted_rows")
    launches = [
        launch(
            row_kernels.input_grad_kernel, (ceil_div(sizes["slot_peak"], ROW_BLOCK),),
            *inputs, t["rows"], t["count"], t["positive_key"], *(saved[name] for name in ("loss", "peak", "shift",
            "average_dot", "average")),
            Pointer("grad_loss"), Pointer("grad_lse") if has_grad_lse else None,
            out["input_grad"], *slots, out["positive_grad"], out["scale_grad"],
            p.num_rows, sizes["slot_peak"], p.num_items, d, p.softcap or 0.0, p.positive_weight or 0.0,
            grad_loss_stride,
            BY_SLOT=p.mode != "row_ids", HAS_BIAS=has_bias, HAS_SOFTCAP=has_softcap, BINARY=p.is_binary,
            SCALE_GRAD=p.scale_grad,
            HAS_GRAD_LSE=has_grad_lse, BLOCK_M=ROW_BLOCK, BLOCK_D=g.block_d, NUM_D=g.num_d,
        ),
    ]  # fmt: skip
    if out["starts"]:
        launches.append(_starts("sorted_keys", p.num_rows, out["starts"], p.segments + 1, p.segment_unit))
    if p.num_rows >= POSITIVE_CHUNK:
        sums = launch(
            row_kernels.popular_sums_kernel, (p.num_rows // POSITIVE_CHUNK, g.num_d),
            hidden, out["positive_grad"], sorted_keys, sorted_rows, out["sums"],
            p.num_rows, d, p.no_key, BLOCK_P=POSITIVE_CHUNK, BLOCK_D=g.block_d,
        )  # fmt: skip
        launches.append(sums)
    positives = (out["positive_grad"], sorted_keys, sorted_rows, out["starts"], out["sums"])
    if p.mode == "group_ids":
        return Program([*launches, *_list_grad_launches(p, inputs, slots, positives, out)])
    if p.uses_tiles:
        launches += _tile_grad_launches(p, inputs, slots, positives, out)
        if not p.grad_splits:
            return Program(launches)
    sorted_draws = None
    if p.sorts_draws:
        sorted_draws = Pointer("sorted_draws")
        num_draws = p.negatives * (p.num_rows if p.mode == "row_ids" else 1)
        launches.append(_starts("sorted_ids", num_draws, out["draw_starts"], p.num_items + 1, 1))
    if p.uses_tiles:
        items = launch(
            gather_grad_kernels.sum_parts_kernel, (p.num_items, g.num_d),
            hidden, scale, t["items"], *positives, sorted_draws, out["draw_starts"], out["part_grad"], out["part_bias"],
            out["item_grad"], out["bias_grad"], d, p.grad_splits, p.num_candidates,
            SOURCE=PART_SOURCES[p.mode == "shared_ids"], PERMUTED=p.mode == "grouped", HAS_BIAS=has_bias,
            BLOCK_D=g.block_d, CHUNK=POSITIVE_CHUNK, work=ONE_WARP,
        )  # fmt: skip
    else:
        w = _row_draws(p)
        items = launch(
            gather_grad_kernels.gather_item_grad_kernel, (ceil_div(p.num_items, g.grad.rows // GRAD_ROWS), g.num_d),
            hidden, weight, bias, scale, _log_weight(p), *_history(p), t["rows"], t["count"],
            t["items"] if p.permutes_items else None,
            t["round_keys"],
            *slots, *positives,
            sorted_draws, out["draw_starts"], out["item_grad"], out["bias_grad"],
            p.num_rows, p.num_items, d, w.rows_per_round, p.draw_rounds, w.strata, w.width, p.softcap or 0.0,
            *factors(w.width), BLOCK=w.block,
            SOURCE=GATHER_SOURCES[p.mode], PERMUTED=p.permutes_items, HAS_BIAS=has_bias, HAS_SOFTCAP=has_softcap,
            HAS_LOG_WEIGHT=p.correction == "weighted", REMOVE_HITS=p.remove_accidental_hits,
            HAS_HISTORY=p.history is not None,
            BINARY=p.is_binary, HALVES=half_rounds(w.width),
            ITEMS=g.grad.rows // GRAD_ROWS,
            EACH=GRAD_ROWS, LANES=_lanes(p, p.input_dtype, GRAD_ROWS), BLOCK_D=g.block_d, NUM_D=g.num_d,
            CHUNK=POSITIVE_CHUNK, PART=TARGET_PART, work=g.grad,
        )  # fmt: skip
    return Program([*launches, items])


def _tile_grad(
    p: Problem, inputs: Pointers, slots: Pointers, positives: Pointers, out: Mapping[str, Pointer | None],
    grid: tuple[int, int],
    columns: tuple[int, int] = (0, 0),
) -> Launch:  # fmt: skip
    """The item gradient of ``grid`` (programs, splits) of blocks of candidates, and of the rows that each one walks."""
    t, c = table_parts(p), p.tile
    hidden, weight, bias, _, scale = inputs
    listed = p.mode == "group_ids"
    drawn = p.grouped.num_blocks if p.has_blocks else p.slots
    return launch(
        item_grad_kernels.tile_item_grad_kernel, (grid[0], c.num_d, grid[1]),
        hidden, weight, bias, scale, _log_weight(p), _list_weights(p), *_history(p),
        t["items"] if p.mode == "grouped" else _ids(p),
        t["rows"], t["count"], t["group_blocks"], t["visits"], t["block_groups"], t["round_keys"],
        *slots, *positives, out["item_grad"], out["bias_grad"], out["part_grad"], out["part_bias"], out["part_of_draw"],
        p.num_rows, p.num_items, p.dim, p.num_candidates, p.block, drawn, drawn - 1, p.last_block,
        ceil_div(columns[1], p.block) if listed else p.slots, p.group_size, max(p.block_rounds, 1),
        p.softcap or 0.0, *factors(p.num_items), p.negatives, *columns,
        SOURCE=TILE_SOURCES[p.mode], HAS_BLOCKS=p.has_blocks, DRAWN_ONLY=p.drawn_only, FULL=p.last_block == p.block,
        HAS_BIAS=bias is not None, HAS_SOFTCAP=p.softcap is not None, HAS_LOG_WEIGHT=p.correction == "weighted",
        REMOVE_HITS=p.remove_accidental_hits, HAS_HISTORY=p.history is not None, BINARY=p.is_binary,
        SPLIT=listed or p.grad_splits > 0,
        ITEM_HALVES=half_rounds(p.num_items),
        CHUNK=POSITIVE_CHUNK, PART=POSITIVE_PART if c.block_d <= WIDEST_WITH_PRODUCT else 1, PRECISION=PRECISION,
        BLOCK_M=p.grad_work.rows, BLOCK_B=c.block_b, BLOCK_D=c.block_d, NUM_D=c.num_d, work=p.grad_work,
    )  # fmt: skip


def _zeros_and_targets(
    p: Problem, inputs: Pointers, positives: Pointers, out: Mapping[str, Pointer | None]
) -> list[Launch]:
    """Zeros for the items that nobody drew and the positives of those that are targets; with groups' lists zeros for
    all items, and the positives of all targets, to be added to what is there."""
    t, g, d = table_parts(p), p.gather, p.dim
    hidden, _, bias, _, scale = inputs
    positive_grad, sorted_keys, sorted_rows, _, sums = positives
    drawn = p.grouped.num_blocks if p.has_blocks else 0
    common = {"PERMUTED": p.permutes_items, "HAS_BIAS": bias is not None, "BLOCK_D": g.block_d}
    zeros = launch(
        item_grad_kernels.zero_item_grad_kernel, (ceil_div(p.num_items, ZERO_BLOCK),),
        t["items"], t["visits"], out["item_grad"], out["bias_grad"], p.num_items, d, p.block, drawn,
        **common, BLOCK_B=ZERO_BLOCK, NUM_D=g.num_d,
    )  # fmt: skip
    targets = launch(
        item_grad_kernels.positive_item_grad_kernel, (p.num_rows, g.num_d),
        hidden, scale, t["items"], t["visits"], positive_grad, sorted_keys, sorted_rows, sums, out["item_grad"],
        out["bias_grad"],
        p.num_rows, p.num_items, d, p.block, drawn,
        **common, HAS_KNOWN=not p.permutes_items, CHUNK=POSITIVE_CHUNK, PART=max(1, min(POSITIVE_PART,
        1024 // g.block_d)), work=ONE_WARP,
    )  # fmt: skip
    return [zeros, targets]


def _tile_grad_launches(
    p: Problem, inputs: Pointers, slots: Pointers, positives: Pointers, out: Mapping[str, Pointer | None]
) -> list[Launch]:
    """The item gradient of drawn blocks and, where programs of its own serve them, of the items that nobody drew."""
    negatives = _tile_grad(p, inputs, slots, positives, out, (p.grad_blocks, max(p.grad_splits, 1)))
    return [negatives, *_zeros_and_targets(p, inputs, positives, out)] if p.drawn_only else [negatives]


def _list_grad_launches(
    p: Problem, inputs: Pointers, slots: Pointers, positives: Pointers, out: Mapping[str, Pointer | None]
) -> list[Launch]:
    def tile_grad(programs: int, columns: tuple[int, int]) -> Launch:
        return _tile_grad(p, inputs, slots, positives, out, (programs, 1), columns)

    zeros, targets = _zeros_and_targets(p, inputs, positives, out)
    return [zeros, *list_grad_launches(p, inputs[2] is not None, inputs[4], out, tile_grad), targets]


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
    """Compile the kernels of a problem's forward or backward for a GPU, for callers that must not compile later."""
    buffers = (*forward_buffers(problem), *pool_buffers(problem), *backward_buffers(problem))
    dtypes = {buffer.name: buffer.dtype for buffer in buffers}
    dtypes |= {
        "input": problem.input_dtype, "weight": problem.weight_dtype, "bias": problem.bias_dtype or "float32",
        "target": target_dtype,
        "ids": ids_dtype or "int32", "scale": "float32", "log_weight": "float32", "grad_loss": "float32",
        "grad_lse": "float32",
        "users": target_dtype, "history_offsets": "int32", "history_items": "int32",
        **dict.fromkeys(("tables", "seed", "slot_ends", "sorted_keys", "sorted_rows", "sorted_ids", "sorted_draws"),
        "int32"),
    }  # fmt: skip
    programs = [backward_program(problem, 1, True)] if backward else [forward_program(problem)]
    if problem.chooses and not backward:
        programs.append(pool_program(problem))
    with torch.cuda.device(gpu):
        for program in programs:
            program.compile({name: getattr(torch, dtype) for name, dtype in dtypes.items()})
