"""What the kernels read of a sampler's probabilities: where items' slots end, and log weights; nothing of it is
differentiable."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ...kernels.draws.draw import Draw
from ...kernels.negatives.base import Negatives, kept_with_sampler

Tables = tuple[Array | None, Array | None]  # slot_ends and log_weight, see ``Probabilities``


@kept_with_sampler
def _tables_of(sampler: Negatives, num_items: int) -> Tables:
    ends, log_weight = sampler.probabilities(num_items)
    with jax.ensure_compile_time_eval():
        return None if ends is None else jnp.asarray(ends), None if log_weight is None else jnp.asarray(log_weight)


def list_operands(
    sampler: Negatives | None, draw: Draw, num_items: int, log_q: ArrayLike | None
) -> tuple[Array | None, Array | None]:
    """(slot_ends, log_weight) of a call with a sampler or explicit ids, None where there are none; see ``Operands``.

    ``log_q``: of explicit ids, or of rows' targets as negatives.
    """
    slot_ends = log_weight = None
    if sampler is not None and draw.lists is not None and draw.lists.has_weights:
        slot_ends, log_weight = _tables_of(sampler, num_items)
    if log_q is not None:
        known = jax.lax.stop_gradient(jnp.asarray(log_q, jnp.float32)) + math.log(draw.batch_share * num_items)
        log_weight = -known if log_weight is None else -jnp.logaddexp(-log_weight, known)
    return slot_ends, log_weight
