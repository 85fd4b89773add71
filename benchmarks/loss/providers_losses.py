"""The project's losses and samplers beside uniform grouped CCE-, in both frameworks; the two APIs take the same
arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from cce_minus import jax_impl, torch_impl
from cce_minus.kernels import (
    HardNegatives,
    History,
    InBatchNegatives,
    LogUniformNegatives,
    MixedNegatives,
    PopularityNegatives,
    UniformNegatives,
    user_items,
)
from cce_minus.kernels.negatives.samplers import Sampler

from .provider import JAX, UNIFORM, Loss, Provider
from .shapes import GROUP, Shape

USERS, KNOWN_ITEMS = 4096, 100  # of histories
POOL = 4  # items of a hard negatives' pool for each that is taken
GBCE_T = 0.75
BUCKET_ITEMS = 256

Make = Callable[[int, int], Sampler]  # of the number of items and of negatives
Call = Callable[..., Any]  # (framework's module, hidden, table, target, negatives, **options)
Arrays = Callable[[Shape], dict[str, Any]]


@functools.cache
def popularity_counts(num_items: int) -> np.ndarray:
    """Counts (V,) that fall as 1 / rank, the least popular item with one; popularity says nothing about the id."""
    return np.random.default_rng(0).permutation(num_items // np.arange(1, num_items + 1))


@functools.cache  # one sampler for all steps, as samplers ask for
def _popularity(num_items: int, negatives: int) -> Sampler:
    return PopularityNegatives(popularity_counts(num_items), negatives, alpha=0.75)


@functools.cache
def _log_uniform(num_items: int, negatives: int) -> Sampler:
    return LogUniformNegatives(negatives)


def _mixed(num_items: int, negatives: int) -> Sampler:
    """As many negatives in all: the group's rows are part of them."""
    return MixedNegatives(UniformNegatives(negatives - GROUP), InBatchNegatives(GROUP))


def _frequencies(shape: Shape) -> dict[str, Any]:
    counts = popularity_counts(shape.items)
    return {"log_q": np.log(counts / counts.sum()).astype(np.float32)}


def _history(shape: Shape) -> dict[str, Any]:
    """Rows of one user stand together, as the positions of a sequence do."""
    known = np.random.default_rng(0).integers(0, shape.items, USERS * KNOWN_ITEMS)
    users = (np.arange(shape.rows) * USERS // shape.rows).astype(np.int32)
    return {"history": History(users, *user_items(np.repeat(np.arange(USERS), KNOWN_ITEMS), known, USERS))}


def bucket_sizes(rows: int) -> dict[str, int]:
    """SCE's buckets of a batch: 2 sqrt(N) of as many rows."""
    size = int(2 * rows**0.5)
    return {"n_buckets": size, "bucket_size_x": size, "bucket_size_y": BUCKET_ITEMS}


def bucket_candidates(shape: Shape) -> int:
    """Items that a row meets in its buckets, on average."""
    n_buckets, size_x, size_y = bucket_sizes(shape.rows).values()
    return n_buckets * size_x * size_y // shape.rows


def _softmax(make: Make) -> Call:
    def call(api: Any, hidden: Any, table: Any, target: Any, negatives: int, **options: Any) -> Any:
        return api.sampled_linear_cross_entropy(hidden, table, target, make(len(table), negatives), **options)

    return call


def _binary(make: Make, gbce_t: float | None = None) -> Call:
    def call(api: Any, hidden: Any, table: Any, target: Any, negatives: int, **options: Any) -> Any:
        sampler = make(len(table), negatives)
        return api.sampled_linear_binary_cross_entropy(hidden, table, target, sampler, gbce_t=gbce_t, **options)

    return call


def _scalable(mix_x: bool) -> Call:
    def call(api: Any, hidden: Any, table: Any, target: Any, negatives: int, **options: Any) -> Any:
        return api.scalable_linear_cross_entropy(
            hidden, table, target, **bucket_sizes(len(hidden)), mix_x=mix_x, **options
        )

    return call


def _provider(
    name: str, call: Call, arrays: Arrays = lambda _: {}, candidates: Callable[[Shape],
    int] = lambda shape: shape.negatives,
    framework: Literal["torch", "jax"] = "torch",
) -> Provider:  # fmt: skip
    api = torch_impl if framework == "torch" else jax_impl

    def with_impl(impl: str) -> Loss:
        def loss(hidden: Any, table: Any, target: Any, negatives: int, seed: Any, **given: Any) -> Any:
            return call(api, hidden, table, target, negatives, seed=seed, impl=impl, **given)

        return loss

    name = name if framework == "torch" else name + JAX
    return Provider(
        name, framework, False, with_impl("auto"), ours=True, losses=True,
        reference=with_impl("reference"), arrays=arrays, candidates=candidates,
    )  # fmt: skip


def _uniform(num_items: int, negatives: int) -> Sampler:
    return UniformNegatives(negatives, GROUP)


IN_JAX = (UNIFORM, "popularity", "mixed", "BCE+", "SCE")


def loss_providers() -> list[Provider]:
    in_batch, whole_batch = InBatchNegatives(GROUP), InBatchNegatives(None)
    # name: the call, its arrays and a row's negatives, where they are not the shape's
    losses: dict[str, tuple[Any, ...]] = {
        UNIFORM: (_softmax(_uniform),),
        "popularity": (_softmax(_popularity),),
        "log-uniform": (_softmax(_log_uniform),),
        "mixed": (_softmax(_mixed), _frequencies),
        "in-batch": (_softmax(lambda *_: in_batch), _frequencies, lambda shape: GROUP),
        "in-batch, whole batch": (_softmax(lambda *_: whole_batch), _frequencies, lambda shape: shape.rows),
        "hard": (_softmax(lambda _, negatives: HardNegatives(POOL * negatives, negatives, GROUP)),),
        "uniform, history": (_softmax(_uniform), _history),
        "BCE": (_binary(lambda *_: UniformNegatives(1, group_size=1)), lambda _: {}, lambda shape: 1),
        "BCE+": (_binary(_uniform),),
        "gBCE": (_binary(_uniform, GBCE_T),),
        "SCE": (_scalable(False), lambda _: {}, bucket_candidates),
        "SCE, mixed centres": (_scalable(True), lambda _: {}, bucket_candidates),
    }
    frameworks: tuple[tuple[Literal["torch", "jax"], Any], ...] = (("torch", losses), ("jax", IN_JAX))
    return [_provider(name, *losses[name], framework=framework) for framework, names in frameworks for name in names]
