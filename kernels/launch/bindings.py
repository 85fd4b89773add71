"""Every pointer, number and flag that a problem's kernels may name, by the one name it has in all their signatures."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from ..device import gather, row_results, tiles
from ..draws.permutation import factors, half_rounds
from ..plan.buffers import backward_buffers, forward_buffers, num_slots, place, scratch_sizes, table_sizes
from ..plan.problem import POSITIVE_CHUNK, Problem
from ..plan.tiled import MOST_SPLITS
from ..plan.tiles import PRECISION
from .programs import Pointer

CORRECTIONS = {
    "none": row_results.UNCORRECTED.value,
    "uniform": row_results.UNIFORM.value,
    "weighted": row_results.WEIGHTED.value,
    "pool": row_results.UNCORRECTED.value,
}
INTEGER_SCRATCH = ("slot_row", "slot_target", "starts", "draw_starts", "part_of_draw", "is_summed")


@lru_cache(maxsize=256)
def table_parts(problem: Problem) -> dict[str, Pointer]:
    """Where each part of the table buffer lies."""
    return {name: Pointer("tables", offset) for name, offset in place(table_sizes(problem))[0].items()}


def _pointers(p: Problem) -> dict[str, Pointer | None]:
    """The arrays of a call; None of those that it does not have."""
    t, scratch, places = table_parts(p), scratch_sizes(p), place(scratch_sizes(p))[0]
    weighted = p.correction == "weighted"
    has_places = p.history is not None and p.draw.catalog > 0  # histories are told in ids of the catalog
    ids = t["lists"] if p.lists else Pointer("ids") if p.kind.by_id else None
    pointers: dict[str, Pointer | None] = {f"p_{name}": pointer for name, pointer in t.items()}
    for buffer in (*forward_buffers(p), *backward_buffers(p)):
        pointers[f"p_{buffer.name}"] = Pointer(buffer.name) if buffer.size else None
    for name, size in scratch.items():
        dtype = None if name in INTEGER_SCRATCH else torch.float32
        pointers[f"p_{name}"] = Pointer("scratch", places[name], dtype) if size else None
    items = Pointer("ids") if p.draw.given else t["items"]
    return pointers | {
        "p_items": items,
        "p_positive_key": Pointer("positions") if p.draw.given else t["positive_key"],
        "p_hidden": Pointer("input"),
        "p_item": Pointer("weight"),
        "p_bias": None if p.bias_dtype is None else Pointer("bias"),
        "p_target": Pointer("target"),
        "p_scale": Pointer("scale"),
        "p_seed": Pointer("seed"),
        "p_ids": items if p.permutes_items else ids,
        "p_ids_again": ids,
        "p_log_weight": Pointer("log_weight") if weighted else None,
        "p_list_weights": t["list_weights"]._replace(dtype=torch.float32) if weighted and p.listed else None,
        "p_row_ids": Pointer("row_ids") if has_places else None,
        "p_history_weight": Pointer("history_weight") if has_places and weighted else None,
        "p_users": Pointer("users"),
        "p_offsets": Pointer("history_offsets"),
        "p_history_items": Pointer("history_items") if p.history else None,
        "p_history_first": t["history_first"] if p.history else None,
        "p_history_end": t["history_end"] if p.history else None,
        "p_counts": t["row_counts"],
        "p_keys": t["round_keys"],
        "p_grad_loss": Pointer("grad_loss"),
        "p_sorted_keys": Pointer("sorted_keys"),
        "p_sorted_rows": Pointer("sorted_rows"),
        "p_sorted_draws": Pointer("sorted_draws") if p.sorts_draws else None,
        "p_draw_starts": pointers.get("p_draw_starts"),
    }


def _numbers(p: Problem) -> dict[str, object]:
    item_shift, item_b = factors(p.catalog)
    return {
        "num_rows": p.num_rows,
        "num_items": p.num_items,
        "catalog": p.catalog,
        "num_positions": p.positions,
        "dim": p.dim,
        "num_slots": num_slots(p),
        "negatives": p.negatives,
        "group_size": p.group_size,
        "ignore_index": p.ignore_index,
        "no_key": p.no_key,
        "item_shift": item_shift,
        "item_b": item_b,
        "softcap": p.softcap or 0.0,
        "positive_weight": p.positive_weight or 0.0,
        "draw_weight": p.draw_weight,
        "ITEM_HALVES": half_rounds(p.catalog),
        "CHUNK": POSITIVE_CHUNK,
        "PRECISION": PRECISION,
        "HAS_BIAS": p.bias_dtype is not None,
        "HAS_SOFTCAP": p.softcap is not None,
        "HAS_LOG_WEIGHT": p.correction == "weighted",
        "CORRECTION": CORRECTIONS[p.correction],
        "REMOVE_HITS": p.remove_accidental_hits,
        "HAS_HISTORY": p.history is not None,
        "BINARY": p.is_binary,
        "SCALE_GRAD": p.scale_grad,
        "IS_SHARD": p.is_shard,
        "PERMUTED": p.permutes_items,
    }


@lru_cache(maxsize=256)
def bindings(p: Problem) -> dict[str, Any]:
    """What all of a problem's kernels share; chunks of the width as rows are handled one by one."""
    return _pointers(p) | _numbers(p) | {"BLOCK_D": p.row_work.block_d, "NUM_D": p.row_work.num_d}


@lru_cache(maxsize=256)
def tile_bindings(p: Problem) -> dict[str, Any]:
    """The same for kernels on tiles, and what their plan adds."""
    plan = p.tiled
    assert plan is not None
    return bindings(p) | {
        "SOURCE": getattr(tiles, p.kind.source).value,
        "HAS_BLOCKS": plan.has_blocks,
        "MOST_SPLITS": MOST_SPLITS,
        "BLOCK_B": plan.config.block_b,
        "BLOCK_D": plan.config.block_d,
        "NUM_D": plan.config.num_d,
        "num_candidates": plan.num_candidates,
        "slots": plan.slots,
        "block": plan.block,
        "last_block": plan.last_block,
        "parallel": plan.parallel,
        "rounds": max(p.rounds, 1) if plan.has_blocks else 1,
        "drawn_blocks": plan.drawn_blocks,
    }


@lru_cache(maxsize=256)
def gather_bindings(p: Problem) -> dict[str, Any]:
    """The same for kernels on rows with candidates of their own."""
    assert p.gathered is not None
    draw = p.gathered.draw
    shift, b = factors(draw.width)
    return bindings(p) | {
        "SOURCE": getattr(gather, p.kind.source).value,
        "HALVES": half_rounds(draw.width),
        "block": draw.block,
        "BLOCK": draw.block,
        "strata": draw.strata,
        "width": draw.width,
        "rows_per_round": draw.rows_per_round,
        "rounds": p.rounds,
        "shift": shift,
        "b": b,
    }
