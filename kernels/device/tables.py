"""Kernels that build a step's int32 tables: compacted rows, sort keys, the item permutation and who draws which block.

The parts are those of ``plan.buffers.table_sizes``; nothing here waits for the host.
"""

import triton
import triton.language as tl

from .numbers import ROW_NUMBERS
from .permutation import factors, load_seed, permute, stream64
from .search import lower_bound

LAST = tl.constexpr(1 << 30)  # marks the block of a group's last slot; there are fewer blocks
DOMAIN_ITEMS = tl.constexpr(0)
DOMAIN_BLOCKS = tl.constexpr(1)
DOMAIN_ROWS = tl.constexpr(2)


@triton.jit
def store_keys(p_seed, p_keys, first, domain, halves, total, BLOCK: tl.constexpr):
    """Keys number ``first`` .. of a domain: key i belongs to round i / halves, half-round i % halves."""
    i = first + tl.arange(0, BLOCK)
    base = stream64(load_seed(p_seed), domain.to(tl.uint64))
    index = (i // halves).to(tl.uint64) * 16 + (i % halves).to(tl.uint64)
    key = (stream64(base, index) >> 32).to(tl.uint32)
    tl.store(p_keys + i, key.to(tl.int32, bitcast=True), mask=i < total)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def count_rows_kernel(
    p_target, p_seed, p_counts, p_item_keys, p_round_keys, p_row_keys,
    num_rows, ignore_index, row_programs, item_programs, round_programs,
    item_keys, round_keys, item_halves, round_halves, row_halves,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Non-ignored rows of each block of rows, and the keys of every permutation round."""
    pid = tl.program_id(0)
    if pid < row_programs:
        n = pid * BLOCK + tl.arange(0, BLOCK)
        target = tl.load(p_target + n, mask=n < num_rows, other=0).to(tl.int64)
        valid = (n < num_rows) & (target != ignore_index)
        tl.store(p_counts + pid, tl.sum(valid.to(tl.int32)))
    elif pid < row_programs + item_programs:
        first = (pid - row_programs) * BLOCK
        store_keys(p_seed, p_item_keys, first, tl.full((), DOMAIN_ITEMS, tl.int32), item_halves, item_keys, BLOCK)
    elif pid < row_programs + item_programs + round_programs:
        first = (pid - row_programs - item_programs) * BLOCK
        store_keys(p_seed, p_round_keys, first, tl.full((), DOMAIN_BLOCKS, tl.int32), round_halves, round_keys, BLOCK)
    else:
        first = (pid - row_programs - item_programs - round_programs) * BLOCK
        store_keys(p_seed, p_row_keys, first, tl.full((), DOMAIN_ROWS, tl.int32), row_halves, row_halves, BLOCK)


@triton.jit
def sum_counts(p_counts, number, BLOCK: tl.constexpr):
    total = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, number, BLOCK):
        i = start + tl.arange(0, BLOCK)
        total += tl.load(p_counts + i, mask=i < number, other=0)
    return tl.sum(total)


@triton.jit
def store_places(
    p_target, p_counts, p_row_keys, p_rows, p_count, p_counted, pid, count, num_rows, num_slots, ignore_index,
    SHUFFLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Puts block ``pid`` of the rows in their places, of which ``count`` are no ignored rows'; (rows, targets, which
    count) of it."""
    n = pid * BLOCK + tl.arange(0, BLOCK)
    target = tl.load(p_target + n, mask=n < num_rows, other=0).to(tl.int64)
    valid = (n < num_rows) & (target != ignore_index)
    before = sum_counts(p_counts, pid, BLOCK)
    rank = before + tl.cumsum(valid.to(tl.int32), 0) - valid.to(tl.int32)
    place = rank
    if SHUFFLE:
        size = tl.maximum(count, 1)
        shift, b = factors(size)
        place = permute(rank, size, shift, b, p_row_keys, 12, True, False)
    place = tl.where(valid, place, count + n - rank)  # ignored rows follow, in order
    tl.store(p_rows + place, n, mask=n < num_rows)
    tl.store(p_rows + n, 0, mask=(n >= num_rows) & (n < num_slots))
    if pid == 0:
        tl.store(p_count, count)
        tl.store(p_counted, tl.maximum(count, 1).to(tl.float32))
    return n, target, valid


@triton.jit
def store_group_blocks(
    p_round_keys, p_group_blocks, part, num_blocks, slots, groups_per_round, parts_per_group, block_shift, block_b,
    ROUND_HALVES: tl.constexpr, SORTED_SLOTS: tl.constexpr,
):  # fmt: skip
    """The blocks that a part of a group's slots draws, in order."""
    group = part // parts_per_group
    slot = part % parts_per_group * SORTED_SLOTS + tl.arange(0, SORTED_SLOTS)
    place = (group % groups_per_round) * slots + slot
    p_keys = p_round_keys + group // groups_per_round * ROUND_HALVES
    block = permute(place, num_blocks, block_shift, block_b, p_keys, ROUND_HALVES, False, False)
    # groups that run side by side walk the catalog in one direction and meet in the cache; the last slot stays last,
    # since its block may be cut
    block = tl.sort(tl.where(slot < slots, block + tl.where(slot == slots - 1, LAST, 0), 2 * LAST - 1))
    tl.store(p_group_blocks + group * slots + slot, block & (LAST - 1), mask=slot < slots)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def build_tables_kernel(
    p_target, p_counts, p_item_keys, p_round_keys, p_row_keys,
    p_rows, p_count, p_counted, p_positive_key, p_items, p_group_blocks, p_visits, p_block_groups,
    num_rows, num_slots, num_items, ignore_index, no_key, row_programs, item_programs, group_programs,
    num_blocks, slots, groups_per_round, group_size, rounds, parts_per_group,
    item_shift, item_b, block_shift, block_b,
    PERMUTES_ITEMS: tl.constexpr, SHUFFLE: tl.constexpr, ITEM_HALVES: tl.constexpr, ROUND_HALVES: tl.constexpr,
    BLOCK: tl.constexpr, VISIT_BLOCK: tl.constexpr, SORTED_SLOTS: tl.constexpr,
):  # fmt: skip
    """All tables of a step in one launch; each range of programs builds one of them."""
    pid = tl.program_id(0)
    count = sum_counts(p_counts, row_programs, BLOCK)
    if pid < row_programs:
        n, target, valid = store_places(
            p_target, p_counts, p_row_keys, p_rows, p_count, p_counted, pid, count, num_rows, num_slots, ignore_index,
            SHUFFLE, BLOCK,
        )  # fmt: skip
        has_item = valid & (target >= 0) & (target < num_items)
        key = tl.where(has_item, target, 0).to(tl.int32)
        if PERMUTES_ITEMS:
            key = permute(key, num_items, item_shift, item_b, p_item_keys, ITEM_HALVES, False, True)
        tl.store(p_positive_key + n, tl.where(has_item, key, no_key), mask=n < num_rows)
    elif PERMUTES_ITEMS:
        if pid < row_programs + item_programs:
            position = (pid - row_programs) * BLOCK + tl.arange(0, BLOCK)
            item = permute(position, num_items, item_shift, item_b, p_item_keys, ITEM_HALVES, False, False)
            tl.store(p_items + position, item, mask=position < num_items)
        elif pid < row_programs + item_programs + group_programs:
            store_group_blocks(
                p_round_keys, p_group_blocks, pid - row_programs - item_programs, num_blocks, slots, groups_per_round,
                parts_per_group, block_shift, block_b, ROUND_HALVES, SORTED_SLOTS,
            )  # fmt: skip
        else:
            drawn = (pid - row_programs - item_programs - group_programs) * VISIT_BLOCK + tl.arange(0, VISIT_BLOCK)
            number = tl.zeros((VISIT_BLOCK,), tl.int32)
            for round_ in range(rounds):
                p_keys = p_round_keys + round_ * ROUND_HALVES
                place = permute(drawn, num_blocks, block_shift, block_b, p_keys, ROUND_HALVES, False, True)
                group = round_ * groups_per_round + place // slots
                visits = (drawn < num_blocks) & (place < groups_per_round * slots) & (group * group_size < count)
                is_last = (place % slots == slots - 1).to(tl.int32)
                tl.store(p_block_groups + drawn * rounds + number, group * 2 + is_last, mask=visits)
                number += visits.to(tl.int32)
            tl.store(p_visits + drawn, number, mask=drawn < num_blocks)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def segment_starts_kernel(p_sorted_keys, p_starts, num_keys, unit, num_starts, BLOCK: tl.constexpr):
    """starts[j] = the first index whose sorted key is at least j * unit."""
    j = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    first = tl.zeros((BLOCK,), tl.int32)
    tl.store(
        p_starts + j, lower_bound(p_sorted_keys, first, first + num_keys, j.to(tl.int64) * unit), mask=j < num_starts
    )


@triton.jit(do_not_specialize=ROW_NUMBERS)
def build_given_tables_kernel(
    p_target, p_counts, p_row_keys, p_rows, p_count, p_counted, p_group_blocks, p_visits,
    num_rows, num_slots, ignore_index, row_programs, num_groups, slots, group_size,
    SHUFFLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The tables of a call that its drawn items come with: each slot of a group has a block of its own."""
    pid = tl.program_id(0)
    count = sum_counts(p_counts, row_programs, BLOCK)
    if pid < row_programs:
        store_places(
            p_target, p_counts, p_row_keys, p_rows, p_count, p_counted, pid, count, num_rows, num_slots, ignore_index,
            SHUFFLE, BLOCK,
        )  # fmt: skip
    else:
        block = (pid - row_programs) * BLOCK + tl.arange(0, BLOCK)
        m_block = block < num_groups * slots
        tl.store(p_group_blocks + block, block, mask=m_block)
        tl.store(p_visits + block, (block // slots * group_size < count).to(tl.int32), mask=m_block)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def draw_blocks_kernel(
    p_round_keys, p_group_blocks, num_blocks, slots, groups_per_round, parts_per_group, block_shift, block_b,
    ROUND_HALVES: tl.constexpr, SORTED_SLOTS: tl.constexpr,
):  # fmt: skip
    """The blocks that each group draws, in order."""
    store_group_blocks(
        p_round_keys, p_group_blocks, tl.program_id(0), num_blocks, slots, groups_per_round, parts_per_group,
        block_shift, block_b, ROUND_HALVES, SORTED_SLOTS,
    )  # fmt: skip


@triton.jit(do_not_specialize=ROW_NUMBERS)
def drawn_items_kernel(
    p_counts, p_item_keys, p_group_blocks, p_drawn, row_programs, num_drawn, slots, block, last_block, group_size,
    num_items, item_shift, item_b, ITEM_HALVES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The item at each place of the groups' blocks; -1 behind a group's last, and of groups without a row."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    count = sum_counts(p_counts, row_programs, BLOCK)
    slot = i // block
    offset = i % block
    width = tl.where(slot % slots == slots - 1, last_block, block)
    is_drawn = (i < num_drawn) & (offset < width) & (slot // slots * group_size < count)
    position = tl.load(p_group_blocks + slot, mask=is_drawn, other=0) * block + offset
    item = permute(position, num_items, item_shift, item_b, p_item_keys, ITEM_HALVES, False, False)
    tl.store(p_drawn + i, tl.where(is_drawn, item, -1), mask=i < num_drawn)
