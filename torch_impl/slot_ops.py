"""What samplers with unequal probabilities draw, as ``torch.library`` operators where a graph is traced; nothing of it is differentiable."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ..kernels.samplers import WeightedNegatives, weighted_sampler
from ..kernels.slots import SlotDraws, slot_table
from . import ops, reference


@functools.lru_cache(maxsize=16)
def _slot_tensors(sampler: WeightedNegatives, num_items: int, device: torch.device) -> tuple[Tensor, Tensor]:
    ends, log_weight = slot_table(sampler, num_items)
    return torch.from_numpy(ends).to(device), torch.from_numpy(log_weight).to(device)


def _copied_slot_tensors(seed: Tensor, number: int, num_items: int) -> tuple[Tensor, Tensor]:
    """``slot_tensors`` of the sampler of a number, on the device of ``seed``; copies, whose memory compiled code may use again."""
    ends, log_weight = _slot_tensors(weighted_sampler(number), num_items, seed.device)
    return ends.clone(), log_weight.clone()


def _fake_slot_tensors(seed, number, num_items):
    return seed.new_empty(num_items), seed.new_empty(num_items, dtype=torch.float32)


_slot_tensors_operator = ops.operator("slot_tensors", _copied_slot_tensors, _fake_slot_tensors)


def slot_tensors(sampler: WeightedNegatives, num_items: int, seed: Tensor) -> tuple[Tensor, Tensor]:
    """Where the slots of each item end (V,) int32, and its log weight (V,) fp32; made once for a sampler and the device of ``seed``."""
    if torch.compiler.is_compiling():
        return _slot_tensors_operator(seed, sampler.number, num_items)
    return _slot_tensors(sampler, num_items, seed.device)


def _slot_ids(seed: Tensor, slot_ends: Tensor, num_groups: int, num_negatives: int, impl: str) -> Tensor:
    """The lists (groups, K) int32 that groups draw by slots; seed (2,) int32 words, slot_ends (V,) int32."""
    draws = SlotDraws(num_negatives)
    if impl == "reference":
        return reference.slot_ids(seed, slot_ends, num_groups, draws)
    from ..kernels.list_launch import launch_slot_ids, slot_buffers

    with torch.cuda.device_of(seed):
        outs = ops._empty(ops.layout_of(slot_buffers(draws, num_groups)), seed.device)
        launch_slot_ids(outs, {"seed": seed, "slot_ends": slot_ends}, draws)
    return outs["ids"]


def _fake_slot_ids(seed, slot_ends, num_groups, num_negatives, impl):
    return slot_ends.new_empty((num_groups, num_negatives))


_slot_ids_operator = ops.operator("slot_ids", _slot_ids, _fake_slot_ids)


def slot_ids(*args) -> Tensor:
    """``_slot_ids`` as an operator where a graph is traced, else called at once."""
    return (
        _slot_ids_operator(*args)
        if torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None
        else _slot_ids(*args)
    )
