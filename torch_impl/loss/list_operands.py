"""What the kernels read of a sampler's probabilities: where items' slots end, and log weights; nothing of it is
differentiable."""

from __future__ import annotations

import math
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from ...kernels.draws.draw import Draw
from ...kernels.negatives.base import Negatives
from ...kernels.negatives.samplers import sampler_of
from . import ops

Tables = tuple[Tensor, Tensor]  # slot_ends and log_weight, see ``Probabilities``; empty where there are none

# of living samplers only, and made outside of all modes
_tables: WeakKeyDictionary[Negatives, dict[tuple[int, torch.device], Tables]] = WeakKeyDictionary()


def _tables_of(sampler: Negatives, num_items: int, device: torch.device) -> Tables:
    known = _tables.setdefault(sampler, {})
    if (num_items, device) not in known:
        ends, log_weight = sampler.probabilities(num_items)
        with _disable_current_modes(), torch.inference_mode(False):
            known[num_items, device] = (
                torch.empty(0, dtype=torch.int32, device=device) if ends is None else torch.from_numpy(ends).to(device),
                torch.empty(0, dtype=torch.float32, device=device)
                if log_weight is None
                else torch.from_numpy(log_weight).to(device),
            )
    return known[num_items, device]


def _copied_tables(seed: Tensor, sampler: str, num_items: int, parts: int, has_weights: bool) -> Tables:
    """``_tables_of`` the sampler of a text, on the device of ``seed``; copies, whose memory compiled code may use
    again."""
    ends, log_weight = _tables_of(sampler_of(sampler), num_items, seed.device)
    return ends.clone(), log_weight.clone()


def _fake_tables(seed, sampler, num_items, parts, has_weights):
    log_weight = seed.new_empty(num_items if has_weights else 0, dtype=torch.float32)
    return seed.new_empty(parts * num_items, dtype=torch.int32), log_weight


_tables_operator = ops.operator(
    "sampler_tables",
    "(Tensor seed, str sampler, SymInt num_items, int parts, bool has_weights) -> (Tensor, Tensor)",
    _copied_tables,
    _fake_tables,
)


def list_operands(
    sampler: Negatives | None, draw: Draw, num_items: int, seed: Tensor, log_q: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """(slot_ends, log_weight) of a call with a sampler or explicit ids, None where there are none; see ``Operands``.

    ``log_q``: of explicit ids, or of rows' targets as negatives.
    """
    slot_ends = log_weight = None
    lists = draw.lists
    if sampler is not None and lists is not None and lists.has_weights:
        if torch.compiler.is_compiling() or ops.is_transformed():
            ends, weights = _tables_operator(seed, sampler.text, num_items, lists.slot_parts, True)
        else:
            ends, weights = _tables_of(sampler, num_items, seed.device)
        slot_ends, log_weight = ends if lists.slot_parts else None, weights
    if log_q is not None:
        known = log_q.detach().float() + math.log(draw.batch_share * num_items)
        log_weight = -known if log_weight is None else -torch.logaddexp(-log_weight, known)
    return slot_ends, log_weight
