"""The losses as ``torch.nn.Module``s; those that draw keep their own seed on the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...kernels.errors import ArgumentTypeError
from ...kernels.negatives.arguments import Options, check_binary_negatives, gbce_positive_weight
from ...kernels.negatives.base import Negatives
from ...kernels.negatives.buckets import Buckets
from ...kernels.negatives.history import History
from ...kernels.negatives.samplers import Sampler
from ...kernels.numbers import as_index
from .binary import sampled_linear_binary_cross_entropy
from .cross_entropy import linear_cross_entropy, sampled_linear_cross_entropy
from .row_losses import seed_words
from .scalable import scalable_linear_cross_entropy

SEED_STRIDE = 0x9E3779B97F4A7C15 - 2**64  # odd, so that 2^64 steps pass before a seed returns


def _shown(o: Options) -> str:
    """The options of losses that draw no negatives."""
    return f"ignore_index={o.ignore_index}, reduction={o.reduction!r}, softcap={o.softcap}, impl={o.impl!r}"


class _SeededLoss(nn.Module):
    """Keeps a seed as a buffer that each call advances on the device, so that compiled code and CUDA graphs see new
    draws without recompiling, and a checkpoint resumes them."""

    seed: Tensor

    def __init__(self, options: Options, logit_scale: float, seed: int | None) -> None:
        super().__init__()
        self.options = options
        self.logit_scale = logit_scale
        start = None if seed is None else as_index("seed", seed)
        self.register_buffer("seed", seed_words(start, torch.device("cpu")).view(torch.int64))

    def _next_seed(self) -> Tensor:
        seed = self.seed.clone()
        self.seed.add_(SEED_STRIDE)
        return seed


class _SampledLoss(_SeededLoss):
    def __init__(self, negatives: Sampler, options: Options, logit_scale: float, seed: int | None) -> None:
        super().__init__(options, logit_scale, seed)
        if not isinstance(negatives, Negatives):
            raise ArgumentTypeError("negatives", "a sampler", type(negatives).__name__)
        self.negatives = negatives

    def extra_repr(self) -> str:
        return f"{self.negatives}, {self.options}, logit_scale={self.logit_scale}"


class LinearCrossEntropyLoss(nn.Module):
    """``linear_cross_entropy``, full softmax cross-entropy, with options fixed at construction."""

    def __init__(
        self,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        logit_scale: float = 1.0,
        softcap: float | None = None,
        return_lse: bool = False,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        self.options = Options(ignore_index, reduction, softcap, True, return_lse, impl)
        self.logit_scale = logit_scale

    def forward(
        self,
        input: Tensor,
        linear_weight: Tensor,
        target: Tensor,
        linear_bias: Tensor | None = None,
        sample_weight: Tensor | None = None,
        history: History | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The loss of input (..., D) and target (...) over the items of linear_weight (V, D)."""
        o = self.options
        return linear_cross_entropy(
            input, linear_weight, target, linear_bias=linear_bias, sample_weight=sample_weight,
            ignore_index=o.ignore_index,
            reduction=o.reduction, logit_scale=self.logit_scale, softcap=o.softcap, history=history,
            return_lse=o.return_lse,
            impl=o.impl,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"{_shown(self.options)}, logit_scale={self.logit_scale}"


class SampledLinearCrossEntropyLoss(_SampledLoss):
    """``sampled_linear_cross_entropy`` with options fixed at construction and fresh negatives at every call.

    ``seed`` None starts the draws from torch's default CPU generator. Every data-parallel rank should start from its
    own: ``seed=fold_seed(seed, rank)``. Raises ArgumentTypeError or ArgumentValueError naming the argument.
    """

    def __init__(
        self,
        negatives: Sampler,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        logit_scale: float = 1.0,
        softcap: float | None = None,
        remove_accidental_hits: bool = True,
        seed: int | None = None,
        return_lse: bool = False,
        impl: str = "auto",
        logq_correction: bool = True,
    ) -> None:
        options = Options(ignore_index, reduction, softcap, remove_accidental_hits, return_lse, impl, logq_correction)
        super().__init__(negatives, options, logit_scale, seed)

    def forward(
        self,
        input: Tensor,
        linear_weight: Tensor,
        target: Tensor,
        linear_bias: Tensor | None = None,
        sample_weight: Tensor | None = None,
        log_q: Tensor | None = None,
        history: History | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The loss of input (..., D) and target (...) over the items of linear_weight (V, D)."""
        o = self.options
        return sampled_linear_cross_entropy(
            input, linear_weight, target, self.negatives, linear_bias=linear_bias, sample_weight=sample_weight,
            ignore_index=o.ignore_index, reduction=o.reduction, logit_scale=self.logit_scale, softcap=o.softcap,
            remove_accidental_hits=o.remove_accidental_hits, log_q=log_q, logq_correction=o.logq_correction,
            history=history, seed=self._next_seed(), return_lse=o.return_lse, impl=o.impl,
        )  # fmt: skip


class SampledLinearBinaryCrossEntropyLoss(_SampledLoss):
    """``sampled_linear_binary_cross_entropy`` (BCE, BCE+; gBCE with ``gbce_t``) with options fixed at construction and
    fresh negatives at every call; seeds as in ``SampledLinearCrossEntropyLoss``."""

    def __init__(
        self,
        negatives: Sampler,
        *,
        gbce_t: float | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        logit_scale: float = 1.0,
        softcap: float | None = None,
        remove_accidental_hits: bool = True,
        seed: int | None = None,
        impl: str = "auto",
    ) -> None:
        options = Options(ignore_index, reduction, softcap, remove_accidental_hits, False, impl)
        super().__init__(negatives, options, logit_scale, seed)
        check_binary_negatives(negatives)
        gbce_positive_weight(gbce_t, negatives, 2)
        self.gbce_t = gbce_t

    def forward(
        self,
        input: Tensor,
        linear_weight: Tensor,
        target: Tensor,
        linear_bias: Tensor | None = None,
        sample_weight: Tensor | None = None,
        history: History | None = None,
    ) -> Tensor:
        """The loss of input (..., D) and target (...) over the items of linear_weight (V, D)."""
        o = self.options
        return sampled_linear_binary_cross_entropy(
            input, linear_weight, target, self.negatives, gbce_t=self.gbce_t, linear_bias=linear_bias,
            sample_weight=sample_weight,
            ignore_index=o.ignore_index, reduction=o.reduction, logit_scale=self.logit_scale, softcap=o.softcap,
            remove_accidental_hits=o.remove_accidental_hits, history=history, seed=self._next_seed(), impl=o.impl,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, gbce_t={self.gbce_t}"


class ScalableLinearCrossEntropyLoss(_SeededLoss):
    """``scalable_linear_cross_entropy`` (SCE) with options fixed at construction and fresh buckets at every call; seeds
    as in ``SampledLinearCrossEntropyLoss``."""

    def __init__(
        self,
        *,
        n_buckets: int,
        bucket_size_x: int,
        bucket_size_y: int,
        mix_x: bool = False,
        ignore_index: int = -100,
        reduction: str = "mean",
        logit_scale: float = 1.0,
        softcap: float | None = None,
        seed: int | None = None,
        impl: str = "auto",
    ) -> None:
        super().__init__(Options(ignore_index, reduction, softcap, True, False, impl), logit_scale, seed)
        self.buckets = Buckets(n_buckets, bucket_size_x, bucket_size_y, mix_x)

    def forward(
        self,
        input: Tensor,
        linear_weight: Tensor,
        target: Tensor,
        linear_bias: Tensor | None = None,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of input (..., D) and target (...) over the items of linear_weight (V, D)."""
        o, b = self.options, self.buckets
        return scalable_linear_cross_entropy(
            input, linear_weight, target, n_buckets=b.n_buckets, bucket_size_x=b.bucket_size_x,
            bucket_size_y=b.bucket_size_y,
            mix_x=b.mix_x, linear_bias=linear_bias, sample_weight=sample_weight, ignore_index=o.ignore_index,
            reduction=o.reduction,
            logit_scale=self.logit_scale, softcap=o.softcap, seed=self._next_seed(), impl=o.impl,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"{self.buckets}, {_shown(self.options)}, logit_scale={self.logit_scale}"
