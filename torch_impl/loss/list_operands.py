"""What the kernels read of a sampler's probabilities: where items' slots end, and log weights; nothing of it is
differentiable."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from ...kernels.draws.draw import Draw
from ...kernels.errors import ArgumentValueError
from ...kernels.negatives.base import Negatives, kept_with_sampler
from ...kernels.negatives.samplers import sampler_of
from . import ops
from .rows import is_transformed

# slot_ends and log_weight, see ``Probabilities``; empty where there are none, a number where it is that of all items
Tables = tuple[Tensor, Tensor | float]


@kept_with_sampler
def _tables_of(sampler: Negatives, num_items: int, device: torch.device) -> Tables:
    ends, log_weight = sampler.probabilities(num_items)
    waits = ends is not None or (log_weight is not None and log_weight.size > 1)
    if waits and device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise ArgumentValueError("negatives", "a sampler that was used before the CUDA graph's capture", sampler.text)
    with _disable_current_modes(), torch.inference_mode(False):  # they serve other calls, too
        slot_ends = torch.empty(0, dtype=torch.int32, device="cpu") if ends is None else torch.from_numpy(ends)
        if log_weight is not None and log_weight.size == 1:
            return slot_ends.to(device), log_weight.item()
        weights = torch.empty(0, dtype=torch.float32, device="cpu")
        weights = weights if log_weight is None else torch.from_numpy(log_weight)
        return slot_ends.to(device), weights.to(device)


def _log_weight(known: Tensor | float, num_items: int, device: torch.device) -> Tensor:
    """(V,) of a sampler's tables."""
    return known if isinstance(known, Tensor) else torch.full((num_items,), known, dtype=torch.float32, device=device)


def _copied_tables(seed: Tensor, sampler: str, num_items: int, parts: int) -> tuple[Tensor, Tensor]:
    """``_tables_of`` the sampler of a text, on the device of ``seed``; copies, whose memory compiled code may use
    again."""
    ends, known = _tables_of(sampler_of(sampler), num_items, seed.device)
    return ends.clone(), _log_weight(known, num_items, seed.device).clone()


def _fake_tables(seed, sampler, num_items, parts):
    return seed.new_empty(parts * num_items, dtype=torch.int32), seed.new_empty(num_items, dtype=torch.float32)


_tables_operator = ops.operator(
    "sampler_tables",
    "(Tensor seed, str sampler, SymInt num_items, int parts) -> (Tensor, Tensor)",
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
        if torch.compiler.is_compiling() or is_transformed() or type(seed) is not Tensor or seed.is_meta:
            ends, log_weight = _tables_operator(seed, sampler.text, num_items, lists.slot_parts)
        else:
            ends, known = _tables_of(sampler, num_items, seed.device)
            log_weight = _log_weight(known, num_items, seed.device)
        slot_ends = ends if lists.slot_parts else None
    return slot_ends, _with_log_q(log_weight, log_q, draw, num_items)


def _with_log_q(log_weight: Tensor | None, log_q: Tensor | None, draw: Draw, num_items: int) -> Tensor | None:
    if log_q is None:
        return log_weight
    known = log_q.detach().float() + math.log(draw.batch_share * num_items)
    return -known if log_weight is None else -torch.logaddexp(-log_weight, known)


def of_shard(log_weight: Tensor | None) -> Tensor:
    """Log weights of a shard's items, (V,) by probabilities in the whole catalog, by those of draws that are its items:
    their mean weight is 1."""
    assert log_weight is not None
    smallest = torch.finfo(torch.float32).tiny  # of a shard without a likely item, which is never drawn from
    return log_weight + torch.exp(-log_weight).mean().clamp(min=smallest).log()


def slot_ends_of(sampler: Negatives, num_items: int, device: torch.device) -> Tensor:
    """Where items' slots end, empty where none are drawn; of the sampler's own tables, which nobody may write to."""
    return _tables_of(sampler, num_items, device)[0]


def _known_of_rows(ids: Tensor, sampler: str, num_items: int) -> Tensor:
    _, known = _tables_of(sampler_of(sampler), num_items, ids.device)
    return known.index_select(0, ids) if isinstance(known, Tensor) else _log_weight(known, len(ids), ids.device)


_known_of_rows_operator = ops.operator(
    "row_log_weights",
    "(Tensor ids, str sampler, SymInt num_items) -> Tensor",
    _known_of_rows,
    lambda ids, sampler, num_items: ids.new_empty(len(ids), dtype=torch.float32),
)


def row_log_weights(
    ids: Tensor, sampler: Negatives, num_items: int, log_q: Tensor | None, whole: bool
) -> tuple[Tensor | None, Tensor | None]:
    """``log_weight`` of a sampler's draws for the rows ``ids`` (T,) of a working set, and where the ``whole`` is asked
    for that of all items (V,); None where there is none."""
    draw = sampler.draw(num_items)
    if sampler.in_batch and log_q is None:
        return None, None  # only a call without correction may do without
    if whole:
        _, every = list_operands(sampler, draw, num_items, ids, log_q)
        return None if every is None else every.index_select(0, ids), every
    has_weights = draw.lists is not None and draw.lists.has_weights
    known = _known_of_rows_operator(ids, sampler.text, num_items) if has_weights else None
    return _with_log_q(known, None if log_q is None else log_q.index_select(0, ids), draw, num_items), None
