"""Cross-entropy with negative sampling (CCE-, arXiv 2509.09682) for JAX: the functional API."""

from __future__ import annotations

from typing import Any, Literal, TypeGuard, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from ..interop import as_varying, varying_axes
from ..kernels.arguments import Options, Spec, as_number, check_arrays, draws_at_random
from ..kernels.errors import ArgumentTypeError, ArgumentValueError
from ..kernels.problem import interprets
from ..kernels.samplers import AllItems, Sampler, UniformNegatives
from . import ops
from .operands import Operands
from .rows import rows
from .seeds import seed_words

INT32 = jnp.iinfo(jnp.int32)


def _is_array(value: object) -> TypeGuard[Array | np.ndarray]:
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
    """``check_arrays`` on JAX and NumPy arrays, by argument name."""
    for argument, value in arrays.items():
        if value is not None and not _is_array(value):
            raise ArgumentTypeError(argument, "an array", type(value).__name__)
    homes = {argument: _home(value) for argument, value in arrays.items()}
    shared = homes["input"] or next((home for home in homes.values() if home is not None), None)
    specs = {
        argument: None if value is None else Spec(tuple(value.shape), str(value.dtype), homes[argument] or shared)
        for argument, value in arrays.items()
    }
    check_arrays(**specs)  # type: ignore[arg-type]


def _check_ranges(target: Any, ids: Any, ignore_index: int, num_items: int) -> None:
    """Raise where a target or an id that can be read now is no item."""
    if _is_known(target):
        values = np.asarray(target).reshape(-1)
        wrong = values[(values != ignore_index) & ((values < 0) | (values >= num_items))]
        if wrong.size:
            raise ArgumentValueError("target", f"ignore_index or an item in [0, {num_items})", int(wrong[0]))
    if ids is not None and _is_known(ids):
        values = np.asarray(ids).reshape(-1)
        wrong = values[(values < -1) | (values >= num_items)]
        if wrong.size:
            raise ArgumentValueError("negatives", f"-1 or an item in [0, {num_items})", int(wrong[0]))


def _scale(logit_scale: object) -> Array:
    if not _is_array(logit_scale):
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
        raise ArgumentValueError("impl", f"'auto' or 'reference' for arrays on {platform} (Triton needs CUDA)", "'triton'")


def _as_int32(value: Array | np.ndarray) -> Array:
    if value.dtype.itemsize == 8:
        value = value.clip(INT32.min, INT32.max)  # what is out of range stays so
    return jnp.asarray(value, jnp.int32)


def _weigh(row_values: Array, target: Array, sample_weight: ArrayLike | None, options: Options) -> Array:
    """Weights and reduction over the rows that are not ignored; ignored rows hold zeros."""
    counted = target != options.ignore_index
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


