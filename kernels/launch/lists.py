"""The launches of groups' lists of candidates: drawing them, scoring what they are chosen from, and adding up their
item gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..device import lists as list_kernels
from ..device import pool as pool_kernels
from ..draws.permutation import factors
from ..plan.buffers import TABLE_BLOCK, half_rounds, list_keys
from ..plan.problem import LIST_PART, Problem, ceil_div
from ..plan.tiles import ONE_WARP, PRECISION, Work, next_power_of_2
from .programs import Launch, Pointer, launch

ADD_STEP, ADD_WORK = 8, Work(LIST_PART, 1, 1)  # sorted draws whose partial gradients are loaded together
JOINED = 2048  # numbers that a program of one item's sums of tiles holds at a time
DRAW_BLOCK = 256  # draws of an element-wise program
POOL_TILE = 64  # rows, candidates and columns that a pool's scores are computed by
MOST_LOOKED_UP = 4  # passes over the columns in which a draw's item is looked up


def list_launches(p: Problem, tables: Mapping[str, Pointer]) -> list[Launch]:
    """What draws the lists' columns, after the tables of rows: into the lists, or into the pool that they are chosen
    from."""
    assert p.lists is not None
    columns, first, ends = p.lists.columns, 0, 0
    ids = Pointer("pool_ids") if p.chooses else tables["lists"]
    keys = tables["list_keys"]
    launches = []
    for part, draws, num_keys in zip(p.lists.parts, p.lists.draws, list_keys(p), strict=True):
        own = ids._replace(offset=ids.offset + first)
        if draws is None:
            places = p.num_groups * p.group_size
            rows = launch(
                list_kernels.row_targets_kernel, (ceil_div(places, DRAW_BLOCK),),
                Pointer("target"), tables["rows"], tables["count"], own, places, p.num_items, p.group_size, columns,
                BLOCK=DRAW_BLOCK,
            )  # fmt: skip
            launches.append(rows)
        else:
            halves, total = half_rounds(draws.width), p.num_groups * part.columns
            make_keys = launch(
                list_kernels.slot_keys_kernel, (ceil_div(num_keys, TABLE_BLOCK),),
                Pointer("seed"), keys, halves, num_keys, DOMAIN=draws.domain, BLOCK=TABLE_BLOCK,
            )  # fmt: skip
            has_ends = draws.num_items is None
            draw = launch(
                list_kernels.slot_ids_kernel, (ceil_div(total, DRAW_BLOCK),),
                keys, Pointer("slot_ends", ends) if has_ends else None, own, p.num_items, total, part.columns, columns,
                draws.block, draws.strata, draws.width, draws.groups_per_round, *factors(draws.width),
                HAS_ENDS=has_ends, HALVES=halves, BLOCK=DRAW_BLOCK,
            )  # fmt: skip
            launches += [make_keys, draw]
            ends += p.num_items if has_ends else 0
        keys = keys._replace(offset=keys.offset + num_keys)
        first += part.columns
    return launches


def describe_lists_launch(
    p: Problem, tables: Mapping[str, Pointer], ids: Pointer | None, log_weight: Pointer | None, weights: Pointer | None
) -> Launch:
    """What looks up the sort keys and log weights of finished lists."""
    keys = tables["positive_key"]
    return launch(
        list_kernels.describe_lists_kernel, (ceil_div(p.list_draws, DRAW_BLOCK),),
        ids, log_weight, keys._replace(offset=keys.offset + p.num_rows), weights, p.list_draws, p.num_items,
        p.negatives, p.list_columns,
        HAS_LOG_WEIGHT=weights is not None, BLOCK=DRAW_BLOCK,
    )  # fmt: skip


def pool_scores_launch(p: Problem, inputs: tuple[Pointer | None, ...], tables: Mapping[str, Pointer]) -> Launch:
    """What scores each group's pool; ``inputs``: hidden, weight, bias, target, scale, and the rows' histories."""
    assert p.lists is not None
    columns, rows = p.lists.columns, min(p.group_size, POOL_TILE)
    block_b = min(max(next_power_of_2(columns), 16), POOL_TILE)
    blocks = ceil_div(columns, block_b)
    return launch(
        pool_kernels.pool_scores_kernel, (p.num_groups * blocks,),
        *inputs, Pointer("pool_ids"), tables["rows"], tables["count"], Pointer("pool_scores"),
        p.num_items, p.dim, columns, blocks, p.group_size, p.softcap or 0.0,
        HAS_BIAS=p.bias_dtype is not None, HAS_SOFTCAP=p.softcap is not None, REMOVE_HITS=p.remove_accidental_hits,
        HAS_HISTORY=p.history is not None,
        BLOCK_M=rows, BLOCK_B=block_b, BLOCK_D=min(p.tile.block_d, POOL_TILE), PRECISION=PRECISION,
    )  # fmt: skip


def list_grad_launches(
    p: Problem, has_bias: bool, scale: Pointer | None, out: Mapping[str, Pointer | None],
    tile_grad: Callable[[int, tuple[int, int]], Launch],
) -> list[Launch]:  # fmt: skip
    """What writes the item gradient of groups' lists over zeros: some columns of all lists at a time are summed by
    item."""
    g = p.gather
    is_summed = out["is_summed"]
    assert is_summed is not None
    passes = ceil_div(p.negatives, p.list_columns)
    find = launch(
        list_kernels.find_parts_kernel, (ceil_div(p.list_draws, DRAW_BLOCK),),
        Pointer("sorted_keys"), Pointer("sorted_rows"), out["part_of_draw"], out["is_summed"], p.list_draws,
        p.num_rows, p.num_items,
        p.num_groups * p.list_columns, passes, LOOKS_UP=passes <= MOST_LOOKED_UP, BLOCK=DRAW_BLOCK,
    )  # fmt: skip
    launches = [find]
    for number, first in enumerate(range(0, p.negatives, p.list_columns)):
        columns = min(p.list_columns, p.negatives - first)
        draws, start = p.num_groups * columns, p.num_groups * first
        sorted_keys = Pointer("sorted_keys", p.num_rows + start)
        common = {"HAS_BIAS": has_bias, "PART": LIST_PART, "BLOCK_D": g.block_d}
        is_summed_here = is_summed._replace(offset=is_summed.offset + start)
        tiles, first_key = ceil_div(draws, LIST_PART), (number + 1) * (p.num_items + 1)
        grads = (out["item_grad"], out["bias_grad"], draws, p.num_items, p.dim, first_key)
        launches.append(tile_grad(p.num_groups * ceil_div(columns, p.block), (first, columns)))
        add = launch(
            list_kernels.add_list_grad_kernel, (tiles, g.num_d), scale, sorted_keys, is_summed_here, out["part_grad"],
            out["part_bias"],
            out["list_sums"], *grads, **common, HAS_KNOWN=number > 0, STEP=ADD_STEP, work=ADD_WORK,
        )  # fmt: skip
        join = launch(
            list_kernels.join_list_grad_kernel, (tiles, g.num_d), scale, sorted_keys, is_summed_here, out["list_sums"],
            *grads,
            **common, TILES=max(JOINED // g.block_d, 8), work=ONE_WARP,
        )  # fmt: skip
        launches += [add, join]
    return launches
