"""The rows of a catalog that a step touches, as a loss reads them; made by ``tables.working_set``."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
from jax import Array

from ...kernels.negatives.history import History
from ...kernels.negatives.samplers import Sampler


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WorkingSet:
    """The rows of a step, T of them: what its groups of rows draw, its targets and the inputs. A pytree.

    ``ids`` (T,) int32: the first ``count`` (1,) int32 are distinct and ascending, the rest repeat the last, as of a
    `RowSet`. ``target`` and ``inputs`` are places among them, int32, shaped as they were given; -1 in ``target`` are
    rows to leave out, negative ``inputs`` stay as they are.

    The rest is for the loss. ``drawn``, int32 places: of lists (groups, K), -1 where there is none; of uniform draws
    (D + T,), by groups, slots and positions of a slot, and behind them each row that nobody drew, or -1, with
    ``positions`` (N,) int32, where in ``drawn`` each flat row's target is; None where all targets are the negatives.
    ``log_weight`` (T,) fp32: -log(V q) of each row's draw probability q, where these are known. ``history``
    as it was given, in items of the catalog, and beside it ``history_weight`` (V,), the ``log_weight`` of all these.
    ``gathered`` (P N,) int32, of a catalog that devices share, else None: places of the targets of all shards' rows, -2
    of those that other shards have; ``target`` then says which shard has a row's own, and ``inputs`` (P, ...) are
    places of all shards' inputs, -1 of those that other shards have.
    ``seed`` (2,) uint32: the words (high, low) that rows are shuffled by. ``sampler`` draws from ``num_items``; of a
    catalog that devices share it is the whole one's, and ``num_items`` those of the largest shard, to whose shapes
    ``drawn`` and ``history_weight`` are filled up. ``ignore_index`` is that of the targets that were given.
    """

    ids: Array
    count: Array
    target: Array
    inputs: Array | None
    drawn: Array | None
    positions: Array | None
    log_weight: Array | None
    history: History | None
    history_weight: Array | None
    seed: Array
    gathered: Array | None
    sampler: Sampler = field(metadata={"static": True})
    num_items: int = field(metadata={"static": True})
    ignore_index: int = field(metadata={"static": True})
