"""The launches of groups' lists of candidates: drawing them, scoring what they are chosen from, and adding up their
item gradients."""

from __future__ import annotations

from collections.abc import Callable

from ..device import lists, pool
from ..draws.permutation import factors, half_rounds
from ..numbers import ceil_div, next_power_of_2
from ..plan.buffers import TABLE_BLOCK
from ..plan.listed import LIST_PART
from ..plan.problem import Problem
from ..plan.tiles import ONE_WARP, Work
from .bindings import bindings, tile_bindings
from .programs import Launch, Pointer, launch

ADD_STEP, ADD_WORK = 8, Work(LIST_PART, 1, 1)  # sorted draws whose partial gradients are loaded together
JOINED = 2048  # numbers that a program of one item's sums of tiles holds at a time
DRAW_BLOCK = 256  # draws of an element-wise program
POOL_TILE = 64  # rows, candidates and columns that a pool's scores are computed by
MOST_LOOKED_UP = 4  # passes over the columns in which a draw's item is looked up


def draw_lists(p: Problem) -> list[Launch]:
    """What draws the lists' columns, after the tables of rows: into the lists, or into the pool that they are chosen
    from."""
    assert p.lists is not None
    assert p.listed is not None
    shared, columns, first, ends = bindings(p), p.lists.columns, 0, 0
    ids = Pointer("pool_ids") if p.chooses else shared["p_lists"]
    keys = shared["p_list_keys"]
    launches = []
    for part, draws, num_keys in zip(p.lists.parts, p.lists.draws, p.listed.keys, strict=True):
        own = ids._replace(offset=ids.offset + first)
        if draws is None:
            places = p.num_groups * p.group_size
            rows = launch(
                lists.row_targets_kernel, (ceil_div(places, DRAW_BLOCK),), shared,
                p_ids=own, num_places=places, columns=columns, BLOCK=DRAW_BLOCK,
            )  # fmt: skip
            launches.append(rows)
        else:
            halves, total = half_rounds(draws.width), p.num_groups * part.columns
            make_keys = launch(
                lists.slot_keys_kernel, (ceil_div(num_keys, TABLE_BLOCK),), shared,
                p_keys=keys, halves=halves, total=num_keys, DOMAIN=draws.domain, BLOCK=TABLE_BLOCK,
            )  # fmt: skip
            has_ends, (shift, b) = draws.num_items is None, factors(draws.width)
            draw = launch(
                lists.slot_ids_kernel, (ceil_div(total, DRAW_BLOCK),), shared,
                p_keys=keys, p_slot_ends=Pointer("slot_ends", ends) if has_ends else None, p_ids=own, total=total,
                negatives=part.columns, columns=columns, block=draws.block, strata=draws.strata, width=draws.width,
                groups_per_round=draws.groups_per_round, shift=shift, b=b,
                HAS_ENDS=has_ends, HALVES=halves, BLOCK=DRAW_BLOCK,
            )  # fmt: skip
            launches += [make_keys, draw]
            ends += p.catalog if has_ends else 0
        keys = keys._replace(offset=keys.offset + num_keys)
        first += part.columns
    return launches


def describe_lists(p: Problem) -> Launch:
    """What looks up the sort keys and log weights of finished lists."""
    assert p.listed is not None
    shared = bindings(p)
    keys = shared["p_positive_key"]
    return launch(
        lists.describe_lists_kernel, (ceil_div(p.listed.draws, DRAW_BLOCK),), shared,
        p_keys=keys._replace(offset=keys.offset + p.num_rows), p_weights=shared["p_list_weights"],
        num_draws=p.listed.draws, columns_per_pass=p.listed.columns, BLOCK=DRAW_BLOCK,
    )  # fmt: skip


def score_pool(p: Problem) -> Launch:
    """What scores each group's pool."""
    assert p.lists is not None
    assert p.tiled is not None
    columns = p.lists.columns
    block_b = min(max(next_power_of_2(columns), 16), POOL_TILE)
    blocks = ceil_div(columns, block_b)
    return launch(
        pool.pool_scores_kernel, (p.num_groups * blocks,), tile_bindings(p),
        p_ids=Pointer("pool_ids" if p.draw.draws_lists else "ids"), p_scores=Pointer("pool_scores"),
        columns=columns, blocks=blocks,
        BLOCK_M=min(p.group_size, POOL_TILE), BLOCK_B=block_b, BLOCK_D=min(p.tiled.config.block_d, POOL_TILE),
    )  # fmt: skip


def list_gradients(p: Problem, tile_grad: Callable[[int, tuple[int, int]], Launch]) -> list[Launch]:
    """What writes the item gradient of groups' lists over zeros: some columns of all lists at a time are summed by
    item. ``tile_grad`` launches so many programs on (first column, number of columns)."""
    plan, shared = p.listed, bindings(p)
    assert plan is not None
    assert p.tiled is not None
    find = launch(
        lists.find_parts_kernel, (ceil_div(plan.draws, DRAW_BLOCK),), shared,
        p_sorted_places=shared["p_sorted_rows"], num_draws=plan.draws, draws_per_pass=plan.part_rows,
        passes=plan.passes, LOOKS_UP=plan.passes <= MOST_LOOKED_UP, BLOCK=DRAW_BLOCK,
    )  # fmt: skip
    launches, is_summed = [find], shared["p_is_summed"]
    for number, first in enumerate(range(0, p.negatives, plan.columns)):
        columns = min(plan.columns, p.negatives - first)
        draws, start = p.num_groups * columns, p.num_groups * first
        grid = ceil_div(draws, LIST_PART), p.row_work.num_d
        own = shared | {
            "p_sorted_keys": Pointer("sorted_keys", p.num_rows + start),
            "p_is_summed": is_summed._replace(offset=is_summed.offset + start),
            "p_ends": shared["p_list_sums"],
            "num_draws": draws,
            "first_key": (number + 1) * (p.num_items + 1),
            "PART": LIST_PART,
        }
        tiles = max(JOINED // p.row_work.block_d, 8)
        launches += [
            tile_grad(p.num_groups * ceil_div(columns, p.tiled.block), (first, columns)),
            launch(lists.add_list_grad_kernel, grid, own, HAS_KNOWN=number > 0, STEP=ADD_STEP, work=ADD_WORK),
            launch(lists.join_list_grad_kernel, grid, own, TILES=tiles, work=ONE_WARP),
        ]
    return launches
