"""Binary cross-entropy with sampled negatives (BCE, BCE+, gBCE) for PyTorch: the functional API."""

from __future__ import annotations

from torch import Tensor

from ...kernels.negatives.arguments import Options, check_binary_negatives, gbce_positive_weight, own_options
from ...kernels.negatives.history import History
from ...kernels.negatives.samplers import Sampler
from .known_calls import plain_loss
from .row_losses import num_items_of, reduce, row_losses
from .working_set import WorkingSet


def sampled_linear_binary_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    negatives: Sampler | WorkingSet | Tensor,
    *,
    gbce_t: float | None = None,
    linear_bias: Tensor | None = None,
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    logit_scale: float | Tensor = 1.0,
    softcap: float | None = None,
    remove_accidental_hits: bool = True,
    history: History | None = None,
    seed: int | Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
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
    if history is None:
        result = plain_loss(
            input, linear_weight, target, negatives, linear_bias, sample_weight, logit_scale, seed, ignore_index,
            reduction, softcap, remove_accidental_hits, False, impl, True, positive_weight,
        )  # fmt: skip
        if result is not None:
            return result
    row_loss, _, num_counted = row_losses(
        input, linear_weight, target, negatives, options,
        linear_bias=linear_bias, sample_weight=sample_weight, logit_scale=logit_scale, seed=seed, history=history,
        positive_weight=positive_weight,
    )  # fmt: skip
    return reduce(row_loss, num_counted, target, sample_weight, options)
