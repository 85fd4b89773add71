"""The launches of groups' lists of candidates: drawing them, and adding up their item gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import torch
from torch import Tensor

from . import list_kernels
from .buffers import TABLE_BLOCK, Buffer, half_rounds
from .configs import Work
from .permutation import factors
from .problem import LIST_PART, Problem, ceil_div
from .programs import Launch, Pointer, Program, launch
from .slots import SlotDraws

JOINED_TILES = 16  # tiles of one item's draws that are added together
ONE_WARP = Work(0, 1, 3)
DRAW_BLOCK = 256  # draws of an element-wise program
MOST_LOOKED_UP = 4  # passes over the columns in which a draw's item is looked up
SUM_PRECISION = "tf32x3"  # of sums taken as products with zeros and ones: exact to fp32


def slot_buffers(draws: SlotDraws, num_groups: int) -> tuple[Buffer, ...]:
    """The lists, and the keys of the permutations they are drawn by."""
    keys = draws.rounds(num_groups) * draws.strata * half_rounds(draws.width)
    return Buffer("ids", (num_groups, draws.negatives), "int32"), Buffer("slot_keys", (keys,), "int32")


@lru_cache(maxsize=256)
def slot_program(draws: SlotDraws, num_groups: int, num_items: int) -> Program:
    """Pointers: seed (2,) int32 words (low, high), slot_ends (V,) int32, ``slot_buffers``."""
    halves = half_rounds(draws.width)
    ids, keys = slot_buffers(draws, num_groups)
    return Program([
        launch(
            list_kernels.slot_keys_kernel, (ceil_div(keys.size, TABLE_BLOCK),),
            Pointer("seed"), Pointer("slot_keys"), halves, keys.size, BLOCK=TABLE_BLOCK,
        ),
        launch(
            list_kernels.slot_ids_kernel, (ceil_div(ids.size, DRAW_BLOCK),),
            Pointer("slot_keys"), Pointer("slot_ends"), Pointer("ids"), num_items, ids.size, draws.negatives,
            draws.block, draws.strata, draws.width, draws.groups_per_round, *factors(draws.width),
            HALVES=halves, STEPS=num_items.bit_length() + 1, BLOCK=DRAW_BLOCK,
        ),
    ])  # fmt: skip


def launch_slot_ids(outs: Mapping[str, Tensor], ins: Mapping[str, Tensor], draws: SlotDraws) -> None:
    """ins: seed, slot_ends. outs: ``slot_buffers``."""
    slot_program(draws, len(outs["ids"]), len(ins["slot_ends"])).run({**ins, **outs})


def compile_slot_ids(draws: SlotDraws, num_groups: int, num_items: int) -> None:
    """Compile on the current GPU and launch nothing."""
    slot_program(draws, num_groups, num_items).compile(dict.fromkeys(("seed", "slot_ends", "ids", "slot_keys"), torch.int32))


def list_grad_launches(
    p: Problem, has_bias: bool, scale: Pointer | None, out: Mapping[str, Pointer | None],
    tile_grad: Callable[[int, tuple[int, int]], Launch],
) -> list[Launch]:  # fmt: skip
    """What adds the item gradient of groups' lists to that of the positives: some columns of all lists at a time are summed by item."""
    g = p.gather
    is_summed = out["is_summed"]
    assert is_summed is not None
    all_draws = p.num_groups * p.negatives
    passes = ceil_div(p.negatives, p.list_columns)
    find = launch(
        list_kernels.find_parts_kernel, (ceil_div(all_draws, DRAW_BLOCK),),
        Pointer("sorted_ids"), Pointer("sorted_draws"), Pointer("sorted_keys"), out["part_of_draw"], out["is_summed"], all_draws,
        p.num_rows, p.num_items,
        p.num_groups * p.list_columns, passes, LOOKS_UP=passes <= MOST_LOOKED_UP,
        STEPS=all_draws.bit_length() + 1, TARGET_STEPS=p.num_rows.bit_length() + 1, BLOCK=DRAW_BLOCK,
    )  # fmt: skip
    launches = [find]
    for number, first in enumerate(range(0, p.negatives, p.list_columns)):
        columns = min(p.list_columns, p.negatives - first)
        draws, start = p.num_groups * columns, p.num_groups * first
        sorted_keys = Pointer("sorted_ids", start)
        common = {"HAS_BIAS": has_bias, "PART": LIST_PART, "BLOCK_D": g.block_d}
        is_summed_here = is_summed._replace(offset=is_summed.offset + start)
        tiles, first_key = ceil_div(draws, LIST_PART), number * (p.num_items + 1)
        grads = (out["item_grad"], out["bias_grad"], draws, p.num_items, p.dim, first_key)
        launches.append(tile_grad(p.num_groups * ceil_div(columns, p.block), (first, columns)))
        add = launch(
            list_kernels.add_list_grad_kernel, (tiles, g.num_d), scale, sorted_keys, is_summed_here, out["part_grad"], out["part_bias"],
            out["list_sums"], *grads, **common, PRECISION=SUM_PRECISION,
        )  # fmt: skip
        join = launch(
            list_kernels.join_list_grad_kernel, (tiles, g.num_d), scale, sorted_keys, is_summed_here, out["list_sums"], *grads,
            **common, TILES=JOINED_TILES, work=ONE_WARP,
        )  # fmt: skip
        launches += [add, join]
    return launches
