"""What every loss shares at its door: a call's arguments checked, and put where they are computed with."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.sharding import NamedSharding, Sharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.negatives.arguments import Options, Spec, check_arrays, check_history_arrays
from ...kernels.negatives.history import History, check_history
from ...kernels.numbers import as_number
from ...kernels.plan.problem import interprets
from .list_operands import Tables
from .seeds import as_seed
from .working_set import WorkingSet

INT32 = np.iinfo(np.int32)


class Arguments(NamedTuple):
    """A call's arrays as they were given, but 64-bit ones of NumPy as int32."""

    input: Array
    weight: Array
    target: Array
    ids: Array | None
    bias: Array | None
    sample_weight: Array | None
    scale: Array
    seed: Array  # what ``seed_words`` takes
    log_q: Array | None
    history: tuple[Array, Array, Array] | None
    tables: Tables = Tables()  # of a sampler's probabilities
    given: WorkingSet | None = None


def is_array(value: object) -> TypeGuard[Array | np.ndarray]:
    """Whether it is JAX's or NumPy's, so that a scale has a gradient."""
    return isinstance(value, (jax.Array, np.ndarray, np.generic))


def is_known(value: object) -> TypeGuard[Array | np.ndarray]:
    """Whether the value can be read now, without waiting for a GPU."""
    if isinstance(value, Tracer):
        return False
    return not isinstance(value, jax.Array) or (
        value.is_fully_addressable and all(device.platform == "cpu" for device in value.devices())
    )


def _is_bound(value: object) -> TypeGuard[Array]:
    """Whether it is an array that JAX may not move."""
    return isinstance(value, jax.Array) and not isinstance(value, Tracer) and value.committed


def _home(value: object) -> str | None:
    """The devices that an array is bound to; None where JAX may still move it."""
    return " and ".join(sorted(map(str, value.devices()))) if _is_bound(value) else None


def _arrays_of(history: object) -> tuple[Any, ...]:
    """Those of a history; none without one."""
    if history is not None and not isinstance(history, History):
        raise ArgumentTypeError("history", "a History", type(history).__name__)
    return history or ()


def _check(**arrays: Any) -> None:
    """``check_arrays`` on JAX and NumPy arrays, by argument name; of a history on each of its arrays."""
    history = _arrays_of(arrays.pop("history"))
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
    if is_known(target):
        values = np.asarray(target).reshape(-1)
        counted = values != ignore_index
        wrong = values[counted & ((values < 0) | (values >= num_items))]
        if wrong.size:
            raise ArgumentValueError("target", f"ignore_index or an item in [0, {num_items})", int(wrong[0]))
    _check_history(history, counted, num_items)
    if ids is not None and is_known(ids) and (ids.ndim == 1 or counted is not None):
        values = np.asarray(ids)
        values = values if values.ndim == 1 else values.reshape(-1, values.shape[-1])[counted]
        wrong = values[(values < -1) | (values >= num_items)]
        if wrong.size:
            raise ArgumentValueError("negatives", f"-1 or an item in [0, {num_items})", int(wrong[0]))


def _check_history(history: History | None, counted: np.ndarray | None, num_items: int) -> None:
    """Raise where a history that can be read now is none; ``counted`` are the rows that are not ignored, as far as
    they are known."""
    if history is not None and all(map(is_known, history)):
        users, offsets, items = map(np.asarray, history)
        users = users.reshape(-1)
        check_history(users[:0] if counted is None else users[counted], offsets, items, num_items)


def check_own_history(history: object, target: Any, ignore_index: int, num_items: int) -> None:
    """Raise for a working set's history that is none for its targets and ``num_items``."""
    arrays = _arrays_of(history)
    for array in arrays:
        if not is_array(array):
            raise ArgumentTypeError("history", "an array", type(array).__name__)
    if isinstance(history, History):
        check_history_arrays(tuple(Spec(tuple(each.shape), str(each.dtype)) for each in arrays), tuple(target.shape))
        counted = np.asarray(target).reshape(-1) != ignore_index if is_known(target) else None
        _check_history(history, counted, num_items)


