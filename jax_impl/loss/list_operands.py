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
from .sums import sum_of_rows


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
    log_weight = _with_log_q(tables.log_weight, log_q, batch_share * num_items)
    return tables.slot_ends, None if log_weight is None else jnp.broadcast_to(log_weight, num_items)


def _with_log_q(log_weight: Array | None, log_q: Array | None, factor: float) -> Array | None:
    if log_q is None:
        return log_weight
    known = jax.lax.stop_gradient(log_q.astype(jnp.float32)) + math.log(factor)
    return -known if log_weight is None else -jnp.logaddexp(-log_weight, known)


def of_shard(log_weight: Array | None) -> Array:
    """Log weights of a shard's items, (V,) by probabilities in the whole catalog, by those of draws that are its items:
    their mean weight is 1."""
    assert log_weight is not None
    smallest = jnp.finfo(jnp.float32).tiny  # of a shard without a likely item, which is never drawn from
    return log_weight + jnp.log(jnp.maximum(sum_of_rows(jnp.exp(-log_weight)) / len(log_weight), smallest))


def row_log_weights(
    tables: Tables, ids: Array, sampler: Negatives, num_items: int, log_q: Array | None, whole: bool
) -> tuple[Array | None, Array | None]:
    """``log_weight`` of a sampler's draws for the rows ``ids`` (T,) of a working set, and where the ``whole`` is asked
    for that of all items (V,); None where there is none."""
    if sampler.in_batch and log_q is None:
        return None, None  # only a call without correction may do without
    share = sampler.draw(num_items).batch_share
    if whole:
        _, every = list_operands(tables, share, num_items, log_q)
        return None if every is None else every[ids], every
    known = tables.log_weight
    if known is not None and known.size > 1:
        known = known[ids]
    log_weight = _with_log_q(known, None if log_q is None else log_q[ids], share * num_items)
    return None if log_weight is None else jnp.broadcast_to(log_weight, len(ids)), None
