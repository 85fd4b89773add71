"""What the kernels read of a sampler's probabilities: where items' slots end, and log weights; nothing of it is
differentiable."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...kernels.draws.lists import mixed_samplers, mixture_shares, weighted_samplers
from ...kernels.draws.slots import kept_with_sampler, slot_table
from ...kernels.negatives.samplers import InBatchNegatives, MixedNegatives, WeightedNegatives, weighted_sampler
from . import ops
from .rows import is_transformed


@kept_with_sampler
def _slot_tensors(sampler: WeightedNegatives, num_items: int, device: torch.device) -> tuple[Tensor, Tensor]:
    ends, log_weight = slot_table(sampler, num_items)
    with torch.inference_mode(False):  # they serve training, too
        return torch.from_numpy(ends).to(device), torch.from_numpy(log_weight).to(device)


def _copied_slot_tensors(seed: Tensor, number: int, num_items: int) -> tuple[Tensor, Tensor]:
    """``_slot_tensors`` of the sampler of a number, on the device of ``seed``; copies, whose memory compiled code may
    use again."""
    ends, log_weight = _slot_tensors(weighted_sampler(number), num_items, seed.device)
    return ends.clone(), log_weight.clone()


def _fake_slot_tensors(seed, number, num_items):
    return seed.new_empty(num_items, dtype=torch.int32), seed.new_empty(num_items, dtype=torch.float32)


_slot_tensors_operator = ops.operator(
    "slot_tensors",
    "(Tensor seed, SymInt number, SymInt num_items) -> (Tensor, Tensor)",
    _copied_slot_tensors,
    _fake_slot_tensors,
)


def slot_tensors(sampler: WeightedNegatives, num_items: int, seed: Tensor) -> tuple[Tensor, Tensor]:
    """Where the slots of each item end (V,) int32, and its log weight (V,) fp32; made once for a sampler and the device
    of ``seed``."""
    if torch.compiler.is_compiling() or is_transformed() or type(seed) is not Tensor or seed.is_meta:
        return _slot_tensors_operator(seed, sampler.number, num_items)
    return _slot_tensors(sampler, num_items, seed.device)


def list_operands(
    sampler: object, num_items: int, seed: Tensor, log_q: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """(slot_ends, log_weight) of a call with a sampler or explicit ids, None where there are none; see ``Operands``.

    ``log_q``: of explicit ids, or of rows' targets as negatives.
    """
    slots = [slot_tensors(each, num_items, seed) for each in weighted_samplers(sampler)]
    if not isinstance(sampler, MixedNegatives):
        return slots[0] if slots else (None, None if log_q is None else -log_q.detach().float() - math.log(num_items))
    slot_ends = torch.cat([ends for ends, _ in slots]) if slots else None
    remaining = iter(slots)
    parts = []
    for part, share in zip(mixed_samplers(sampler), mixture_shares(sampler, num_items), strict=True):
        # log(share V q) of each item; uniform draws have V q = 1
        if isinstance(part, WeightedNegatives):
            parts.append(math.log(share) - next(remaining)[1])
        elif isinstance(part, InBatchNegatives) and log_q is not None:
            parts.append(log_q.detach().float() + math.log(share * num_items))
        else:
            parts.append(torch.full((), math.log(share), dtype=torch.float32, device=seed.device))
    return slot_ends, -torch.logaddexp(*parts) if slots or log_q is not None else None
