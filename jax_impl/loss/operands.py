"""The arrays that go into the loss's rows and come out of them, as pytrees."""

from __future__ import annotations

from typing import NamedTuple

import jax
from jax import Array

from ...kernels.negatives.samplers import SAMPLERS

for _sampler in SAMPLERS:  # pytrees without leaves, so that they may be arguments under jit; equal ones compile once
    jax.tree_util.register_static(_sampler)


class Operands(NamedTuple):
    """One call's arrays on N flat rows."""

    input: Array  # (N, D)
    weight: Array  # (V, D)
    bias: Array | None  # (V,)
    scale: Array  # (1,) fp32
    target: Array  # (N,) int32
    ids: Array | None  # (K,), (N, K) or with a group_size above 1 (groups, K) int32
    seed: Array  # (2,) int32 words (low, high)
    log_weight: Array | None = None  # (V,) fp32, -log(V q) of each item's draw probability q
    slot_ends: Array | None = None  # (V,) int32 of each part of the groups' lists that is drawn by slots
    users: Array | None = None  # (N,) int32
    history_offsets: Array | None = None  # (users + 1,) int32
    history_items: Array | None = None  # (known items,) int32
    positions: Array | None = None  # (N,) int32 of rows' targets among a working set's, whose ``ids`` are (D + T,)
    row_ids: Array | None = None  # (T,) int32, what a working set's rows are in the catalog, beside a history
    history_weight: Array | None = None  # (V,) fp32 ``log_weight`` of the catalog, beside these


class Rows(NamedTuple):
    """What the forward gives of each row; a negative's probability is exp((s - peak) - shift), as in the kernels."""

    loss: Array
    lse: Array
    peak: Array
    shift: Array
    average_dot: Array | None  # None unless the scale's gradient may be asked for
    average: Array  # (N, D), the negatives' average, in input's dtype


class Gradients(NamedTuple):
    """Gradients of input, weight and bias, and each row's part of the scale's; None where they are not wanted.

    None of these arrays, nor of ``Rows``, is ever empty: see ``interop.call``.
    """

    input: Array | None
    weight: Array | None
    bias: Array | None
    scale: Array | None
