"""What every loss on sampled items shares: a call's arguments checked, its flat rows computed, weighed and reduced."""

from __future__ import annotations

from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from ...interop import as_varying, varying_axes
from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.negatives.arguments import Options, Spec, as_number, check_arrays, correction_of, draws_at_random
from ...kernels.negatives.history import History, check_history
from ...kernels.negatives.samplers import SAMPLERS, InBatchNegatives, Sampler
from ...kernels.plan.problem import interprets
from . import ops
from .list_operands import list_operands
from .operands import Operands
from .rows import rows
from .seeds import seed_words

INT32 = jnp.iinfo(jnp.int32)


def is_array(value: object) -> TypeGuard[Array | np.ndarray]:
    """Whether it is JAX's or NumPy's, so that a scale has a gradient."""
    return isinstance(value, (jax.Array, np.ndarray, np.generic))


def _is_known(value: object) -> TypeGuard[Array | np.ndarray]:
    """Whether the value can be read now, without waiting for a GPU."""
    if isinstance(value, Tracer):
        return False
    return not isinstance(value, jax.Array) or (
        value.is_fully_addressable and all(device.platform == "cpu" for device in value.devices())
    )


def _home(value: object) -> str | None:
    """The devices that an array is bound to; None where JAX may still move it."""
    if not isinstance(value, jax.Array) or isinstance(value, Tracer) or not value.committed:
        return None
    return " and ".join(sorted(map(str, value.devices())))


def _check(**arrays: Any) -> None:
    """``check_arrays`` on JAX and NumPy arrays, by argument name; of a history on each of its arrays."""
    history = arrays.pop("history")
    if history is not None and not isinstance(history, History):
        raise ArgumentTypeError("history", "a History", type(history).__name__)
    history = history or ()
    for argument, value in (*arrays.items(), *(("history", array) for array in history)):
        if value is not None and not is_array(value):
            raise ArgumentTypeError(argument, "an array", type(value).__name__)
    homes = [_home(value) for value in (*arrays.values(), *history)]
    shared = next((home for home in homes if home is not None), None)

    def spec(value: Any) -> Spec | None:
        return None if value is None else Spec(tuple(value.shape), str(value.dtype), _home(value) or shared)

    specs = {argument: spec(value) for argument, value in arrays.items()}
    check_arrays(**specs, history=tuple(map(spec, history)) or None)  # type: ignore[arg-type]


def _check_ranges(target: Any, ids: Any, history: History | None, ignore_index: int, num_items: int) -> None:
    """Raise where a target, an id or a history that can be read now is none; those of ignored rows may be anything."""
    counted = None  # rows, as far as they are known
    if _is_known(target):
        values = np.asarray(target).reshape(-1)
        counted = values != ignore_index
        wrong = values[counted & ((values < 0) | (values >= num_items))]
        if wrong.size:
            raise ArgumentValueError("target", f"ignore_index or an item in [0, {num_items})", int(wrong[0]))
    if history is not None and all(map(_is_known, history)):
        users, offsets, items = map(np.asarray, history)
        users = users.reshape(-1)
        check_history(users[:0] if counted is None else users[counted], offsets, items, num_items)
    if ids is not None and _is_known(ids) and (ids.ndim == 1 or counted is not None):
        values = np.asarray(ids)
        values = values if values.ndim == 1 else values.reshape(-1, values.shape[-1])[counted]
        wrong = values[(values < -1) | (values >= num_items)]
        if wrong.size:
            raise ArgumentValueError("negatives", f"-1 or an item in [0, {num_items})", int(wrong[0]))


def _scale(logit_scale: object) -> Array:
    if not is_array(logit_scale):
        return jnp.full(1, as_number("logit_scale", logit_scale), jnp.float32)
    if logit_scale.size != 1:
        raise ArgumentValueError("logit_scale", "a number or an array of 1 element", tuple(logit_scale.shape))
    if not jnp.issubdtype(logit_scale.dtype, jnp.floating):
        raise ArgumentTypeError("logit_scale", "a floating-point array", str(logit_scale.dtype))
    return jnp.asarray(logit_scale, jnp.float32).reshape(1)


def _check_impl(impl: str, input: Any) -> None:
    """Raise for kernels on a CPU, as far as the platform is known before lowering."""
    devices = [] if isinstance(input, (np.ndarray, np.generic, Tracer)) else input.devices()
    platform = next((device.platform for device in devices), jax.default_backend())
    if impl == "triton" and platform != "gpu" and not interprets():
        raise ArgumentValueError(
            "impl", f"'auto' or 'reference' for arrays on {platform} (Triton needs CUDA)", "'triton'"
        )


def _as_int32(value: Array | np.ndarray) -> Array:
    if value.dtype.itemsize == 8:
        value = value.clip(INT32.min, INT32.max)  # what is out of range stays so
    return jnp.asarray(value, jnp.int32)


