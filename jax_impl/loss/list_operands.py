"""What the kernels read of a sampler's probabilities: where items' slots end, and log weights; nothing of it is
differentiable."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Sharding

from ...kernels.draws.lists import mixed_samplers, mixture_shares
from ...kernels.draws.slots import slot_table
from ...kernels.negatives.samplers import InBatchNegatives, MixedNegatives, WeightedNegatives


class Part(NamedTuple):
    """Draws of a list: whether their probabilities are the sampler's own or those of targets, and their share."""

    weighted: bool
    targets: bool
    share: float = 1.0


class PlacedArrays:
    """Arrays on the device by the sampler that they are of, as long as it lives; of no trace, whatever is traced."""

    def __init__(self) -> None:
        self._of_samplers: WeakKeyDictionary[Any, dict[Hashable, Any]] = WeakKeyDictionary()

    def get(self, sampler: object, num_items: int, home: Sharding | None, make: Callable[[], Any]) -> Any:
        """What ``make`` makes of NumPy arrays, put on ``home``'s devices or the default one; made once."""
        place = num_items, home or jax.config.jax_default_device
        of_sampler = self._of_samplers.setdefault(sampler, {})
        if place not in of_sampler:
            with jax.ensure_compile_time_eval():
                of_sampler[place] = jax.device_put(make(), home)
        return of_sampler[place]


_slots = PlacedArrays()


def parts_of(sampler: object, num_items: int) -> tuple[Part, ...]:
    """The parts of a sampler's draws; of explicit ids those of which ``log_q`` tells."""
    shares = mixture_shares(sampler, num_items) if isinstance(sampler, MixedNegatives) else (1.0,)
    return tuple(
        Part(isinstance(each, WeightedNegatives), each is None or isinstance(each, InBatchNegatives), share)
        for each, share in zip(mixed_samplers(sampler), shares, strict=True)
    )


def slot_arrays(sampler: object, num_items: int, home: Sharding | None) -> tuple[tuple[Array, Array], ...]:
    """Where the slots of each item end (V,) int32, and its log weight (V,) fp32, of each weighted part; on ``home``'s
    devices."""
    weighted = [each for each in mixed_samplers(sampler) if isinstance(each, WeightedNegatives)]
    return tuple(
        _slots.get(each, num_items, home, lambda each=each: tuple(slot_table(each, num_items))) for each in weighted
    )


def list_operands(
    parts: tuple[Part, ...], num_items: int, log_q: Array | None, slots: tuple[tuple[Array, Array], ...]
) -> tuple[Array | None, Array | None]:
    """(slot_ends, log_weight) of a call with a sampler or explicit ids, None where there are none; see ``Operands``.

    ``log_q``: of explicit ids, or of rows' targets as negatives.
    """
    if not slots and log_q is None:
        return None, None
    remaining = iter(slots)
    logs = []
    for part in parts:  # log(share V q) of each item; uniform draws have V q = 1
        if part.weighted:
            logs.append(math.log(part.share) - next(remaining)[1])
        elif part.targets and log_q is not None:
            given = jax.lax.stop_gradient(log_q.astype(jnp.float32))
            logs.append(given + math.log(part.share * num_items))
        else:
            logs.append(jnp.float32(math.log(part.share)))
    log_weight = -(jnp.logaddexp(*logs) if len(logs) > 1 else logs[0])
    return jnp.concatenate([ends for ends, _ in slots]) if slots else None, log_weight
