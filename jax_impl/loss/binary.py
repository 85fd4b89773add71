"""Binary cross-entropy with sampled negatives (BCE, BCE+, gBCE) for JAX: the functional API."""

from __future__ import annotations

from jax import Array
from jax.typing import ArrayLike

from ...kernels.negatives.arguments import Options, check_binary_negatives, gbce_positive_weight, own_options
from ...kernels.negatives.history import History
from ...kernels.negatives.samplers import Sampler
from .arguments import num_items_of
from .row_losses import sampled_losses
from .working_set import WorkingSet


def sampled_linear_binary_cross_entropy(
    input: ArrayLike,
    linear_weight: ArrayLike,
    target: ArrayLike,
    negatives: Sampler | WorkingSet | ArrayLike,
    *,
    gbce_t: float | None = None,
    linear_bias: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    logit_scale: ArrayLike = 1.0,
    softcap: float | None = None,
    remove_accidental_hits: bool = True,
    history: History | None = None,
    seed: ArrayLike | None = None,
    impl: str = "auto",
) -> Array:
    """Binary cross-entropy of each row's target against sampled negatives, with the logits never in memory.

    With s_j = softcap tanh(x_j / softcap) (or x_j), x_j = logit_scale e . c_j + bias_j and the m of a row's draws that
    are kept: ``loss = (beta softplus(-s_t) + sum_j softplus(s_j)) / (1 + m)``, softplus(x) = log(1 + exp(x)). One
    negative is the BCE of SASRec (arXiv 1808.09781, which adds the two terms where this halves them), more are BCE+.
    beta = 1, or with ``gbce_t`` that of gBCE (arXiv 2308.07192): ``beta = alpha (t (1 - 1 / alpha) + 1 / alpha)``,
    alpha = K / (V - 1). Nothing is corrected for how negatives were drawn. A row that keeps none has the positive's
    term alone.

    Args:
        negatives: ``UniformNegatives``, ``PopularityNegatives``, ``LogUniformNegatives``, or explicit integer ids as in
            ``sampled_linear_cross_entropy``, or a ``working_set`` of such a sampler. Others raise.
        gbce_t: t in [0, 1], for ``UniformNegatives`` alone: 0 is BCE+, 1 makes the scores' calibration that of the
            softmax.

    The other arguments, dtypes, draws and errors are those of ``sampled_linear_cross_entropy``; there is no lse.
    """
    options = Options(ignore_index, reduction, softcap, remove_accidental_hits, False, impl)
    check_binary_negatives(negatives)
    if isinstance(negatives, WorkingSet):
        options = own_options(negatives, options)
        positive_weight = gbce_positive_weight(gbce_t, negatives.sampler, negatives.num_items)
    else:
        positive_weight = gbce_positive_weight(gbce_t, negatives, num_items_of(linear_weight))
    (loss,) = sampled_losses(
        input, linear_weight, target, negatives, options,
        linear_bias=linear_bias, sample_weight=sample_weight, logit_scale=logit_scale, seed=seed, history=history,
        positive_weight=positive_weight,
    )  # fmt: skip
    return loss
