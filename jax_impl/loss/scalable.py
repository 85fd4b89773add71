"""Scalable cross-entropy (SCE, arXiv 2409.18721) for JAX: the functional API."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ...interop import as_varying, varying_axes
from ...kernels.negatives.arguments import Options
from ...kernels.negatives.buckets import COUNTS_ALWAYS, Buckets
from ...kernels.plan.problem import Choices
from . import ops
from .arguments import Arguments, checked_arguments, is_array
from .buckets import choose, largest_losses, row_targets
from .operands import Operands
from .row_losses import evaluate, no_rows
from .rows import rows


def scalable_linear_cross_entropy(
    input: ArrayLike,
    linear_weight: ArrayLike,
    target: ArrayLike,
    *,
    n_buckets: int,
    bucket_size_x: int,
    bucket_size_y: int,
    mix_x: bool = False,
    linear_bias: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    logit_scale: ArrayLike = 1.0,
    softcap: float | None = None,
    seed: ArrayLike | None = None,
    impl: str = "auto",
) -> Array:
    """Cross-entropy of rows against the items that random projections put into their buckets: hard negatives, without
    all logits.

    With centres b ~ Normal(0, 1) / D^(1/4) (n_buckets, D), or ``mix_x`` b = Omega^T E of such Omega (N, n_buckets),
    bucket b holds the ``bucket_size_x`` rows of the largest b . e and the ``bucket_size_y`` items of the largest b . c.
    With x_j = logit_scale e . c_j + bias_j, s_j = softcap tanh(x_j / softcap) (or x_j), a row of a bucket has there
    ``loss = log(exp(s_t) + sum of exp(s_j) over the bucket's items but t) - s_t``, and its loss is the largest one of
    its buckets, to which the gradient goes (in equal parts where several are equal). A row in no bucket has loss 0.
    Source: arXiv 2409.18721, its code.

    Args:
        n_buckets, bucket_size_x, bucket_size_y: ints, at least 1; of buckets larger than N or V, all rows or items are
            taken. The paper's code has 882, 882 and 256 for batches of 2048 sequences of 200.
        mix_x: centres are mixtures of the rows that are not ignored, which spreads rows of unlike buckets more evenly.
        reduction: "mean" = sum(w loss) / sum(w) over the rows that are in a bucket (0 if there is none); the paper's
            code leaves out rows of loss 0 instead, which is the same up to underflow. "sum" = sum(w loss), "none" = w
            loss.
        seed: what the centres follow from, as draws in ``sampled_linear_cross_entropy``; the same normals in PyTorch
            and JAX.

    The other arguments, dtypes and errors are those of ``sampled_linear_cross_entropy``. Bias, scale and softcap take
    no part in choosing buckets, through which no gradient flows either. Projections are products in input's dtype,
    added in fp32 (fp32 inputs are not rounded to TF32); centres are scaled to a largest entry of 1 before they are
    rounded to it. Under vmap, which may map the seed too, each mapped call has buckets of its own.

    Memory beside inputs and gradients, with the kernels: fp32 projections (n_buckets, V) of up to 32768 items; of more
    items the largest of each block of 16 (n_buckets, V / 16), of up to 128 where these would be more than 2^26, and
    those of the blocks that hold the nearest (n_buckets, 16 bucket_size_y). Otherwise, and where buckets hold so many
    items that blocks would save little, up to 2^26 projections at a time, as many numbers of the vectors cast for them.
    The same for rows. The buckets' rows (n_buckets bucket_size_x, D), padded to 16, 32 or a multiple of 64 rows a
    bucket.
    """
    options = Options(ignore_index, reduction, softcap, True, False, impl)
    buckets = Buckets(n_buckets, bucket_size_x, bucket_size_y, mix_x)
    arguments = checked_arguments(
        input, linear_weight, target, None, options,
        linear_bias=linear_bias, sample_weight=sample_weight, logit_scale=logit_scale, seed=seed, draws=True,
    )  # fmt: skip
    (loss,) = evaluate(_row_losses, arguments, Scalable(options, buckets, is_array(logit_scale)))
    return loss


@dataclass(frozen=True)
class Scalable:
    """What is static in a call."""

    options: Options
    buckets: Buckets
    scale_grad: bool


def _row_losses(x: Operands, arguments: Arguments, static: Scalable) -> tuple[Array, None, Array]:
    """The loss (N,) of each row, and whether it is in a bucket: the others are as good as ignored."""
    num_rows, options = len(x.input), static.options
    if num_rows == 0:
        return no_rows(x), None, jnp.zeros(0, bool)
    buckets = static.buckets.fitted(num_rows, len(x.weight))
    target = row_targets(x.target, len(x.weight), options.ignore_index)
    counted = x.target != options.ignore_index
    hidden = jnp.where(counted[:, None], x.input, jnp.zeros((), x.input.dtype))  # whatever ignored rows hold
    chosen, ids = choose(hidden, x.weight, counted, x.seed, buckets, options.impl)
    # padded by rows that come again; these and ignored ones are computed, so that groups are whole, and not used
    place = np.arange(buckets.group_size)
    flat = chosen[:, place % buckets.bucket_size_x]
    used = (counted[flat] & (place < buckets.bucket_size_x)).reshape(-1)
    flat = flat.reshape(-1)
    x = x._replace(input=hidden[flat], target=target[flat], ids=ids, seed=jnp.zeros(2, jnp.int32))
    choices = Choices(
        softcap=options.softcap,
        remove_accidental_hits=True,
        ignore_index=COUNTS_ALWAYS,
        scale_grad=static.scale_grad,
        positive_weight=None,
        correction="none",
        is_shard=False,
    )
    each = ops.Options(None, choices, options.impl, ids_group=buckets.group_size)
    loss, _ = rows(as_varying(x, varying_axes(x)), each)
    loss, in_bucket = largest_losses(loss, flat, used, num_rows)
    return loss, None, in_bucket & counted
