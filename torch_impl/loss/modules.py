"""The losses as ``torch.nn.Module``s; those that draw count their calls on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.negatives.arguments import Options, check_binary_negatives, gbce_positive_weight
from ...kernels.negatives.base import Negatives
from ...kernels.negatives.buckets import Buckets
from ...kernels.negatives.history import History
from ...kernels.negatives.samplers import Sampler
from ...kernels.numbers import as_index
from .binary import sampled_linear_binary_cross_entropy
from .catalog_shard import CatalogShard
from .cross_entropy import linear_cross_entropy, sampled_linear_cross_entropy
from .scalable import scalable_linear_cross_entropy
from .seeds import drawn_start, next_seed, signed


def _shown(o: Options) -> str:
    """The options of losses that draw no negatives."""
    return f"ignore_index={o.ignore_index}, reduction={o.reduction!r}, softcap={o.softcap}, impl={o.impl!r}"


class _SeededLoss(nn.Module):
    """Draws from ``start + progress``: the seed given at construction, or a random one, and a buffer that each call
    moves on by the same amount on the device, so that compiled code and CUDA graphs see new draws without recompiling.

    Only the progress moves between ranks, by DDP's buffer sync or a checkpoint: it is the same everywhere, while ranks
    keep the seeds that they were given. The state dict's ``seed`` holds (start, progress); a module constructed without
    a seed takes the start too, and one of an earlier version holds their sum.
    """

    progress: Tensor

    def __init__(self, options: Options, logit_scale: float, seed: int | None) -> None:
        super().__init__()
        self.options = options
        self.logit_scale = logit_scale
        self._start = drawn_start() if seed is None else signed(as_index("seed", seed))
        self._keeps_start = seed is not None
        with torch.inference_mode(False):
            self.register_buffer("progress", torch.zeros(1, dtype=torch.int64), persistent=False)

    @property
    def seed(self) -> int:
        """What the next call draws from, read from the device."""
        return signed(self._start + int(self.progress))

    def _next_seed(self, input: Tensor) -> Tensor:
        place = self.progress.device
        if isinstance(input, Tensor) and input.device != place:
            expected = f"device {place}, where this {type(self).__name__} is (its .to(device) moves it)"
            raise ArgumentValueError("input", expected, input.device)
        return next_seed(self.progress, self._start)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _SeededLoss:
        had_no_data = self.progress.is_meta
        super()._apply(fn, recurse)
        if had_no_data and not self.progress.is_meta:
            self.progress.zero_()  # to_empty leaves whatever was there
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "seed"] = torch.cat([torch.full_like(self.progress, self._start), self.progress])

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool, missing_keys: list[str],
        unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        saved = state_dict.pop(prefix + "seed", None)  # absent from weights that were saved without the loss
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )  # fmt: skip
        if saved is None or saved.is_meta:
            return
        if saved.dtype != torch.int64 or saved.shape not in ((1,), (2,)):
            error_msgs.append(f"{prefix}seed: expected int64 of shape (2,), got {saved.dtype} {tuple(saved.shape)}")
            return
        start, *progress = saved.tolist()
        if not progress:
            progress = [signed(start - self._start) if self._keeps_start else 0]
        if not self._keeps_start:
            self._start = start
        with torch.no_grad():
            self.progress.fill_(progress[0])


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
        catalog: CatalogShard | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The loss of input (..., D) and target (...) over the items of linear_weight (V, D)."""
        o = self.options
        return linear_cross_entropy(
            input, linear_weight, target, linear_bias=linear_bias, sample_weight=sample_weight,
            ignore_index=o.ignore_index,
            reduction=o.reduction, logit_scale=self.logit_scale, softcap=o.softcap, history=history,
            catalog=catalog, return_lse=o.return_lse, impl=o.impl,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"{_shown(self.options)}, logit_scale={self.logit_scale}"


class SampledLinearCrossEntropyLoss(_SampledLoss):
    """``sampled_linear_cross_entropy`` with options fixed at construction and fresh negatives at every call.

    ``seed`` None starts the draws from torch's default CPU generator. Every data-parallel rank should start from its
    own, ``seed=fold_seed(seed, rank)``, and keeps it: DDP's buffer sync and a state dict move the calls so far only
    (without a ``seed`` a state dict brings its own start). State dicts without ``seed`` leave both as they are.
    Activation checkpointing recomputes with the draws of the first run; it must restore the random state
    (``preserve_rng_state``, its default), or the recomputation raises. Raises ArgumentTypeError or ArgumentValueError
    naming the argument.
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
        catalog: CatalogShard | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The loss of input (..., D) and target (...) over the items of linear_weight (V, D)."""
        o = self.options
        return sampled_linear_cross_entropy(
            input, linear_weight, target, self.negatives, linear_bias=linear_bias, sample_weight=sample_weight,
            ignore_index=o.ignore_index, reduction=o.reduction, logit_scale=self.logit_scale, softcap=o.softcap,
            remove_accidental_hits=o.remove_accidental_hits, log_q=log_q, logq_correction=o.logq_correction,
            history=history, seed=self._next_seed(input), catalog=catalog, return_lse=o.return_lse, impl=o.impl,
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
            remove_accidental_hits=o.remove_accidental_hits, history=history, seed=self._next_seed(input), impl=o.impl,
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
            logit_scale=self.logit_scale, softcap=o.softcap, seed=self._next_seed(input), impl=o.impl,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"{self.buckets}, {_shown(self.options)}, logit_scale={self.logit_scale}"
