"""What the kernels read of a sampler's probabilities: where items' slots end, and log weights; nothing of it is
differentiable."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ...kernels.draws.lists import mixed_samplers, mixture_shares, weighted_samplers
from ...kernels.draws.slots import slot_table
from ...kernels.negatives.samplers import InBatchNegatives, MixedNegatives, WeightedNegatives


@functools.lru_cache(maxsize=16)
def _slot_arrays(sampler: WeightedNegatives, num_items: int) -> tuple[Array, Array]:
    """Where the slots of each item end (V,) int32, and its log weight (V,) fp32; made once for a sampler."""
    with jax.ensure_compile_time_eval():
        ends, log_weight = slot_table(sampler, num_items)
        return jnp.asarray(ends), jnp.asarray(log_weight)


def list_operands(sampler: object, num_items: int, log_q: ArrayLike | None) -> tuple[Array | None, Array | None]:
    """(slot_ends, log_weight) of a call with a sampler or explicit ids, None where there are none; see ``Operands``.

    ``log_q``: of explicit ids, or of rows' targets as negatives.
    """
    slots = [_slot_arrays(each, num_items) for each in weighted_samplers(sampler)]
    given = None if log_q is None else jax.lax.stop_gradient(jnp.asarray(log_q, jnp.float32))
    if not isinstance(sampler, MixedNegatives):
        return slots[0] if slots else (None, None if given is None else -given - math.log(num_items))
    slot_ends = jnp.concatenate([ends for ends, _ in slots]) if slots else None
    remaining = iter(slots)
    parts = []
    for part, share in zip(mixed_samplers(sampler), mixture_shares(sampler, num_items), strict=True):
        # log(share V q) of each item; uniform draws have V q = 1
        if isinstance(part, WeightedNegatives):
            parts.append(math.log(share) - next(remaining)[1])
        elif isinstance(part, InBatchNegatives) and given is not None:
            parts.append(given + math.log(share * num_items))
        else:
            parts.append(jnp.float32(math.log(share)))
    return slot_ends, -jnp.logaddexp(*parts) if slots or log_q is not None else None