def _scale(logit_scale: object) -> Array | np.ndarray:
    if not is_array(logit_scale):
        return np.full(1, as_number("logit_scale", logit_scale), np.float32)
    if logit_scale.size != 1:
        raise ArgumentValueError("logit_scale", "a number or an array of 1 element", tuple(logit_scale.shape))
    if not jnp.issubdtype(logit_scale.dtype, jnp.floating):
        raise ArgumentTypeError("logit_scale", "a floating-point array", str(logit_scale.dtype))
    return logit_scale


def check_impl(impl: str, input: Any) -> None:
    """Raise for kernels on a CPU, as far as the platform is known before lowering."""
    devices = [] if isinstance(input, (np.ndarray, np.generic, Tracer)) else input.devices()
    platform = next((device.platform for device in devices), jax.default_backend())
    if impl == "triton" and platform != "gpu" and not interprets():
        raise ArgumentValueError(
            "impl", f"'auto' or 'reference' for arrays on {platform} (Triton needs CUDA)", "'triton'"
        )


def check_ignore_index(ignore_index: int) -> None:
    if not INT32.min <= ignore_index <= INT32.max:
        raise ArgumentValueError("ignore_index", "an int32", ignore_index)


def as_int32(value: Array | np.ndarray) -> Array | np.ndarray:
    """Integers of any width as int32; what is out of range stays so."""
    if not isinstance(value, jax.Array):
        return np.clip(value, INT32.min, INT32.max).astype(np.int32)
    if value.dtype.itemsize < 8:
        return value.astype(jnp.int32)
    with jax.enable_x64(True):  # an array may have 64 bits whatever the setting is now
        return jax.lax.clamp(jnp.int64(INT32.min), value, jnp.int64(INT32.max)).astype(jnp.int32)


def home_of(tree: Any) -> Sharding | None:
    """Every device that the arrays of ``tree`` are bound to; None where JAX may still move them."""
    bound = next(filter(_is_bound, jax.tree.leaves(tree)), None)
    if bound is None or not isinstance(bound.sharding, NamedSharding):
        return None if bound is None else bound.sharding
    return NamedSharding(bound.sharding.mesh, P())


def placed(tree: Any) -> Any:
    """``tree`` with its NumPy arrays where the others are, which ``jax.jit`` would otherwise do implicitly."""
    sharding = home_of(tree)

    def place(leaf: Any) -> Array:
        if isinstance(leaf, jax.Array):
            return leaf
        return jax.device_put(as_int32(leaf) if leaf.dtype.itemsize == 8 else leaf, sharding)

    return jax.tree.map(place, tree)


def num_items_of(linear_weight: object) -> int:
    """V, or 1 where the table is malformed, which ``checked_arguments`` refuses."""
    return linear_weight.shape[0] if is_array(linear_weight) and linear_weight.ndim == 2 else 1


def checked_arguments(
    input: ArrayLike, linear_weight: ArrayLike, target: ArrayLike, ids: object, options: Options, *,
    linear_bias: ArrayLike | None, sample_weight: ArrayLike | None, logit_scale: ArrayLike, seed: ArrayLike | None,
    draws: bool, log_q: ArrayLike | None = None, history: History | None = None,
) -> Arguments:  # fmt: skip
    """A public loss's arguments, checked; a seed must be given where the call ``draws``."""
    check_ignore_index(options.ignore_index)
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
    check_impl(options.impl, input)
    _check_ranges(target, ids, history, options.ignore_index, num_items_of(linear_weight))
    scale = _scale(logit_scale)
    seed = as_seed(seed) if seed is not None or draws else np.zeros(2, np.uint32)
    given: Any = input, linear_weight, target, ids, linear_bias, sample_weight, scale, seed, log_q
    return Arguments(*given, None if history is None else tuple(history))  # type: ignore[arg-type]
