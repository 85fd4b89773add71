"""The rows of a catalog that a step touches, as a loss reads them; made by ``tables.working_set``."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ...kernels.negatives.history import History
from ...kernels.negatives.samplers import Sampler


class WorkingSet(NamedTuple):
    """The rows of a step, T of them: what its groups of rows draw, its targets and the inputs.

    ``ids`` (T,) int32: the first ``count`` (1,) int32 are distinct and ascending, the rest repeat the last, as of a
    `RowSet`. ``target`` and ``inputs`` are places among them, int32, shaped as they were given; -1 in ``target`` are
    rows to leave out, negative ``inputs`` stay as they are.

    The rest is for the loss. ``drawn``, int32 places: of lists (groups, K), -1 where there is none; of uniform draws
    (D + T,), by groups, slots and positions of a slot, and behind them each row that nobody drew, or -1, with
    ``positions`` (N,) int32, where in ``drawn`` each flat row's target is; None where all targets are the negatives.
    ``log_weight`` (T,) fp32: -log(V q) of each row's draw probability q, where these are known. ``history``
    as it was given, in items of the catalog, and beside it ``history_weight`` (V,), the ``log_weight`` of all these.
    ``gathered`` (P N,) int32, of a catalog that ranks share, else None: places of the targets of all ranks' rows, -2 of
    those that other ranks have; ``target`` then says which rank has a row's own, and ``inputs`` (P, ...) are places of
    all ranks' inputs, -1 of those that other ranks have.
    ``seed`` (2,) int32: the words (low, high) that rows are shuffled by. ``sampler`` draws from ``num_items``;
    ``ignore_index`` is that of the targets that were given.
    """

    ids: Tensor
    count: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]
    target: Tensor
    inputs: Tensor | None
    drawn: Tensor | None
    positions: Tensor | None
    log_weight: Tensor | None
    history: History | None
    history_weight: Tensor | None
    seed: Tensor
    sampler: Sampler
    num_items: int
    ignore_index: int
    gathered: Tensor | None = None
