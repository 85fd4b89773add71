"""Cross-entropy with negative sampling (CCE-, arXiv 2509.09682) for JAX: the functional API."""

from __future__ import annotations

from functools import partial
from typing import Literal, overload

from jax import Array
from jax.typing import ArrayLike

from ...kernels.negatives.arguments import Options, check_log_q, own_options
from ...kernels.negatives.history import History
from ...kernels.negatives.samplers import AllItems, Sampler
from .catalog_shard import CatalogShard
from .row_losses import sampled_losses
from .sharded import checked_catalog, sharded_losses
from .working_set import WorkingSet


# The overloads tell type checkers what ``return_lse`` returns.
@overload
def sampled_linear_cross_entropy(
    input: ArrayLike, linear_weight: ArrayLike, target: ArrayLike, negatives: Sampler | WorkingSet | ArrayLike, *,
    linear_bias: ArrayLike | None = None, sample_weight: ArrayLike | None = None, ignore_index: int = -100,
    reduction: str = "mean",
    logit_scale: ArrayLike = 1.0, softcap: float | None = None, remove_accidental_hits: bool = True,
    log_q: ArrayLike | None = None, logq_correction: bool = True, history: History | None = None,
    seed: ArrayLike | None = None, catalog: CatalogShard | None = None,
    return_lse: Literal[False] = False,
    impl: str = "auto",
) -> Array: ...  # fmt: skip
@overload
def sampled_linear_cross_entropy(
    input: ArrayLike, linear_weight: ArrayLike, target: ArrayLike, negatives: Sampler | WorkingSet | ArrayLike, *,
    linear_bias: ArrayLike | None = None, sample_weight: ArrayLike | None = None, ignore_index: int = -100,
    reduction: str = "mean",
    logit_scale: ArrayLike = 1.0, softcap: float | None = None, remove_accidental_hits: bool = True,
    log_q: ArrayLike | None = None, logq_correction: bool = True, history: History | None = None,
    seed: ArrayLike | None = None, catalog: CatalogShard | None = None,
    return_lse: bool, impl: str = "auto",
) -> tuple[Array, Array]: ...  # fmt: skip
def sampled_linear_cross_entropy(
    input: ArrayLike,
    linear_weight: ArrayLike,
    target: ArrayLike,
    negatives: Sampler | WorkingSet | ArrayLike,
    *,
    linear_bias: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    logit_scale: ArrayLike = 1.0,
    softcap: float | None = None,
    remove_accidental_hits: bool = True,
    log_q: ArrayLike | None = None,
    logq_correction: bool = True,
    history: History | None = None,
    seed: ArrayLike | None = None,
    catalog: CatalogShard | None = None,
    return_lse: bool = False,
    impl: str = "auto",
) -> Array | tuple[Array, Array]:
    """Cross-entropy of each row's target against sampled negatives, with the logits never in memory.

    With x_j = logit_scale e . c_j + bias_j, s_j = softcap tanh(x_j / softcap) (or x_j), V items and the m of
    a row's draws that are kept: ``loss = logsumexp(s_t, s_j + log((V - 1) / m), ..) - s_t``. Draws equal to
    the target are dropped unless ``remove_accidental_hits`` is False; a row that keeps none has loss 0.
    Source: arXiv 2509.09682, its eager CE-.

    Negatives that come with known probabilities q (``PopularityNegatives``, ``LogUniformNegatives``, or explicit ids
    with ``log_q``) have s_j + log((1 - q_t) / (m q_j)) instead, which is the same for uniform draws: the sum of their
    exponentials estimates that over all items but the target without bias. The positive is not corrected, as it is not
    drawn (arXiv 2507.09331, whose loss has this gradient).

    Args:
        input: (..., D) hidden states e, float32, bfloat16 or float16.
        linear_weight: (V, D) item table c; its gradient has its dtype and is dense, fp32 inside.
        target: (...) integer items in [0, V), or ``ignore_index``.
        negatives: a sampler, or explicit integer ids (K,) shared by all rows or (..., K) of each row, ignored
            rows included; -1 is an empty slot and repeated ids count as often as they stand. Or a
            ``working_set``: linear_weight and linear_bias are then its rows, target its ``target``, and what it was
            made with is not given again.
        linear_bias: (V,) added to the logits. Minus infinity masks an item out, as one out of stock: a draw of it
            counts in m and weighs nothing. Where none of a row's draws weighs anything its loss is 0, else a target
            masked out has loss +inf, as in optax's losses. +inf and NaN, of the target or a kept draw, make the row
            NaN. A softcap takes minus infinity to -softcap.
        sample_weight: (...) weight w of each row, differentiable.
        ignore_index: target of rows to leave out, an int32; their loss, lse and gradients are 0, and nothing else of
            them is read.
        reduction: "mean" = sum(w loss) / sum(w) over rows not ignored (0 if that is empty), "sum" = sum(w
            loss), "none" = w loss.
        logit_scale: a number, or an array of one element, which gets its gradient.
        softcap: a positive bound on the logits, or None.
        log_q: (V,) log of the probability with which each explicit id is drawn, every draw counted, or of each item to
            be a target where in-batch negatives are (``update_frequencies``); not differentiated.
        logq_correction: False leaves the scores as they are: loss = logsumexp(s_t, s_j, ..) - s_t, as some libraries'
            sampled softmax.
        history: items that are no negatives of a row, such as its user's own: ``History(users, offsets, items)``. They
            leave the correction too: draws then stand for the items outside it. The target may be one of them.
        seed: what the draw follows from: an int, an array of one integer, or of two 32-bit words (high, low),
            or a PRNG key. None raises, as a draw needs one. AllItems and explicit ids draw nothing and need
            none.
        catalog: the table is a ``CatalogShard``, this device's part of one that the devices of a mesh's axis share,
            inside shard_map. The negatives are the sampler's, shards drawing an equal share each (``negative_ids(..,
            num_shards=P)``), and m, V - 1 and 1 - q_t are counted by shard: ``s_j + log(V_r / m_r)`` with V_r the
            shard's items but the target. linear_bias, log_q and the history's offsets and items (``shard_user_items``)
            are the shard's, the seed is the same for all of the axis. Losses and reductions are of the device's rows;
            gradients of the table, bias and logit_scale are those of the sum of all devices' losses.
        return_lse: also return the logsumexp (...) of each row, fp32 and differentiable, unweighted.
        impl: "triton", "reference" (plain JAX, in chunks), or "auto": triton where the call is lowered for
            CUDA.

    Returns:
        The fp32 loss, a scalar or (...) for "none"; with ``return_lse`` a pair of it and the lse.

    Works under jit, grad, scan, remat and shard_map, where each shard draws for its own rows: fold the axis
    index into the seed. ``jax.grad`` inside shard_map returns the gradient of an array that all shards have
    (a table with spec P()) summed over them, or with ``check_vma=False`` each shard's own, to be ``psum``med.
    Without shard_map, XLA gathers sharded arrays for the kernels; the axes of their mesh may be automatic or
    explicit (``jax.make_mesh``'s): losses of rows are then sharded like target. vmap may map input, target,
    negatives and sample_weight; the mapped calls are one call on all their rows, with one draw. JAX's modes
    (x64, promotion, matmul precision, transfer guards, debug_nans) change no result.

    Raises:
        ArgumentTypeError, ArgumentValueError: naming the argument. For arrays in the host's memory and
            outside jit also for a target or id that is no item; elsewhere such a row's loss is NaN.
        NotImplementedError: on second derivatives and forward mode (jvp, jacfwd).
    """
    options = Options(ignore_index, reduction, softcap, remove_accidental_hits, return_lse, impl, logq_correction)
    check_log_q(negatives, log_q, options)
    if isinstance(negatives, WorkingSet):
        options = own_options(negatives, options)
    catalog = checked_catalog(catalog, linear_weight, negatives)
    losses = sampled_losses if catalog is None else partial(sharded_losses, catalog=catalog)
    results = losses(
        input, linear_weight, target, negatives, options,
        linear_bias=linear_bias, sample_weight=sample_weight, logit_scale=logit_scale, seed=seed, log_q=log_q,
        history=history,
    )  # fmt: skip
    return results if return_lse else results[0]  # type: ignore[return-value]


