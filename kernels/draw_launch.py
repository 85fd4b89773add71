"""The launches that draw groups' lists of candidates on the device."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from . import list_kernels
from .buffers import TABLE_BLOCK, Buffer, half_rounds
from .permutation import factors
from .problem import ceil_div
from .programs import Pointer, Program, launch
from .slots import SlotDraws

DRAW_BLOCK = 256


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