def reduce(row_values: Array, target: ArrayLike, sample_weight: ArrayLike | None, options: Options) -> Array:
    """Weights and reduction over the rows that are not ignored; ignored rows hold zeros."""
    counted = _as_int32(target) != options.ignore_index  # type: ignore[arg-type]
    weights = counted.astype(jnp.float32)
    if sample_weight is not None:
        weights = jnp.where(counted, jnp.asarray(sample_weight, jnp.float32), 0.0)
        # an ignored row's zero must stay one whatever its weight
        row_values = jnp.where(counted, row_values * weights, 0.0)
    if options.reduction == "none":
        return row_values
    total = row_values.sum()
    if options.reduction == "sum":
        return total
    mass = weights.sum()
    return jnp.where(mass == 0, total * 0.0, total / jnp.where(mass == 0, 1.0, mass))


def num_items_of(linear_weight: object) -> int:
    """V, or 1 where the table is malformed, which ``row_losses`` refuses."""
    return linear_weight.shape[0] if is_array(linear_weight) and linear_weight.ndim == 2 else 1


def checked_operands(
    input: ArrayLike, linear_weight: ArrayLike, target: ArrayLike, ids: object, options: Options, *,
    linear_bias: ArrayLike | None, sample_weight: ArrayLike | None, logit_scale: ArrayLike, seed: ArrayLike | None,
    draws: bool,
    log_q: ArrayLike | None = None, history: History | None = None,
) -> Operands:  # fmt: skip
    """A public loss's arguments, checked, as flat rows without their candidates; a seed must be given where the call
    ``draws``."""
    if not INT32.min <= options.ignore_index <= INT32.max:
        raise ArgumentValueError("ignore_index", "an int32", options.ignore_index)
    _check(
        input=input,
        linear_weight=linear_weight,
        target=target,
        ids=ids,
        linear_bias=linear_bias,
        sample_weight=sample_weight,
        log_q=log_q,
        history=history,
    )
    assert is_array(input)
    assert is_array(linear_weight)
    assert is_array(target)
    _check_impl(options.impl, input)
    num_items, dim = linear_weight.shape
    _check_ranges(target, ids, history, options.ignore_index, num_items)
    return Operands(
        input=jnp.asarray(input).reshape(-1, dim),
        weight=jnp.asarray(linear_weight),
        bias=None if linear_bias is None else jnp.asarray(linear_bias),
        scale=_scale(logit_scale),
        target=_as_int32(target).reshape(-1),
        ids=None,
        seed=seed_words(seed) if seed is not None or draws else jnp.zeros(2, jnp.int32),
    )


def no_rows(x: Operands) -> Array:
    """The losses (0,) of an empty batch."""
    return x.target.astype(jnp.float32)


def row_losses(
    input: ArrayLike, linear_weight: ArrayLike, target: ArrayLike, negatives: Sampler | ArrayLike, options: Options, *,
    linear_bias: ArrayLike | None, sample_weight: ArrayLike | None, logit_scale: ArrayLike, seed: ArrayLike | None,
    log_q: ArrayLike | None = None, history: History | None = None, positive_weight: float | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """The loss and lse (...) of each row, fp32; by a public loss's arguments.

    ``positive_weight``: of the positive's term in binary cross-entropy, which has no lse; None for the softmax.
    """
    sampler = ids = None
    if isinstance(negatives, SAMPLERS):
        sampler = negatives
    elif is_array(negatives):
        ids = negatives
    else:
        raise ArgumentTypeError("negatives", "a sampler or an integer array", type(negatives).__name__)
    num_items = num_items_of(linear_weight)
    x = checked_operands(
        input, linear_weight, target, ids, options, linear_bias=linear_bias, sample_weight=sample_weight,
        logit_scale=logit_scale,
        seed=seed, draws=draws_at_random(negatives, num_items), log_q=log_q, history=history,
    )  # fmt: skip
    if isinstance(sampler, InBatchNegatives) and sampler.group_size is None:
        is_item = (x.target != options.ignore_index) & (x.target >= 0) & (x.target < num_items)
        ids = jnp.where(is_item, x.target, -1)
    elif ids is not None:
        ids = _as_int32(ids if ids.ndim == 1 else ids.reshape(-1, ids.shape[-1]))
    slot_ends, log_weight = list_operands(sampler, num_items, log_q)
    correction = correction_of(negatives, log_weight, options, positive_weight)
    x = x._replace(ids=ids, log_weight=log_weight if correction == "weighted" else None, slot_ends=slot_ends)
    if history is not None:
        users, offsets, items = map(_as_int32, history)
        x = x._replace(users=users.reshape(-1), history_offsets=offsets, history_items=items)
    x = as_varying(x, varying_axes(x))
    shape = np.shape(target)  # type: ignore[arg-type]
    if x.target.size == 0:
        row_loss = row_lse = no_rows(x).reshape(shape)
    else:
        static = ops.Options(
            sampler,
            options.softcap,
            options.remove_accidental_hits,
            options.ignore_index,
            is_array(logit_scale),
            positive_weight,
            correction,
            options.impl,
        )
        row_loss, row_lse = (values.reshape(shape) for values in rows(x, static))
    return row_loss, row_lse
