"""The launches that build a step's tables: compacted rows, permutations, lists and histories."""

from __future__ import annotations

from functools import lru_cache

from ..device import history as history_kernels
from ..device import tables as table_kernels
from ..draws.permutation import factors
from ..plan.buffers import SORTED_SLOTS, TABLE_BLOCK, VISIT_BLOCK, half_rounds, place, table_sizes
from ..plan.problem import Problem, ceil_div
from ..plan.tiles import next_power_of_2
from .lists import list_launches
from .programs import Launch, Pointer, launch


@lru_cache(maxsize=256)
def table_parts(problem: Problem) -> dict[str, Pointer]:
    """Where each part of the table buffer lies."""
    return {name: Pointer("tables", offset) for name, offset in place(table_sizes(problem))[0].items()}


def table_launches(p: Problem) -> list[Launch]:
    """What fills the table buffer, for chosen lists but for these."""
    t, sizes = table_parts(p), table_sizes(p)
    target, counted = Pointer("target"), Pointer("counted")
    programs = {name: ceil_div(size, TABLE_BLOCK) for name, size in sizes.items()}
    row_programs = programs["rows"]
    item_halves, round_halves = half_rounds(p.num_items), half_rounds(p.drawn_domain)
    key_programs = programs["item_keys"] + programs["round_keys"] + programs["row_keys"]
    count = launch(
        table_kernels.count_rows_kernel, (row_programs + key_programs,),
        target, Pointer("seed"), t["row_counts"], t["item_keys"], t["round_keys"], t["row_keys"],
        p.num_rows, p.ignore_index, row_programs, programs["item_keys"], programs["round_keys"],
        sizes["item_keys"], sizes["round_keys"], item_halves, round_halves, sizes["row_keys"],
        BLOCK=TABLE_BLOCK,
    )  # fmt: skip
    item_shift, item_b = factors(p.num_items)
    drawn_shift, drawn_b = factors(p.drawn_domain)
    sorted_slots = min(next_power_of_2(p.slots), SORTED_SLOTS) if p.has_blocks else 1
    parts_per_group = ceil_div(p.slots, sorted_slots) if p.has_blocks else 1
    group_programs = p.num_groups * parts_per_group if p.has_blocks else 0
    grid = row_programs + programs["items"] + group_programs + ceil_div(sizes["visits"], VISIT_BLOCK)
    build = launch(
        table_kernels.build_tables_kernel, (grid,),
        target, t["row_counts"], t["item_keys"], t["round_keys"], t["row_keys"],
        t["rows"], t["count"], counted, t["positive_key"], t["items"], t["group_blocks"], t["visits"],
        t["block_groups"],
        p.num_rows, sizes["rows"], p.num_items, p.ignore_index, p.no_key, row_programs, programs["items"],
        group_programs,
        p.drawn_domain, p.slots if p.has_blocks else 1, p.grouped.groups_per_round if p.has_blocks else 1,
        p.group_size, max(p.block_rounds, 1), parts_per_group,
        item_shift, item_b, drawn_shift, drawn_b,
        PERMUTES_ITEMS=p.permutes_items, SHUFFLE=p.shuffle_rows,
        ITEM_HALVES=item_halves, ROUND_HALVES=round_halves, BLOCK=TABLE_BLOCK, VISIT_BLOCK=VISIT_BLOCK,
        SORTED_SLOTS=sorted_slots,
    )  # fmt: skip
    launches = [count, build, *(list_launches(p, t) if p.lists else ())]
    if p.history:
        ranges = launch(
            history_kernels.history_ranges_kernel, (row_programs,),
            Pointer("users"), Pointer("history_offsets"), t["history_first"], t["history_end"], p.num_rows, *p.history,
            BLOCK=TABLE_BLOCK,
        )  # fmt: skip
        launches.append(ranges)
    return launches