@overload
def linear_cross_entropy(
    input: ArrayLike, linear_weight: ArrayLike, target: ArrayLike, *,
    linear_bias: ArrayLike | None = None, sample_weight: ArrayLike | None = None, ignore_index: int = -100,
    reduction: str = "mean",
    logit_scale: ArrayLike = 1.0, softcap: float | None = None, history: History | None = None,
    catalog: CatalogShard | None = None, return_lse: Literal[False] = False,
    impl: str = "auto",
) -> Array: ...  # fmt: skip
@overload
def linear_cross_entropy(
    input: ArrayLike, linear_weight: ArrayLike, target: ArrayLike, *,
    linear_bias: ArrayLike | None = None, sample_weight: ArrayLike | None = None, ignore_index: int = -100,
    reduction: str = "mean",
    logit_scale: ArrayLike = 1.0, softcap: float | None = None, history: History | None = None,
    catalog: CatalogShard | None = None, return_lse: bool,
    impl: str = "auto",
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
    history: History | None = None,
    catalog: CatalogShard | None = None,
    return_lse: bool = False,
    impl: str = "auto",
) -> Array | tuple[Array, Array]:
    """Full softmax cross-entropy over every item: ``sampled_linear_cross_entropy`` with ``AllItems()``.

    ``loss = logsumexp over all items of s_j - s_t``; arguments, result and errors as there.
    """
    return sampled_linear_cross_entropy(
        input, linear_weight, target, AllItems(), linear_bias=linear_bias, sample_weight=sample_weight,
        ignore_index=ignore_index,
        reduction=reduction, logit_scale=logit_scale, softcap=softcap, history=history, catalog=catalog,
        return_lse=return_lse, impl=impl,
    )  # fmt: skip