# The overloads tell type checkers what ``return_lse`` returns.
@overload
def sampled_linear_cross_entropy(
    input: ArrayLike, linear_weight: ArrayLike, target: ArrayLike, negatives: Sampler | ArrayLike, *,
    linear_bias: ArrayLike | None = None, sample_weight: ArrayLike | None = None, ignore_index: int = -100, reduction: str = "mean",
    logit_scale: ArrayLike = 1.0, softcap: float | None = None, remove_accidental_hits: bool = True, seed: ArrayLike | None = None,
    return_lse: Literal[False] = False, impl: str = "auto",
) -> Array: ...  # fmt: skip
@overload
def sampled_linear_cross_entropy(
    input: ArrayLike, linear_weight: ArrayLike, target: ArrayLike, negatives: Sampler | ArrayLike, *,
    linear_bias: ArrayLike | None = None, sample_weight: ArrayLike | None = None, ignore_index: int = -100, reduction: str = "mean",
    logit_scale: ArrayLike = 1.0, softcap: float | None = None, remove_accidental_hits: bool = True, seed: ArrayLike | None = None,
    return_lse: bool, impl: str = "auto",
) -> tuple[Array, Array]: ...  # fmt: skip
def sampled_linear_cross_entropy(
    input: ArrayLike,
    linear_weight: ArrayLike,
    target: ArrayLike,
    negatives: Sampler | ArrayLike,
    *,
    linear_bias: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    logit_scale: ArrayLike = 1.0,
    softcap: float | None = None,
    remove_accidental_hits: bool = True,
    seed: ArrayLike | None = None,
    return_lse: bool = False,
    impl: str = "auto",
) -> Array | tuple[Array, Array]:
    """Cross-entropy of each row's target against sampled negatives, with the logits never in memory.

    With x_j = logit_scale e . c_j + bias_j, s_j = softcap tanh(x_j / softcap) (or x_j), V items and the m of
    a row's draws that are kept: ``loss = logsumexp(s_t, s_j + log((V - 1) / m), ..) - s_t``. Draws equal to
    the target are dropped unless ``remove_accidental_hits`` is False; a row that keeps none has loss 0.
    Source: arXiv 2509.09682, its eager CE-.

    Args:
        input: (..., D) hidden states e, float32, bfloat16 or float16.
        linear_weight: (V, D) item table c; its gradient has its dtype and is dense, fp32 inside.
        target: (...) integer items in [0, V), or ``ignore_index``.
        negatives: a sampler, or explicit integer ids (K,) shared by all rows or (..., K) of each row, ignored
            rows included; -1 is an empty slot and repeated ids count as often as they stand.
        linear_bias: (V,) added to the logits.
        sample_weight: (...) weight w of each row, differentiable.
        ignore_index: target of rows to leave out, an int32; their loss, lse and gradients are 0.
        reduction: "mean" = sum(w loss) / sum(w) over rows not ignored (0 if that is empty), "sum" = sum(w
            loss), "none" = w loss.
        logit_scale: a number, or an array of one element, which gets its gradient.
        softcap: a positive bound on the logits, or None.
        seed: what the draw follows from: an int, an array of one integer, or of two 32-bit words (high, low),
            or a PRNG key. None raises, as a draw needs one. AllItems and explicit ids draw nothing and need
            none.
        return_lse: also return the logsumexp (...) of each row, fp32 and differentiable, unweighted.
        impl: "triton", "reference" (plain JAX, in chunks), or "auto": triton where the call is lowered for
            CUDA.

    Returns:
        The fp32 loss, a scalar or (...) for "none"; with ``return_lse`` a pair of it and the lse.

    Works under jit, grad, scan, remat and shard_map, where each shard draws for its own rows: fold the axis
    index into the seed. Without shard_map, XLA gathers sharded arrays for the kernels. vmap may map input,
    target, negatives and sample_weight; the mapped calls are one call on all their rows, with one draw.

    Raises:
        ArgumentTypeError, ArgumentValueError: naming the argument. For arrays in the host's memory and
        outside jit also for a target or id that is no item; elsewhere such a row's loss is NaN.
        NotImplementedError: on second derivatives.
    """
    options = Options(ignore_index, reduction, softcap, remove_accidental_hits, return_lse, impl)
    if not INT32.min <= ignore_index <= INT32.max:
        raise ArgumentValueError("ignore_index", "an int32", ignore_index)
    sampler = ids = None
    if isinstance(negatives, (UniformNegatives, AllItems)):
        sampler = negatives
    elif _is_array(negatives):
        ids = negatives
    else:
        raise ArgumentTypeError("negatives", "UniformNegatives, AllItems or an integer array", type(negatives).__name__)
    _check(
        input=input,
        linear_weight=linear_weight,
        target=target,
        ids=ids,
        linear_bias=linear_bias,
        sample_weight=sample_weight,
    )
    assert _is_array(input)
    assert _is_array(linear_weight)
    assert _is_array(target)
    _check_impl(impl, input)
    num_items, dim = linear_weight.shape
    _check_ranges(target, ids, ignore_index, num_items)
    scale = _scale(logit_scale)
    draws = seed is not None or draws_at_random(negatives, num_items)
    x = Operands(
        input=jnp.asarray(input).reshape(-1, dim),
        weight=jnp.asarray(linear_weight),
        bias=None if linear_bias is None else jnp.asarray(linear_bias),
        scale=scale,
        target=_as_int32(target).reshape(-1),
        ids=None if ids is None else _as_int32(ids if ids.ndim == 1 else ids.reshape(-1, ids.shape[-1])),
        seed=seed_words(seed) if draws else jnp.zeros(2, jnp.int32),
    )
    x = as_varying(x, varying_axes(x))
    if target.size == 0:
        row_loss = row_lse = x.target.astype(jnp.float32).reshape(target.shape)
    else:
        static = ops.Options(
            sampler,
            options.softcap,
            remove_accidental_hits,
            ignore_index,
            _is_array(logit_scale),
            impl,
        )
        row_loss, row_lse = (values.reshape(target.shape) for values in rows(x, static))
    loss = _weigh(row_loss, x.target.reshape(target.shape), sample_weight, options)
    return (loss, row_lse) if return_lse else loss


@overload
def linear_cross_entropy(
    input: ArrayLike, linear_weight: ArrayLike, target: ArrayLike, *,
    linear_bias: ArrayLike | None = None, sample_weight: ArrayLike | None = None, ignore_index: int = -100, reduction: str = "mean",
    logit_scale: ArrayLike = 1.0, softcap: float | None = None, return_lse: Literal[False] = False, impl: str = "auto",
) -> Array: ...  # fmt: skip
@overload
def linear_cross_entropy(
    input: ArrayLike, linear_weight: ArrayLike, target: ArrayLike, *,
    linear_bias: ArrayLike | None = None, sample_weight: ArrayLike | None = None, ignore_index: int = -100, reduction: str = "mean",
    logit_scale: ArrayLike = 1.0, softcap: float | None = None, return_lse: bool, impl: str = "auto",
) -> tuple[Array, Array]: ...  # fmt: skip
def linear_cross_entropy(
    input: ArrayLike,
    linear_weight: ArrayLike,
    target: ArrayLike,
    *,
    linear_bias: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    logit_scale: ArrayLike = 1.0,
    softcap: float | None = None,
    return_lse: bool = False,
    impl: str = "auto",
) -> Array | tuple[Array, Array]:
    """Full softmax cross-entropy over every item: ``sampled_linear_cross_entropy`` with ``AllItems()``.

    ``loss = logsumexp over all items of s_j - s_t``; arguments, result and errors as there.
    """
    return sampled_linear_cross_entropy(
        input, linear_weight, target, AllItems(), linear_bias=linear_bias, sample_weight=sample_weight, ignore_index=ignore_index,
        reduction=reduction, logit_scale=logit_scale, softcap=softcap, return_lse=return_lse, impl=impl,
    )  # fmt: skip
