"""The launches that build a step's tables: compacted rows, permutations, lists and histories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..device import history, tables
from ..draws.permutation import factors, half_rounds
from ..numbers import ceil_div, next_power_of_2
from ..plan.buffers import SORTED_SLOTS, TABLE_BLOCK, VISIT_BLOCK, table_sizes
from ..plan.problem import Problem
from .bindings import bindings
from .lists import draw_lists
from .programs import Launch, Pointer, launch


def table_launches(p: Problem) -> list[Launch]:
    """What fills the table buffer, for chosen lists but for these."""
    launches = _given_launches(p) if p.draw.given else _drawn_launches(p)
    return [*launches, *((_history_ranges(p),) if p.history else ())]


def _drawn_launches(p: Problem) -> list[Launch]:
    """The same but for histories, where the call draws."""
    shared, sizes = bindings(p), table_sizes(p)
    programs = {name: ceil_div(size, TABLE_BLOCK) for name, size in sizes.items()}
    round_halves = half_rounds(p.drawn_domain)
    count = count_rows(
        shared | {"row_programs": programs["rows"]}, row_keys=sizes["row_keys"], item_keys=sizes["item_keys"],
        round_keys=sizes["round_keys"], round_halves=round_halves,
    )  # fmt: skip
    plan = p.tiled if p.tiled and p.tiled.has_blocks else None
    slots = plan.slots if plan else 1
    sorted_slots = min(next_power_of_2(slots), SORTED_SLOTS)
    parts_per_group = ceil_div(slots, sorted_slots)
    group_programs = p.num_groups * parts_per_group if plan else 0
    block_shift, block_b = factors(p.drawn_domain)
    grid = programs["rows"] + programs["items"] + group_programs + ceil_div(sizes["visits"], VISIT_BLOCK)
    build = launch(
        tables.build_tables_kernel, (grid,), shared,
        row_programs=programs["rows"], item_programs=programs["items"], group_programs=group_programs,
        num_blocks=p.drawn_domain, slots=slots, parts_per_group=parts_per_group,
        groups_per_round=plan.grouped.groups_per_round if plan and plan.grouped else 1,
        rounds=max(p.rounds, 1) if plan else 1, block_shift=block_shift, block_b=block_b,
        PERMUTES_ITEMS=p.permutes_items, SHUFFLE=p.shuffle_rows, ROUND_HALVES=round_halves,
        BLOCK=TABLE_BLOCK, VISIT_BLOCK=VISIT_BLOCK, SORTED_SLOTS=sorted_slots,
    )  # fmt: skip
    return [count, build, *(draw_lists(p) if p.draw.draws_lists else ())]


def _history_ranges(p: Problem) -> Launch:
    assert p.history
    shared = bindings(p)
    return launch(
        history.history_ranges_kernel, (ceil_div(table_sizes(p)["rows"], TABLE_BLOCK),), shared,
        p_first=shared["p_history_first"], p_end=shared["p_history_end"],
        num_users=p.history.num_users, num_known=p.history.num_known, BLOCK=TABLE_BLOCK,
    )  # fmt: skip


def _given_launches(p: Problem) -> list[Launch]:
    """The same where drawn items come with the call."""
    shared, sizes = bindings(p), table_sizes(p)
    rows, blocks = (ceil_div(sizes[name], TABLE_BLOCK) for name in ("rows", "group_blocks"))
    row_programs = {"row_programs": rows}
    build = launch(
        tables.build_given_tables_kernel, (rows + blocks,), shared | row_programs,
        num_groups=p.num_groups, slots=sizes["group_blocks"] // p.num_groups, SHUFFLE=p.shuffle_rows,
        BLOCK=TABLE_BLOCK,
    )  # fmt: skip
    return [count_rows(shared | row_programs, row_keys=sizes["row_keys"]), build]


def count_rows(
    shared: Mapping[str, Any], *, row_keys: int = 0, item_keys: int = 0, round_keys: int = 0, round_halves: int = 1
) -> Launch:
    """What counts the rows that are not ignored, and makes so many keys of the permutations of rows, of items, and in
    rounds of ``round_halves``."""
    programs = {"row": row_keys, "item": item_keys, "round": round_keys}
    programs = {name: ceil_div(keys, TABLE_BLOCK) for name, keys in programs.items()}
    return launch(
        tables.count_rows_kernel, (shared["row_programs"] + sum(programs.values()),), shared,
        item_programs=programs["item"], round_programs=programs["round"], item_keys=item_keys, round_keys=round_keys,
        item_halves=item_keys, round_halves=round_halves, row_halves=row_keys, BLOCK=TABLE_BLOCK,
    )  # fmt: skip


def segment_starts(sorted_keys: str, num_keys: int, starts: Pointer, num_starts: int, unit: int) -> Launch:
    """What finds the first of the sorted keys of each segment of so many."""
    return launch(
        tables.segment_starts_kernel, (ceil_div(num_starts, TABLE_BLOCK),), {},
        p_sorted_keys=Pointer(sorted_keys), p_starts=starts, num_keys=num_keys, unit=unit, num_starts=num_starts,
        BLOCK=TABLE_BLOCK,
    )  # fmt: skip
