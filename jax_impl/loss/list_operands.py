"""What the kernels read of a sampler's probabilities: where items' slots end, and log weights; nothing of it is
differentiable."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Sharding

from ...kernels.negatives.base import Negatives, kept_with_sampler


class Tables(NamedTuple):
    """A sampler's ``Probabilities`` on a device; of no trace, whatever is traced."""

    slot_ends: Array | None = None
    log_weight: Array | None = None


@kept_with_sampler
def _tables(sampler: Negatives, num_items: int, home: Sharding | None, default: object) -> Tables:
    with jax.ensure_compile_time_eval():
        return Tables(*jax.device_put(tuple(sampler.probabilities(num_items)), home))


def sampler_tables(sampler: Negatives | None, num_items: int, home: Sharding | None) -> Tables:
    """What a sampler's draws need of its probabilities, on ``home``'s devices or the default one; made once."""
    if sampler is None or (lists := sampler.draw(num_items).lists) is None or not lists.has_weights:
        return Tables()
    return _tables(sampler, num_items, home, jax.config.jax_default_device)  # type: ignore[attr-defined]


def list_operands(
    tables: Tables, batch_share: float, num_items: int, log_q: Array | None
) -> tuple[Array | None, Array | None]:
    """(slot_ends, log_weight) of a call with a sampler or explicit ids, None where there are none; see ``Operands``.

    ``log_q``: of explicit ids, or of rows' targets as negatives, which are a ``batch_share`` of them.
    """
    slot_ends, log_weight = tables
    if log_q is not None:
        known = jax.lax.stop_gradient(log_q.astype(jnp.float32)) + math.log(batch_share * num_items)
        log_weight = -known if log_weight is None else -jnp.logaddexp(-log_weight, known)
    elif log_weight is not None:
        log_weight = jnp.broadcast_to(log_weight, num_items)
    return slot_ends, log_weight
